"""Star battle: the shared claims, the published verdicts, and verdicts against the rules restated naively."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic import regions
from data.synlogic.star_placement_puzzle import StarPlacementParams, StarPlacementPuzzle
from framework.sample import Sample

TASK = StarPlacementPuzzle()
QUADRANTS = [["A", "A", "B", "B"], ["A", "A", "B", "B"], ["C", "C", "D", "D"], ["C", "C", "D", "D"]]
CARD = Sample(
    task="star_placement_puzzle", question="", meta={"n": 4, "k": 1, "region_grid": QUADRANTS, "form": "compact"}
)
RIGHT = "{'A':[(1,2)],'B':[(2,4)],'C':[(3,1)],'D':[(4,3)]}"


def fenced(text):
    return f"```python\n{text}\n```"


def verdicts(answer, sample=CARD):
    return TASK.verify(sample, answer, "official"), TASK.verify(sample, answer, "strict")


@pytest.mark.slow
def test_every_shared_claim_holds():
    check_all(TASK, seeds=4)


def test_the_verdicts_of_the_card_section_37():
    assert verdicts(fenced(RIGHT)) == (True, True)
    assert verdicts(fenced("{'A':[(1,2),(2,4),(3,1),(4,3)]}")) == (True, False)  # the official verifier ignores keys
    assert verdicts(fenced("{'A':[(0,1)],'B':[(1,3)],'C':[(2,0)],'D':[(3,2)]}")) == (False, False)
    assert verdicts(fenced("{'A':[(1,1)],'B':[(2,4)],'C':[(3,2)],'D':[(4,3)]}")) == (False, False)


def test_the_rules_of_the_card_section_27():
    other = "{'A':[(1,1)]}"
    assert verdicts(RIGHT) == (False, False)  # a python block is needed
    assert verdicts(f"```\n{RIGHT}\n```") == (False, False)
    assert verdicts(fenced(RIGHT) + "\n" + fenced(other)) == (True, True)  # the first block counts
    assert verdicts(fenced(other) + "\n" + fenced(RIGHT)) == (False, False)
    assert verdicts(fenced(f"{other}\n{RIGHT}")) == (False, False)  # and in it the first braces
    assert verdicts(fenced("{1, 2}\nx = 3\nstars = " + RIGHT)) == (True, True)  # a set is no dictionary, so...
    assert verdicts(fenced("{oops} stars = " + RIGHT)) == (
        True,
        True,
    )  # ...an assignment is looked for
    assert verdicts(fenced(RIGHT.replace("[(1,2)]", "[(1,2),(1,2)]"))) == (True, False)  # duplicates are merged
    assert verdicts(fenced(RIGHT.replace("(1,2)", "(True,2)"))) == (True, False)
    assert verdicts(fenced(RIGHT.replace("(1,2)", "(1.0,2)"))) == (False, False)
    assert verdicts(fenced(RIGHT.replace("(", "[").replace(")", "]"))) == (True, True)
    assert verdicts(fenced("{}")) == (False, False)
    assert verdicts("2/4/1/3") == (False, True)  # the short form of compact samples
    assert verdicts("2/4/3/1") == (False, False)


def brute(grid, k):
    """All placements, from the rules alone."""
    n = len(grid)
    found = []
    for rows in itertools.product(list(itertools.combinations(range(n), k)), repeat=n):
        cells = [(i, j) for i, row in enumerate(rows) for j in row]
        if right(cells, grid, k):
            found.append(rows)
    return found


def right(cells, grid, k):
    n = len(grid)
    if len(set(cells)) != len(cells) or not all(0 <= i < n and 0 <= j < n for i, j in cells):
        return False
    letters = {letter for row in grid for letter in row}
    counts = [Counter(i for i, _ in cells), Counter(j for _, j in cells), Counter(grid[i][j] for i, j in cells)]
    wanted = [set(range(n)), set(range(n)), letters]
    if any(set(count) != want or set(count.values()) != {k} for count, want in zip(counts, wanted, strict=True)):
        return False
    return all(max(abs(a - c), abs(b - d)) > 1 for (a, b), (c, d) in itertools.combinations(cells, 2))


def test_tiny_puzzles_have_one_solution_and_the_oracle_finds_it():
    for seed in range(25):
        sample = TASK.generate(seed, TASK.levels["tiny"])
        if sample.meta["n"] == 4:
            (rows,) = brute(sample.meta["region_grid"], 1)
            assert TASK.solve(sample) == "/".join(str(row[0] + 1) for row in rows)


def test_the_sizes_that_the_official_generator_cannot_make_exist_and_placements_vary():
    for n, k in ((4, 1), (6, 1), (8, 1), (8, 2)):
        samples = [TASK.generate(seed, StarPlacementParams(sizes=((n, k),))) for seed in range(8)]
        assert len({TASK.solve(sample) for sample in samples}) > 1


def test_regions_are_connected_and_as_many_as_rows():
    for level in LEVELS:
        for seed in range(6):
            grid = TASK.generate(seed, TASK.levels[level]).meta["region_grid"]
            cells = {(i, j): letter for i, row in enumerate(grid) for j, letter in enumerate(row)}
            for letter in set(cells.values()):
                assert len(regions.components([cell for cell in cells if cells[cell] == letter])) == 1
            assert len(set(cells.values())) == len(grid)


def changed(kind, cells, grid, rng):
    """(answer, stars that it names or None where it is not in the official form, whether the keys are the regions)."""
    n = len(grid)
    stars, spot = list(cells), rng.randrange(len(cells))
    i, j = stars[spot]
    match kind:
        case "moved right":
            stars[spot] = (i, j + 1)
        case "moved down":
            stars[spot] = (i + 1, j)
        case "moved anywhere":
            stars[spot] = (rng.randrange(n), rng.randrange(n))
        case "dropped":
            del stars[spot]
        case "added":
            stars.append((rng.randrange(n), rng.randrange(n)))
        case "transposed":
            stars = [(b, a) for a, b in stars]
        case "mirrored":
            stars = [(a, n - 1 - b) for a, b in stars]
        case "zero-based":
            stars = [(a - 1, b - 1) for a, b in stars]
        case "columns swapped":
            other = rng.randrange(len(stars))
            stars[spot], stars[other] = (i, stars[other][1]), (stars[other][0], j)
        case "none":
            stars = []
    named = {}
    for a, b in stars:
        inside = 0 <= a < n and 0 <= b < n
        named.setdefault(grid[a][b] if inside else "A", []).append((a + 1, b + 1))
    keyed = True
    if kind == "one key":
        named, keyed = {"A": [pair for pairs in named.values() for pair in pairs]}, len(named) == 1
    if kind == "keys rotated":
        named, keyed = dict(zip(named, [*list(named.values())[1:], *list(named.values())[:1]], strict=True)), False
    text = str(named)
    match kind:
        case "double quotes":
            text = text.replace("'", '"')
        case "lists":
            text = text.replace("(", "[").replace(")", "]")
        case "no spaces":
            text = text.replace(" ", "")
        case "line breaks":
            text = text.replace("],", "],\n")
        case "floats":
            return fenced(text.replace(",", ".0,")), None, False
        case "quoted pairs":
            return fenced(text.replace("(", "'(").replace(")", ")'")), None, False
        case "unclosed":
            return fenced(text[:-1]), None, False
        case "no fence":
            return text, None, False
        case "json fence":
            return f"```json\n{text}\n```", None, False
        case "full-width commas":
            return fenced(text.replace(",", "\N{FULLWIDTH COMMA}")), None, False
        case "upper-case fence":
            return f"```PYTHON\n{text}\n```", None, False
        case "prose around":
            return f"So [1]:\n{fenced(text)}\nand {{done}}.", stars, keyed
        case "assigned":
            return fenced("stars = " + text), stars, keyed
        case "lower-case keys":
            return fenced(text.lower()), stars, not stars
    return fenced(text), stars, keyed


KINDS = [
    "same",
    "moved right",
    "moved down",
    "moved anywhere",
    "dropped",
    "added",
    "transposed",
    "mirrored",
    "zero-based",
    "columns swapped",
    "none",
    "one key",
    "keys rotated",
    "double quotes",
    "lists",
    "no spaces",
    "line breaks",
    "floats",
    "quoted pairs",
    "unclosed",
    "no fence",
    "json fence",
    "full-width commas",
    "upper-case fence",
    "prose around",
    "assigned",
    "lower-case keys",
]
SAMPLES = [TASK.generate(seed, TASK.levels[level], "english") for level in LEVELS for seed in range(3)]
STARS = [TASK.solve(Sample(task="", question="", meta={**sample.meta, "form": "compact"})) for sample in SAMPLES]


@given(st.integers(0, len(SAMPLES) - 1), st.sampled_from(KINDS), st.integers(0, 2**32))
@settings(max_examples=examples(300), deadline=None)
def test_a_changed_answer_is_judged_as_the_rules_say(at, kind, seed):
    sample = SAMPLES[at]
    grid, k = sample.meta["region_grid"], sample.meta["k"]
    cells = [(i, int(j) - 1) for i, row in enumerate(STARS[at].split("/")) for j in row.split(",")]
    answer, stars, keyed = changed(kind, cells, grid, random.Random(seed))
    merged = sorted(set(stars or ()))
    official = stars is not None and right(merged, grid, k)
    strict = official and keyed and len(merged) == len(stars)
    assert verdicts(answer, sample) == (official, strict), (kind, answer)
