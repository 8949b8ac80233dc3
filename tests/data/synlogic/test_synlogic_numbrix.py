"""Numbrix: the shared claims, the published verdicts, and verdicts against the rules restated naively."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.numbrix import Numbrix, NumbrixParams
from framework.sample import Sample

TASK = Numbrix()
CARD = Sample(task="numbrix", question="", meta={"grid": [[1, "X"], ["X", 3]], "form": "compact"})


def verdicts(answer, sample=CARD):
    return TASK.verify(sample, answer, "official"), TASK.verify(sample, answer, "strict")


@pytest.mark.slow
def test_every_shared_claim_holds():
    check_all(TASK, seeds=6)


def test_the_verdicts_of_the_card_section_37():
    assert verdicts("[[1,2],[4,3]]") == (True, True)
    assert verdicts("[[1,4],[2,3]]") == (True, True)
    assert verdicts("[[2,1],[3,4]]") == (False, False)


def test_the_rules_of_the_card_section_20():
    right = "[[1,2],[4,3]]"
    assert verdicts("[[1,3],[4,2]]") == (False, False)  # a clue is changed
    assert verdicts("[[1,2],[2,3]]") == (False, False)  # no permutation
    assert verdicts("[[1,2,3],[4,3]]") == (False, False)
    assert verdicts(f"[[9,9],[9,9]] is wrong, {right} is right") == (True, True)  # the last one counts
    assert verdicts(f"{right} and not [[9,9],[9,9]]") == (False, False)
    assert verdicts(f"[[1 or so: {right}") == (False, False)  # the stretch begins early
    assert verdicts(f"[1] [[x]] {right} [2]") == (True, True)
    assert verdicts('[["1","2"],["4","3"]]') == (False, False)  # a digit must follow `[[`
    assert verdicts('[[1,"2"],["4","3"]]') == (True, True)  # quotes further on are removed
    assert verdicts("[[1,2],(4,3)]") == (False, False)
    assert verdicts("[[1,2.0],[4,3]]") == (False, False)
    assert verdicts("[[1,2],[4,3]\n ]") == (True, True)
    free = Sample(task="numbrix", question="", meta={"grid": [["X", "X"], ["X", "X"]]})
    assert verdicts("[[4,True],[3,2]]", free) == (True, False)
    assert verdicts("1 2/4 3") == (False, True)  # the short form of compact samples


def right(grid, clues):
    n = len(clues)
    if len(grid) != n or any(len(row) != n for row in grid):
        return False
    cell = {}
    for i in range(n):
        for j in range(n):
            if clues[i][j] != "X" and clues[i][j] != grid[i][j]:
                return False
            cell[grid[i][j]] = (i, j)
    if set(cell) != set(range(1, n * n + 1)):
        return False
    steps = [(cell[k][0] - cell[k + 1][0], cell[k][1] - cell[k + 1][1]) for k in range(1, n * n)]
    return all(step in ((0, 1), (1, 0), (0, -1), (-1, 0)) for step in steps)


def grid_of(sample):
    return [[int(cell) for cell in row.strip("[] ").split(",")] for row in TASK.solve(sample).split("],")]


def test_both_ends_are_given_and_paths_are_not_one_snake():
    for n in (5, 7, 9):
        paths = set()
        for seed in range(12):
            sample = TASK.generate(seed, NumbrixParams(sizes=(n,), fill_rates=(0.3,)), "english")
            flat = [cell for row in sample.meta["grid"] for cell in row]
            assert {1, n * n} <= {cell for cell in flat if cell != "X"}
            assert abs(sum(cell != "X" for cell in flat) - 0.3 * n * n) <= 2
            assert right(grid_of(sample), sample.meta["grid"])
            paths.add(str(grid_of(sample)))
        assert len(paths) == 12


def changed(kind, grid, rng):
    """(the grid that the answer states, the answer); None where the official form is left."""
    n = len(grid)
    grid = [list(row) for row in grid]
    (a, b), (c, d) = ((rng.randrange(n), rng.randrange(n)) for _ in range(2))
    match kind:
        case "cell changed":
            grid[a][b] = rng.randint(1, n * n)
        case "cells swapped":
            grid[a][b], grid[c][d] = grid[c][d], grid[a][b]
        case "off by one":
            grid[a][b] += 1
        case "all off by one":
            grid = [[cell - 1 for cell in row] for row in grid]
        case "row dropped":
            del grid[a]
        case "row repeated":
            grid.insert(a, list(grid[a]))
        case "row copied":
            grid[a] = list(grid[c])
        case "rows swapped":
            grid[a], grid[c] = grid[c], grid[a]
        case "cell dropped":
            del grid[a][b]
        case "cell added":
            grid[a].append(n * n + 1)
        case "transposed":
            grid = [list(column) for column in zip(*grid, strict=True)]
        case "mirrored":
            grid = [row[::-1] for row in grid]
        case "upside down":
            grid = grid[::-1]
        case "path reversed":
            grid = [[n * n + 1 - cell for cell in row] for row in grid]
    text = str(grid)
    match kind:
        case "prose":
            return grid, f"So [1]: {text}. Done."
        case "fence":
            return grid, f"```python\n{text}\n```"
        case "assigned":
            return grid, f"grid = {text}"
        case "line breaks":
            return grid, text.replace("],", "],\n").replace("[[", "[\n [")
        case "twice":
            return grid, text + "\n" + text
        case "later rows quoted":
            head, tail = text.split("]", 1)
            return grid, head + "]" + "".join(f"'{char}'" if char.isdigit() else char for char in tail)
        case "quoted":
            return None, text.replace("[", "['").replace(", ", "', '").replace("]", "']").replace("['[", "[[")
        case "tuples":
            return None, text.replace("[", "(").replace("]", ")")
        case "floats":
            return None, text.replace(",", ".0,")
        case "plain rows":
            return None, "\n".join(" ".join(map(str, row)) for row in grid)
        case "unclosed":
            return None, text[:-1]
        case "full-width commas":
            return None, text.replace(",", "\N{FULLWIDTH COMMA}")
        case "empty":
            return None, ""
    return grid, text


VALUES = [
    "same",
    "cell changed",
    "cells swapped",
    "off by one",
    "all off by one",
    "cell dropped",
    "cell added",
    "path reversed",
]
ROWS = ["row dropped", "row repeated", "row copied", "rows swapped", "transposed", "mirrored", "upside down"]
TEXTS = [
    "prose",
    "fence",
    "assigned",
    "line breaks",
    "twice",
    "later rows quoted",
    "quoted",
    "tuples",
    "floats",
    "plain rows",
]
KINDS = [*VALUES, *ROWS, *TEXTS, "unclosed", "full-width commas", "empty"]
SAMPLES = [TASK.generate(seed, TASK.levels[level], "english") for level in LEVELS for seed in range(3)]
GRIDS = [grid_of(sample) for sample in SAMPLES]


@given(st.integers(0, len(SAMPLES) - 1), st.sampled_from(KINDS), st.integers(0, 2**32))
@settings(max_examples=examples(300), deadline=None)
def test_a_changed_answer_is_judged_as_the_rules_say(at, kind, seed):
    grid, answer = changed(kind, GRIDS[at], random.Random(seed))
    truth = grid is not None and right(grid, SAMPLES[at].meta["grid"])
    assert verdicts(answer, SAMPLES[at]) == (truth, truth), (kind, answer)
