"""Number wall: the shared claims, the published rules as verdicts, and verdicts against the rules restated naively."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.number_wall import NumberWall
from framework.sample import Sample

TASK = NumberWall()
GRID = [["X", "X", 2], ["X", "X", "X"], [1, "X", 1]]
PUZZLE = Sample(task="number_wall", question="", meta={"grid": GRID, "n": 3, "form": "compact"})
RIGHT = '[["A","X",2],["A","A","A"],[1,"A",1]]'


def verdicts(answer, sample=PUZZLE):
    return TASK.verify(sample, answer, "official"), TASK.verify(sample, answer, "strict")


@pytest.mark.slow
def test_every_shared_claim_holds():
    check_all(TASK, seeds=6)


def test_the_rules_of_the_card_section_19():
    assert verdicts(RIGHT) == (True, True)
    assert verdicts(f"```python\n{RIGHT}\n```") == (True, True)
    assert verdicts(RIGHT.replace('"', "'")) == (True, True)
    assert verdicts(RIGHT.replace("2", '"2"')) == (True, True)  # digits may be quoted
    assert verdicts(f'Not [["A"]] but {RIGHT}, see [1].') == (True, True)  # the last grid counts
    assert verdicts(f'{RIGHT} and not [["A"]]') == (False, False)
    assert verdicts('[["A","A",2],["A","A","X"],[1,"A","A"]]') == (False, False)  # a number is lost
    assert verdicts('[["X","X",2],["A","A","A"],[1,"A",1]]') == (False, False)  # three cells for 2
    assert verdicts('[["A","A",2],["A","A","X"],[1,"A",1]]') == (False, False)  # a 2 x 2 block of walls
    assert verdicts('[["A","X",2],["X","A","A"],[1,"A",1]]') == (False, False)  # two islands corner to corner
    assert verdicts(RIGHT.replace("A", "a")) == (False, False)
    assert verdicts(RIGHT.replace("2", "2.0")) == (False, False)
    assert verdicts(RIGHT.replace("2", "02")) == (False, False)
    assert verdicts(RIGHT.replace("[", "(").replace("]", ")")) == (False, False)
    assert verdicts(RIGHT[:-1] + ",]") == (False, False)
    assert verdicts("AX2/AAA/1A1") == (False, True)  # the short form of compact samples
    apart = Sample(task="number_wall", question="", meta={"grid": [["X", 1, "X"]] * 1 + [["X"] * 3] * 2, "n": 3})
    added = '[["A",1,"A"],["A","A","A"],["A",1,"A"]]'
    assert verdicts(added, apart) == (True, False)  # the answer brings an island with a number of its own


def right(grid, given):
    """The rules, naively; `grid` may hold anything."""
    n = len(given)
    if len(grid) != n or any(len(row) != n for row in grid):
        return False
    if any(not (cell in ("X", "A") or type(cell) is int) for row in grid for cell in row):
        return False
    cells = [(i, j) for i in range(n) for j in range(n)]
    if any(type(given[i][j]) is int and grid[i][j] != given[i][j] for i, j in cells):
        return False
    island = {cell: {cell} for cell in cells if grid[cell[0]][cell[1]] != "A"}
    for a, b in cells:
        for c, d in ((a, b + 1), (a + 1, b)):
            if (a, b) in island and (c, d) in island and island[a, b] is not island[c, d]:
                island[a, b] |= island[c, d]
                for cell in island[a, b]:
                    island[cell] = island[a, b]
    for part in island.values():
        if [grid[i][j] for i, j in part if grid[i][j] != "X"] != [len(part)]:
            return False
    for i, j in cells:
        if i + 1 < n and j + 1 < n:
            block = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
            if not any(cell in island for cell in block):
                return False
    for a, b in island:
        for c, d in island:
            if max(abs(a - c), abs(b - d)) == 1 and island[a, b] is not island[c, d]:
                return False
    return True


def adds_numbers(grid, given):
    return any(
        type(new) is int and type(old) is not int
        for a, b in zip(grid, given, strict=True)
        for new, old in zip(a, b, strict=True)
    )


def grid_of(sample):
    return json.loads(TASK.solve(sample).split("\n")[1])


def test_the_oracle_obeys_the_rules_and_numbers_stay_within_the_size():
    sizes = set()
    for level in LEVELS:
        for seed in range(20):
            sample = TASK.generate(seed, TASK.levels[level], "english")
            given = sample.meta["grid"]
            assert right(grid_of(sample), given)
            assert not adds_numbers(grid_of(sample), given)
            numbers = [cell for row in given for cell in row if cell != "X"]
            assert max(numbers) <= len(given)
            sizes |= set(numbers)
    assert {1, 2, 3, 4} <= sizes


def changed(kind, grid, rng):
    """(the grid that the answer states or None where the official form is left, the answer)."""
    n = len(grid)
    grid = [list(row) for row in grid]
    (a, b), (c, d) = ((rng.randrange(n), rng.randrange(n)) for _ in range(2))
    match kind:
        case "wall flipped":
            grid[a][b] = {"A": "X", "X": "A"}.get(grid[a][b], grid[a][b])
        case "cells swapped":
            grid[a][b], grid[c][d] = grid[c][d], grid[a][b]
        case "number off by one":
            grid = [[cell + 1 if type(cell) is int and i == a else cell for cell in row] for i, row in enumerate(grid)]
        case "number added":
            grid[a][b] = rng.randint(1, 3)
        case "numbers lost":
            grid = [["X" if type(cell) is int else cell for cell in row] for row in grid]
        case "all walls":
            grid = [["A" if cell == "X" else cell for cell in row] for row in grid]
        case "no walls":
            grid = [["X" if cell == "A" else cell for cell in row] for row in grid]
        case "row dropped":
            del grid[a]
        case "row repeated":
            grid.insert(a, list(grid[a]))
        case "rows swapped":
            grid[a], grid[c] = grid[c], grid[a]
        case "cell dropped":
            del grid[a][b]
        case "cell added":
            grid[a].append("A")
        case "transposed":
            grid = [list(column) for column in zip(*grid, strict=True)]
        case "mirrored":
            grid = [row[::-1] for row in grid]
        case "upside down":
            grid = grid[::-1]
    text = json.dumps(grid)
    match kind:
        case "single quotes":
            return grid, text.replace('"', "'")
        case "quoted numbers":
            return grid, json.dumps([[str(cell) for cell in row] for row in grid])
        case "indented":
            return grid, json.dumps(grid, indent=2)
        case "prose":
            return grid, f"So [1]: {text}. Done."
        case "assigned":
            return grid, f"```python\ngrid = {text}\n```"
        case "twice":
            return grid, text + "\n" + text
        case "lower case":
            return None, text.lower()
        case "tuples":
            return None, text.replace("[", "(").replace("]", ")")
        case "unquoted":
            return None, text.replace('"', "")
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
    "wall flipped",
    "cells swapped",
    "number off by one",
    "number added",
    "numbers lost",
    "all walls",
    "no walls",
]
ROWS = [
    "row dropped",
    "row repeated",
    "rows swapped",
    "cell dropped",
    "cell added",
    "transposed",
    "mirrored",
    "upside down",
]
TEXTS = [
    "single quotes",
    "quoted numbers",
    "indented",
    "prose",
    "assigned",
    "twice",
    "lower case",
    "tuples",
    "unquoted",
]
KINDS = [*VALUES, *ROWS, *TEXTS, "plain rows", "unclosed", "full-width commas", "empty"]
SAMPLES = [TASK.generate(seed, TASK.levels[level], "english") for level in LEVELS for seed in range(3)]
GRIDS = [grid_of(sample) for sample in SAMPLES]


@given(st.integers(0, len(SAMPLES) - 1), st.sampled_from(KINDS), st.integers(0, 2**32))
@settings(max_examples=examples(300), deadline=None)
def test_a_changed_answer_is_judged_as_the_rules_say(at, kind, seed):
    grid, answer = changed(kind, GRIDS[at], random.Random(seed))
    given = SAMPLES[at].meta["grid"]
    official = grid is not None and right(grid, given)
    strict = official and not adds_numbers(grid, given)
    assert verdicts(answer, SAMPLES[at]) == (official, strict), (kind, answer)
