"""Skyscrapers (SynLogic, arXiv:2505.19641): verdicts, perturbations against a checker of its own, and the solution count."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic import latin
from data.synlogic.skyscraper_puzzle import SkyscraperPuzzle, SkyscraperPuzzleParams
from framework.sample import Sample

TASK = SkyscraperPuzzle()
CARD = {"n": 3, "top": [3, 2, 1], "bottom": [1, 2, 2], "left": [3, 2, 1], "right": [1, 2, 2]}
RIGHT = "[[1,2,3],[2,3,1],[3,1,2]]"
WRONG = "[[1,2,3],[3,1,2],[2,3,1]]"


def fence(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


CASES = [
    # answer, official, strict
    (fence(RIGHT), True, True),  # card
    (RIGHT, False, False),  # card: a fence is needed
    (fence(WRONG), False, False),
    (fence(RIGHT, ""), False, False),
    (fence(RIGHT, "json"), False, False),
    (f"```python {RIGHT}\n```", False, False),  # a line break after the tag
    (f"```python\n{RIGHT}```", False, False),  # and one before the closing fence
    (f"```python \n\n {RIGHT}\n\n ```", True, True),
    (f"Look: {fence(RIGHT)} done", True, True),
    (f"{fence(RIGHT)}\n{fence(WRONG)}", True, True),  # the first block counts
    (f"{fence(WRONG)}\n{fence(RIGHT)}", False, False),
    (f"```python\n{RIGHT}```\n{fence(RIGHT)}", False, False),  # the first one reaches to the second's end
    (fence(f"# the grid\n{RIGHT}  # done"), True, True),
    (fence(f"# the grid\n   {RIGHT}"), True, True),
    (fence(f"grid = {RIGHT}"), False, False),
    (fence("[(1,2,3),(2,3,1),(3,1,2)]"), False, False),
    (fence("((1,2,3),(2,3,1),(3,1,2))"), False, False),
    (fence("[[1.0,2,3],[2,3,1],[3,1,2]]"), False, False),
    (fence("[['1','2','3'],['2','3','1'],['3','1','2']]"), False, False),
    (fence("[[True,2,3],[2,3,True],[3,True,2]]"), True, False),  # True is an int to Python
    (fence("[[0x1,2,3],[2,3,1],\\\n[3,1,0b10]]"), True, True),
    (fence("[[1,2,3],[2,3,1]]"), False, False),
    (fence("[[1,2,3,4],[2,3,1,4],[3,1,2,4]]"), False, False),
    (fence("[[1,2,3],[2,3,1],[3,1,4]]"), False, False),
    ("```python\n```", False, False),
    ("123/231/312", False, True),  # the widening of strict
    ("123/312/231", False, False),
    ("123/231", False, False),
    ("", False, False),
]


@pytest.mark.slow
def test_every_rule_holds_for_this_task():
    check_all(TASK, seeds=4)


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdict(answer, official, strict):
    sample = Sample(task="skyscraper_puzzle", question="", meta=CARD)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


def seen_from_left(row) -> int:
    return sum(all(row[k] < row[j] for k in range(j)) for j in range(len(row)))


def right_square(meta: dict, grid: object) -> bool:
    """The rules once more: whole numbers 1..n, no height twice in a line, every count as seen."""
    n = meta["n"]
    if not isinstance(grid, list) or len(grid) != n or any(not isinstance(row, list) or len(row) != n for row in grid):
        return False
    if any(type(value) is not int or not 1 <= value <= n for row in grid for value in row):
        return False
    columns = [[grid[i][j] for i in range(n)] for j in range(n)]
    if any(a == b for line in grid + columns for a, b in itertools.combinations(line, 2)):
        return False
    return (
        [seen_from_left(row) for row in grid] == meta["left"]
        and [seen_from_left(row[::-1]) for row in grid] == meta["right"]
        and [seen_from_left(column) for column in columns] == meta["top"]
        and [seen_from_left(column[::-1]) for column in columns] == meta["bottom"]
    )


def grid_perturbations(right: list[list[int]], pick: int) -> dict[str, list]:
    """kind -> grid: what may go wrong in an answer that is a square of numbers."""
    n = len(right)
    a, b, c = pick % n, (pick // n) % n, (pick // n**2) % n
    other = (b + 1 + c % (n - 1)) % n

    def changed(*cells: tuple[int, int, object]) -> list:
        rows: list = [list(row) for row in right]
        for i, j, value in cells:
            rows[i][j] = value
        return rows

    def swapped(line: list, i: int, j: int) -> list:
        line = list(line)
        line[i], line[j] = line[j], line[i]
        return line

    return {
        "same": right,
        "one more": changed((a, b, right[a][b] + 1)),
        "one less": changed((a, b, right[a][b] - 1)),
        "negative": changed((a, b, -right[a][b])),
        "out of range": changed((a, b, n + 1)),
        "cells of a row swapped": changed((a, b, right[a][other]), (a, other, right[a][b])),
        "cells of a column swapped": changed((b, a, right[other][a]), (other, a, right[b][a])),
        "rows swapped": swapped(right, b, other),
        "columns swapped": [swapped(row, b, other) for row in right],
        "values swapped": [[{b + 1: other + 1, other + 1: b + 1}.get(v, v) for v in row] for row in right],
        "row doubled over another": [right[b] if i == other else row for i, row in enumerate(right)],
        "row dropped": right[:-1],
        "row added": [*right, right[0]],
        "column dropped": [row[:-1] for row in right],
        "column added": [[*row, row[0]] for row in right],
        "transposed": [list(column) for column in zip(*right, strict=True)],
        "mirrored": [row[::-1] for row in right],
        "upside down": right[::-1],
        "ragged": [right[0][:-1], *right[1:]],
        "all ones": [[1] * n] * n,
    }


@settings(max_examples=examples(30), deadline=None)
@given(st.sampled_from(["tiny", "easy", "normal"]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_perturbed_answers_are_judged_by_the_rules(level, seed, pick):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    meta = dict(sample.meta)
    right = json.loads(TASK.solve(sample).removeprefix("```python\n").removesuffix("\n```"))
    plain = json.dumps(right)
    grids = {kind: (fence(json.dumps(grid)), grid) for kind, grid in grid_perturbations(right, pick).items()}
    texts = {
        "texts": (fence(str([list(map(str, row)) for row in right])), None),
        "float": (fence(plain.replace("1", "1.0")), None),
        "null": (fence(plain.replace("1", "None")), None),
        "nested": (fence(f"[{plain}]"), None),
        "tuple": (fence(plain.replace("[", "(").replace("]", ")")), None),
        "quoted": (fence(f'"{plain}"'), None),
        "prose inside": (fence(f"{plain} done"), None),
        "prose around": (f"So it is\n{fence(plain)}\nI think.", right),
        "no fence": (plain, None),
        "upper-case tag": (fence(plain, "PYTHON"), None),
        "open fence": (f"```python\n{plain}\n", None),
        "full-width commas": (fence(plain.replace(",", "，")), None),
        "line breaks": (fence(plain.replace(",", ",\n")), right),
        "empty block": (fence(""), None),
        "empty": ("", None),
    }
    for kind, (text, grid) in {**grids, **texts}.items():
        truth = right_square(meta, grid)
        assert TASK.verify(sample, text, "strict") is truth, kind
        assert TASK.verify(sample, text, "official") is truth, kind
    square = latin.read_short(latin.short(tuple(map(tuple, right))))
    assert square == tuple(map(tuple, right))


ALL_SQUARES = {
    n: [
        [list(row) for row in rows]
        for rows in itertools.product(itertools.permutations(range(1, n + 1)), repeat=n)
        if all(len(set(column)) == n for column in zip(*rows, strict=True))
    ]
    for n in (3, 4)
}


@pytest.mark.parametrize("unique", [False, True])
def test_unique_is_what_a_count_over_all_squares_says(unique):
    assert [len(squares) for squares in ALL_SQUARES.values()] == [12, 576]
    counts = []
    for seed in range(20):
        sample = TASK.generate(seed, SkyscraperPuzzleParams(sizes=(3, 4), unique=unique))
        counts.append(sum(right_square(dict(sample.meta), grid) for grid in ALL_SQUARES[sample.meta["n"]]))
    assert min(counts) == 1
    assert (max(counts) == 1) is unique


@pytest.mark.parametrize("n", [3, 4])
def test_random_squares_reach_every_square(n):
    rng = random.Random(1)
    drawn = {latin.random_square(rng, n) for _ in range(6_000)}
    assert len(drawn) == len(ALL_SQUARES[n])
    assert all(latin.is_latin(square, n) for square in drawn)


def test_the_search_counts_like_a_plain_enumeration():
    rng = random.Random(2)
    for _ in range(60):
        masks = [rng.choice((15, 15, 7, 11, 13, 14, 3, 8)) for _ in range(16)]
        allowed = tuple((1 << a, 1 << b) for a in range(4) for b in range(4) if a < b)
        pairs = [(0, 1), (5, 9), (10, 11)]
        found = latin.search(4, masks, [latin.Table(pair, allowed) for pair in pairs], limit=1_000)
        plain = []
        for grid in ALL_SQUARES[4]:
            flat = [value for row in grid for value in row]
            if all(mask >> (v - 1) & 1 for mask, v in zip(masks, flat, strict=True)):
                plain += [grid] if all(flat[a] < flat[b] for a, b in pairs) else []
        assert sorted(found.solutions) == sorted(tuple(map(tuple, grid)) for grid in plain)


def test_clues_without_a_square_are_an_error_of_the_oracle():
    sample = Sample(task="skyscraper_puzzle", question="", meta={**CARD, "top": [3, 3, 3]})
    with pytest.raises(ValueError, match="no square"):
        TASK.solve(sample)
    with pytest.raises(ValueError, match="larger than"):
        TASK.solve(Sample(task="skyscraper_puzzle", question="", meta={**CARD, "n": 9}))
