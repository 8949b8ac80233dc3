"""Norinori: the shared claims, the published verdicts, and verdicts against the rules restated naively."""

import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic import regions
from data.synlogic.norinori import Norinori
from framework.sample import Sample

TASK = Norinori()


def puzzle(text):
    grid = [list(row) for row in text.split("/")]
    return Sample(task="norinori", question="", meta={"region_grid": grid, "form": "compact"})


CARD = puzzle("AAB/ABB/CCC")


def verdicts(answer, sample=CARD):
    return TASK.verify(sample, answer, "official"), TASK.verify(sample, answer, "strict")


@pytest.mark.slow
def test_every_shared_claim_holds():
    check_all(TASK, seeds=6)


def test_the_verdicts_of_the_card_section_37():
    assert verdicts("[[(1,1),(1,2)]]") == (True, False)  # regions without a shaded cell are a hole of the official one
    assert verdicts("") == (True, False)  # and so is no domino at all
    assert verdicts("I give up") == (True, False)


def test_the_rules_of_the_card_section_18():
    sample = puzzle("ABBB/ACXB/CCCC/CDDD")
    right = "[[(1,1),(2,1)],[(1,3),(2,3)],[(3,4),(4,4)]]"
    assert verdicts("[[(1,1),(2,1)]]", sample) == (False, False)  # an X is left
    assert verdicts(right, sample) == (False, False)  # one cell each of B, C, D
    whole = puzzle("AAAB/AAXB/CCCC")  # not square: rows count for the official verifier
    assert verdicts("[[(1,1),(1,2)]]", whole) == (False, False)
    sample = puzzle("AAA/AAA/BBA")
    assert verdicts("[[(1,1), (1,2)], [(3,1),(3,2)]]", sample) == (True, True)
    assert verdicts("[[(3,2),(3,1)],[(1,2),(1,1)]]", sample) == (True, True)  # any order
    assert verdicts("(1,1), (1,2) and ( 3 , 1 ),(3,2)", sample) == (True, True)  # no square brackets anywhere
    assert verdicts("[(1,1),(1,2)] and (3,1),(3,2)", sample) == (True, False)  # with brackets only those count
    assert verdicts("[[(1,1),(1,2)],[(1,1),(1,2)],[(3,1),(3,2)]]", sample) == (False, False)  # quoted twice
    assert verdicts("[[(1,1),(1,3)],[(3,1),(3,2)]]", sample) == (False, False)  # no domino
    assert verdicts("[[(1,1),(2,1)],[(3,1),(3,2)]]", sample) == (False, False)  # along an edge
    assert verdicts("[[(0,1),(0,2)],[(3,1),(3,2)]]", sample) == (False, False)
    assert verdicts("[[(1,3),(1,4)],[(3,1),(3,2)]]", sample) == (False, False)
    assert verdicts("11h,31h", sample) == (True, True)  # the short form; without pairs it is "no domino" officially
    assert verdicts("11h, 31h", sample) == (True, True)  # a space after the comma does no harm
    assert verdicts("11h", sample) == (True, False)
    crossing = puzzle("AXA/BBA/BBB")
    assert verdicts("[[(1,1),(1,2)],[(2,3),(3,3)]]", crossing) == (False, False)
    assert verdicts(f"[[({'9' * 5000},1),(1,2)]]", sample) == (False, False)


def right(pairs, grid, strict):
    """The rules, naively, for 0-based pairs of cells."""
    n = len(grid)
    cells = [cell for pair in pairs for cell in pair]
    if len(set(cells)) != len(cells) or not all(0 <= i < n and 0 <= j < n for i, j in cells):
        return False
    if any(abs(a - c) + abs(b - d) != 1 for (a, b), (c, d) in pairs):
        return False
    for one, two in itertools.combinations(pairs, 2):
        if any(abs(a - c) + abs(b - d) == 1 for a, b in one for c, d in two):
            return False
    if any(grid[i][j] == "X" and (i, j) not in cells for i in range(n) for j in range(n)):
        return False
    counts = Counter(grid[i][j] for i, j in cells)
    letters = {letter for row in grid for letter in row} - {"X"}
    return all(counts[letter] == 2 or (not strict and counts[letter] == 0) for letter in letters)


def pairs_of(answer):
    numbers = [tuple(map(int, found)) for found in re.findall(r"\[\((\d+),(\d+)\), \((\d+),(\d+)\)\]", answer)]
    return [((a - 1, b - 1), (c - 1, d - 1)) for a, b, c, d in numbers]


def test_the_oracle_obeys_the_rules_and_regions_are_connected():
    for level in LEVELS:
        for seed in range(8):
            sample = TASK.generate(seed, TASK.levels[level], "english")
            grid = sample.meta["region_grid"]
            assert right(pairs_of(TASK.solve(sample)), grid, True)
            cells = {(i, j): letter for i, row in enumerate(grid) for j, letter in enumerate(row)}
            for letter in sorted(set(cells.values()) - {"X"}):
                assert len(regions.components([cell for cell in cells if cells[cell] == letter])) == 1


def text_of(pairs):
    return "[" + ", ".join(f"[({a + 1},{b + 1}), ({c + 1},{d + 1})]" for (a, b), (c, d) in pairs) + "]"


CELLS = {
    "same": lambda p, r, n: p,
    "dropped": lambda p, r, n: p[:r] + p[r + 1 :],
    "quoted twice": lambda p, r, n: [*p, p[r]],
    "none": lambda p, r, n: [],
    "one only": lambda p, r, n: [p[r]],
    "transposed": lambda p, r, n: [((b, a), (d, c)) for (a, b), (c, d) in p],
    "mirrored": lambda p, r, n: [((a, n - 1 - b), (c, n - 1 - d)) for (a, b), (c, d) in p],
    "upside down": lambda p, r, n: [((n - 1 - a, b), (n - 1 - c, d)) for (a, b), (c, d) in p],
    "zero-based": lambda p, r, n: [((a - 1, b - 1), (c - 1, d - 1)) for (a, b), (c, d) in p if min(a, b, c, d) > 0],
    "off by one": lambda p, r, n: [
        ((a, b + 1), (c, d + 1)) if i == r else ((a, b), (c, d)) for i, ((a, b), (c, d)) in enumerate(p)
    ],
    "turned": lambda p, r, n: [
        ((a, b), (a + d - b, b + c - a)) if i == r else ((a, b), (c, d)) for i, ((a, b), (c, d)) in enumerate(p)
    ],
    "stretched": lambda p, r, n: [
        ((a, b), (2 * c - a, 2 * d - b)) if i == r else ((a, b), (c, d)) for i, ((a, b), (c, d)) in enumerate(p)
    ],
    "cells swapped": lambda p, r, n: [pair[::-1] for pair in p],
    "reversed": lambda p, r, n: p[::-1],
    "ends exchanged": lambda p, r, n: [(p[0][0], p[r][1]), (p[r][0], p[0][1]), *p[1:r], *p[r + 1 :]] if r else p,
}
FORMS = {
    "prose": lambda text: (f"The answer is {text}.", True),
    "python fence": lambda text: (f"```python\n{text}\n```", True),
    "no spaces": lambda text: (text.replace(" ", ""), True),
    "without outer brackets": lambda text: (text[1:-1], True),
    "no brackets": lambda text: (text.replace("[", "").replace("]", ";"), True),
    "round brackets": lambda text: (text.replace("[", "(").replace("]", ")"), True),
    "line breaks": lambda text: (text.replace("], ", "],\n"), True),
    "square coordinates": lambda text: (text.replace("(", "[").replace(")", "]"), False),
    "full-width commas": lambda text: (text.replace(",", "\N{FULLWIDTH COMMA}"), False),
    "quoted coordinates": lambda text: (text.replace("(", "('").replace(")", "')"), False),
    "words": lambda text: (text.replace(",", " and "), False),
}
SAMPLES = [TASK.generate(seed, TASK.levels[level], "english") for level in LEVELS for seed in range(3)]
ANSWERS = [pairs_of(TASK.solve(sample)) for sample in SAMPLES]


@given(
    st.integers(0, len(SAMPLES) - 1),
    st.sampled_from(sorted(CELLS)),
    st.sampled_from(sorted(FORMS)),
    st.integers(0, 2**32),
)
@settings(max_examples=examples(300), deadline=None)
def test_a_changed_answer_is_judged_as_the_rules_say(at, kind, form, seed):
    grid = SAMPLES[at].meta["region_grid"]
    pairs = CELLS[kind](list(ANSWERS[at]), random.Random(seed).randrange(len(ANSWERS[at])), len(grid))
    answer, read = FORMS[form](text_of(pairs))
    if not read:
        pairs = []  # the verifier sees no domino in this form
    if min((value for pair in pairs for cell in pair for value in cell), default=0) < -1:
        return  # a minus sign: no number of the official pattern
    assert verdicts(answer, SAMPLES[at]) == (right(pairs, grid, False), right(pairs, grid, True)), (kind, form, answer)
