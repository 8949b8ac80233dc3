"""Arrow maze: the shared claims, the published verdicts, and verdicts against the rules restated naively."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.arrow_maze import ArrowMaze
from framework.sample import Sample

TASK = ArrowMaze()
STEP = {"↑": (-1, 0), "↓": (1, 0), "←": (0, -1), "→": (0, 1), "↖": (-1, -1), "↗": (-1, 1), "↘": (1, 1), "↙": (1, -1)}


def puzzle(maze):
    return Sample(task="arrow_maze", question="", meta={"maze": maze, "form": "compact"})


CARD = puzzle([["1", "X"], ["X", "1"]])
RIGHT = '[["1","→"],["←","1"]]'


def verdicts(answer, sample=CARD):
    return TASK.verify(sample, answer, "official"), TASK.verify(sample, answer, "strict")


@pytest.mark.slow
def test_every_shared_claim_holds():
    check_all(TASK, seeds=4)


def test_the_verdicts_of_the_card_section_37():
    assert verdicts(RIGHT) == (True, True)
    assert verdicts('[["1","→"],["↓","1"]]') == (False, False)  # the first number has two arrows, the second none


def test_the_rules_of_the_card_section_2():
    assert verdicts(f"```python\n{RIGHT}\n```") == (True, True)
    assert verdicts(f"```\n{RIGHT}\n```") == (True, True)
    assert verdicts(f"```{RIGHT}```") == (True, True)
    wrong = '[["1","→"],["→","1"]]'
    assert verdicts(f"```python\n{wrong}\n```\n```python\n{RIGHT}\n```") == (True, True)  # the last block counts
    assert verdicts(f"```python\n{RIGHT}\n```\n```\n{wrong}\n```") == (True, True)  # a python block comes first
    assert verdicts(f"```python\nmaze = {wrong}\n```\n{RIGHT}") == (
        True,
        True,
    )  # a block that is no list is passed over
    assert verdicts(f"{wrong} or rather {RIGHT}") == (True, True)
    assert verdicts('[[1,"→"],["←","1"]]') == (False, False)  # numbers are texts
    assert verdicts(str([("1", "→"), ("←", "1")])) == (False, False)
    assert verdicts('[["1","→","→"],["←","1"]]') == (False, False)
    assert verdicts('[["1","X"],["←","1"]]') == (False, False)  # an X is left
    assert verdicts('[["1","->"],["←","1"]]') == (False, False)
    given = puzzle([["1", "→"], ["X", "1"]])
    assert verdicts(RIGHT, given) == (True, True)
    assert verdicts('[["1","←"],["↑","1"]]', given) == (False, False)  # a given arrow is changed
    row = puzzle([["2", "X", "X", "X"]])
    assert verdicts('[["2","→","→","→"]]', row) == (False, False)
    assert verdicts('[["2","→","→","←"]]', row) == (False, False)  # the last arrow is nobody's
    assert verdicts('[["2","→","→","0"]]', row) == (True, False)  # an added number; strict wants arrows
    assert verdicts("1d/a1") == (False, True)  # the short form of compact samples
    assert verdicts("1d/x1") == (False, False)


@pytest.mark.parametrize("level", LEVELS)
def test_mazes_and_oracles_obey_the_rules(level):
    for seed in range(6):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        maze = sample.meta["maze"]
        assert right(grid_of(sample), maze, True)
        assert all(cell == "X" or cell in STEP or cell in "123456789" for row in maze for cell in row)
        assert (len(maze), len(maze[0])) == (sample.meta["height"], sample.meta["width"])


def right(grid, maze, strict):
    """The rules, naively: walk every ray and mark what it covers."""
    n, m = len(maze), len(maze[0])
    if len(grid) != n or any(len(row) != m for row in grid):
        return False
    covered = set()
    for i in range(n):
        for j in range(m):
            cell, given = grid[i][j], maze[i][j]
            if not isinstance(cell, str) or not (cell in STEP or cell.isdigit()):
                return False
            if (given != "X" and cell != given) or (strict and given == "X" and cell not in STEP):
                return False
            if cell.isdigit():
                total = 0
                for arrow, (di, dj) in STEP.items():
                    a, b = i + di, j + dj
                    while 0 <= a < n and 0 <= b < m and grid[a][b] == arrow:
                        covered.add((a, b))
                        total += 1
                        a, b = a + di, b + dj
                if total != int(cell):
                    return False
    return all(grid[i][j] not in STEP or (i, j) in covered for i in range(n) for j in range(m))


def grid_of(sample):
    return json.loads(TASK.solve(sample).split("\n")[1])


def changed(kind, grid, maze, rng):
    """(the grid that the answer states or None where the official form is left, the answer)."""
    n, m = len(grid), len(grid[0])
    grid = [list(row) for row in grid]
    (a, b), (c, d) = ((rng.randrange(n), rng.randrange(m)) for _ in range(2))
    match kind:
        case "arrow changed":
            grid[a][b] = rng.choice(list(STEP)) if grid[a][b] in STEP else grid[a][b]
        case "cell changed":
            grid[a][b] = rng.choice([*STEP, "1", "2", "0"])
        case "cells swapped":
            grid[a][b], grid[c][d] = grid[c][d], grid[a][b]
        case "number off by one":
            grid[a] = [str(int(cell) + 1) if cell.isdigit() else cell for cell in grid[a]]
        case "left open":
            grid[a][b] = "X"
        case "unfilled":
            grid = [list(row) for row in maze]
        case "zeros":
            grid = [
                ["0" if old == "X" else new for new, old in zip(*rows, strict=True)]
                for rows in zip(grid, maze, strict=True)
            ]
        case "row dropped":
            del grid[a]
        case "row repeated":
            grid.insert(a, list(grid[a]))
        case "rows swapped":
            grid[a], grid[c] = grid[c], grid[a]
        case "cell dropped":
            del grid[a][b]
        case "cell added":
            grid[a].append("→")
        case "transposed":
            grid = [list(column) for column in zip(*grid, strict=True)]
        case "mirrored":
            grid = [row[::-1] for row in grid]
        case "upside down":
            grid = grid[::-1]
        case "whole numbers":
            grid = [[int(cell) if cell.isdigit() else cell for cell in row] for row in grid]
    text = json.dumps(grid, ensure_ascii=False)
    match kind:
        case "escaped":
            return grid, json.dumps(grid)
        case "single quotes":
            return grid, f"```python\n{grid}\n```"
        case "indented":
            return grid, "```\n" + json.dumps(grid, ensure_ascii=False, indent=2) + "\n```"
        case "prose":
            return grid, f"So [1]: {text}. Done."
        case "later fence":
            return grid, f"```python\n{text}\n```\n```\n[1]\n```"
        case "assigned in a block":
            return grid, f"```python\nmaze = {text}\n```"  # the block is no list, but the bare list in it is found
        case "tuples":
            return None, text.replace("[", "(").replace("]", ")")
        case "unquoted":
            return None, text.replace('"', "")
        case "ascii arrows":
            return None, text.replace("→", "->").replace("↓", "v").replace("←", "<-").replace("↑", "^").translate(
                OBLIQUE
            )
        case "plain rows":
            return None, "\n".join(" ".join(row) for row in grid)
        case "unclosed":
            return None, text[:-1]
        case "full-width commas":
            return None, text.replace(",", "\N{FULLWIDTH COMMA}")
        case "empty":
            return None, ""
    return grid, text


OBLIQUE = {ord(arrow): "/" for arrow in "↖↗↘↙"}
VALUES = [
    "same",
    "arrow changed",
    "cell changed",
    "cells swapped",
    "number off by one",
    "left open",
    "unfilled",
    "zeros",
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
    "whole numbers",
    "escaped",
    "single quotes",
    "indented",
    "prose",
    "later fence",
    "assigned in a block",
    "tuples",
]
KINDS = [*VALUES, *ROWS, *TEXTS, "unquoted", "ascii arrows", "plain rows", "unclosed", "full-width commas", "empty"]
SAMPLES = [TASK.generate(seed, TASK.levels[level], "english") for level in LEVELS for seed in range(3)]
GRIDS = [grid_of(sample) for sample in SAMPLES]


@given(st.integers(0, len(SAMPLES) - 1), st.sampled_from(KINDS), st.integers(0, 2**32))
@settings(max_examples=examples(300), deadline=None)
def test_a_changed_answer_is_judged_as_the_rules_say(at, kind, seed):
    maze = SAMPLES[at].meta["maze"]
    grid, answer = changed(kind, GRIDS[at], maze, random.Random(seed))
    truth = tuple(grid is not None and right(grid, maze, strict) for strict in (False, True))
    assert verdicts(answer, SAMPLES[at]) == truth, (kind, answer)
