"""Futoshiki: a Latin square with signs between neighbours (SynLogic, arXiv:2505.19641, task `futoshiki`).

Compact form: `futo 1XX/XXX/XXX 11<12 22>32` (rows with X for a hidden cell, then signs between row-column pairs counted from 1)
with the short answer `123/231/312`; the official answer is `[[1 2 3,2 3 1,3 1 2]]`. Official: the last `[[...]]` without a `]`
inside, all digits of each comma-separated part, and the clues are read back from the lines with an X after "Current puzzle:" in
the question, so that rows without an X are lost and the clues below them are compared with the wrong row or not at all. Strict
reads every clue, wants digits and spaces only, and accepts the short form as well (its one widening). The official generator
draws the signs at random, which leaves most puzzles without a solution; ours takes them from the solution and leaves an X in
every row. Every square that fits is right; `unique` asks for a single one.
"""

import dataclasses
import functools
import itertools
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, latin, parse
from framework.sample import Sample

__all__ = ["Futoshiki", "FutoshikiParams"]

_MARK = "Current puzzle:"
_ROW = re.compile(r"[0-9]{1,3}(?: +[0-9]{1,3})*")
_FORMAT = (
    "Write the finished square in double brackets, a space between numbers and a comma between rows; for the rows A B and C D that "
    "is [[A B,C D]]."
)
# The official verifier reads the clues from the lines with an X after the mark; no line below the grid may have one.
_ENGLISH = (
    "Futoshiki, {0} x {0}. Put a number from 1 to {0} into every X so that each row and each column has all numbers from 1 to {0} "
    "once, and all inequalities hold.\n"
    + _MARK
    + "\n{1}\n\nInequalities between cells (row,column), counted from 1:\n{2}\n\n"
    + _FORMAT,
    "Complete a Latin square of order {0}: every row and every column is a permutation of 1 to {0}, the given numbers stay, and X "
    "stands for a number to find.\n"
    + _MARK
    + "\n{1}\n\nThese cells, named as (row,column) from (1,1) at the top left, must compare as "
    "follows:\n{2}\n\n" + _FORMAT,
    "In this {0} by {0} puzzle the numbers 1 to {0} occur once in each row and once in each column. Find the numbers at the X.\n"
    + _MARK
    + "\n{1}\n\nBesides, these comparisons of neighbouring cells, written (row,column) with counts from 1, are true:\n{2}\n\n"
    + _FORMAT,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FutoshikiParams(base.Params):
    settings: tuple[tuple[int, int, int], ...]  # one is drawn: size, signs, clues
    unique: bool = False  # only puzzles with one solution


# The official sweep is (4, 2, 2), (4, 4, 3), (5, 7, 4), (5, 10, 5): its first setting is the easiest here, too.
LEVELS: Mapping[str, FutoshikiParams] = {
    "tiny": FutoshikiParams(settings=((3, 3, 2), (3, 4, 1))),
    "easy": FutoshikiParams(settings=((4, 2, 2), (4, 4, 2), (4, 4, 3))),
    "normal": FutoshikiParams(settings=((4, 4, 3), (5, 7, 4), (5, 10, 5))),
    "hard": FutoshikiParams(settings=((6, 22, 6), (6, 26, 5)), unique=True),
}


@dataclasses.dataclass(frozen=True)
class Futoshiki:
    name: str = "futoshiki"
    measure: str = "placements of the oracle (numbers tried until all solutions are known, or two)"
    json_answer: bool = True
    levels: Mapping[str, FutoshikiParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: FutoshikiParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, signs, clues = rng.choice(params.settings)
            square = latin.random_square(rng, n)
            pairs = [((i, j), (i, j + 1)) for i in range(n) for j in range(n - 1)]
            pairs += [((i, j), (i + 1, j)) for i in range(n - 1) for j in range(n)]
            constraints = [
                [list(a), list(b), "<" if square[a[0]][a[1]] < square[b[0]][b[1]] else ">"]
                for a, b in rng.sample(pairs, min(signs, len(pairs)))
            ]
            given = rng.sample([(i, j) for i in range(n) for j in range(n)], clues)
            grid = [["X"] * n for _ in range(n)]
            for i, j in given:
                grid[i][j] = str(square[i][j])
            if not all("X" in row for row in grid):
                return None
            meta = {
                "grid_size": n,
                "num_inequality_signs": len(constraints),
                "num_prefilled_coords": clues,
                "prefilled_coords": [list(cell) for cell in given],
                "prefilled_values": [square[i][j] for i, j in given],
                "constraints": constraints,
            }
            if params.unique and len(_search(n, grid, constraints, 2).solutions) != 1:
                return None
            board = "\n".join(" ".join(row) for row in grid)
            listed = "\n".join(f"{_cell(a)} {sign} {_cell(b)}" for a, b, sign in constraints)
            short = " ".join(f"{a[0] + 1}{a[1] + 1}{sign}{b[0] + 1}{b[1] + 1}" for a, b, sign in constraints)
            return base.Draft(
                compact=f"futo {'/'.join(''.join(row) for row in grid)} {short}",
                english=tuple(text.format(n, board, listed) for text in _ENGLISH),
                answer=json.dumps(square),
                meta=meta,
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        square = _found(sample, 1).solutions[0]
        return latin.short(square) if sample.meta.get("form") == "compact" else latin.bracketed(square)

    def worked(self, sample: Sample) -> str:
        """The numbers in the order in which the search finds them, `12=3` for a 3 in row 1, column 2."""
        return latin.trail_text(sample.meta["grid_size"], _found(sample, 1).trail)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        wrong = itertools.islice(latin.damaged(rng, _found(sample, 1).solutions[0]), 200)
        form = latin.short if sample.meta.get("form") == "compact" else latin.bracketed
        return base.first_rejected(self, sample, map(form, wrong))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        n, constraints = sample.meta["grid_size"], sample.meta["constraints"]
        if mode == "official":
            square = _official_square(answer.strip(), n)
            clues = _official_clues(sample)
        else:
            square = latin.read_short(answer) or _strict_square(answer)
            clues = _clues(sample)
        if square is None or not latin.is_latin(square, n):
            return False
        if any(square[i][j] != value for (i, j), value in clues if -n <= i < n and -n <= j < n):
            return False
        order = {"<": lambda a, b: a < b, ">": lambda a, b: a > b}
        return all(order[sign](square[a[0]][a[1]], square[b[0]][b[1]]) for a, b, sign in constraints if sign in order)

    def difficulty(self, sample: Sample) -> float:
        return float(_found(sample, 2).placements)

    def show(self, sample: Sample, solved: bool = False) -> str:
        n = sample.meta["grid_size"]
        grid: Sequence[Sequence[object]] = _found(sample, 1).solutions[0] if solved else _grid(sample)
        signs = {(tuple(a), tuple(b)): sign for a, b, sign in sample.meta["constraints"]}
        lines = []
        for i in range(n):
            line = [f"{grid[i][j]}".replace("X", ".") + f" {signs.get(((i, j), (i, j + 1)), ' ')} " for j in range(n)]
            lines.append("".join(line).rstrip())
            below = [signs.get(((i, j), (i + 1, j)), " ").translate({60: "∧", 62: "∨"}) for j in range(n)]
            lines.append("   ".join(below).rstrip())
        return boards.block("\n".join(lines[:-1]))


def _cell(cell: Sequence[int]) -> str:
    return f"({cell[0] + 1},{cell[1] + 1})"


def _last_brackets(text: str) -> str | None:
    """The inside of the last `[[...]]` that has no `]` inside. A `]` ends every text before it, so one pass is enough."""
    pieces = text.split("]")
    for k in range(len(pieces) - 3, -1, -1):
        _, opened, inside = pieces[k].partition("[[")
        if opened and inside and not pieces[k + 1]:
            return inside
    return None


def _strict_square(text: str) -> latin.Square | None:
    inside = _last_brackets(text)
    rows = [row.strip() for row in inside.split(",")] if inside else []
    if not rows or any(_ROW.fullmatch(row) is None for row in rows):
        return None
    return tuple(tuple(map(int, row.split())) for row in rows)


def _official_square(text: str, n: int) -> latin.Square | None:
    """All digits of each part of the last brackets; where they make no square, what `int` reads from the whole text."""
    inside = _last_brackets(text)
    try:
        if inside is not None:
            rows = tuple(tuple(map(int, re.findall(r"\d+", row))) for row in inside.split(","))
            if all(len(row) == len(rows) for row in rows):
                return rows
        if text.startswith("[[") and text.endswith("]]"):
            rows = tuple(tuple(map(int, row.split())) for row in text[2:-2].split(","))
            return rows if len(rows) == n and all(len(row) == n for row in rows) else None
    except ValueError:  # no number, or one of thousands of digits
        return None
    return None


def _official_clues(sample: Sample) -> list[tuple[Sequence[int], int]]:
    """What the official verifier reads back from the question; compact questions, which it never sees, are read in full."""
    if sample.meta.get("form") == "compact":
        return _clues(sample)
    lines, inside = [], False
    for line in sample.question.split("\n"):
        if _MARK in line:
            inside = True
        elif inside and line.strip():
            inside = "X" in line or not lines
            lines += [line.split()] if "X" in line else []
    clues = []
    for i, j in sample.meta["prefilled_coords"]:
        word = lines[i][j] if i < len(lines) and j < len(lines[i]) else "X"
        if parse.whole_number(word) is not None:
            clues.append(((i, j), int(word)))
    return clues


def _clues(sample: Sample) -> list[tuple[Sequence[int], int]]:
    grid = _grid(sample)
    return [((i, j), int(word)) for i, row in enumerate(grid) for j, word in enumerate(row) if word != "X"]


def _grid(sample: Sample) -> list[list[str]]:
    """The rows of the question, in both of our forms and in published records (English or Chinese)."""
    n = sample.meta["grid_size"]
    if "prefilled_values" in sample.meta:
        grid = [["X"] * n for _ in range(n)]
        for (i, j), value in zip(sample.meta["prefilled_coords"], sample.meta["prefilled_values"], strict=True):
            grid[i][j] = str(value)
        return grid
    words = sample.question.split()
    if words and words[0] == "futo":
        return [list(row) for row in words[1].split("/")]
    lines = [line.split() for line in sample.question.split("\n")]
    for start in range(len(lines) - n + 1):
        block = lines[start : start + n]
        if all(len(row) == n and all(word == "X" or word.isdecimal() for word in row) for row in block):
            return block
    raise ValueError(f"futoshiki: the question shows no grid of {n} rows: {sample.question!r}")


@functools.lru_cache(maxsize=32)
def _increasing(n: int) -> tuple[tuple[int, int], ...]:
    return tuple((1 << a, 1 << b) for a, b in itertools.combinations(range(n), 2))


def _search(n: int, grid: Sequence[Sequence[str]], constraints: Sequence[Any], limit: int) -> latin.Found:
    masks = [(1 << n) - 1 if word == "X" else 1 << (int(word) - 1) for row in grid for word in row]
    tables = []
    for a, b, sign in constraints:
        low, high = (a, b) if sign == "<" else (b, a)
        tables.append(latin.Table((low[0] * n + low[1], high[0] * n + high[1]), _increasing(n)))
    return latin.search(n, masks, tables, limit=limit)


def _found(sample: Sample, limit: int) -> latin.Found:
    """At most `limit` solutions: they follow from the question alone."""
    found = _search(sample.meta["grid_size"], _grid(sample), sample.meta["constraints"], limit)
    if not found.solutions:
        raise ValueError(f"futoshiki: no square fits, question {sample.question!r}")
    return found
