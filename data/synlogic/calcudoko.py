"""Calcudoko (KenKen-like): a Latin square whose cages give results (SynLogic, arXiv:2505.19641, task `calcudoko`).

The cells of a cage hold different numbers that give its target with its operator: a difference or a quotient of two cells, in
either order, or a sum or a product. Compact form: `calc AAB/CCB/DDD A1- B6* ..` (the cages drawn as letters, then the results,
with `/` for a quotient) with the short answer `123/231/312`; the official answer is `[[1 2 3,2 3 1,3 1 2]]`. Official: the first
`[[...]]` on one line, else the last ```python block, else the text; all but digits, commas and white space is dropped, short
rows are padded with 1, long ones cut, missing rows are all 1, surplus ones cut. Strict wants exactly the rows in brackets, and
accepts the short form as well (its one widening). The official generator rounds quotients and leaves odd cells where they are,
so that most of its puzzles have no solution; ours uses exact quotients and connected cages, with a single solution where `unique`.
"""

import dataclasses
import functools
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, latin, parse
from framework.sample import Sample

__all__ = ["Calcudoko", "CalcudokoParams"]

_CELL = re.compile(r"\(([0-9]{1,3})\s*,\s*([0-9]{1,3})\)")
_ROW = re.compile(r"[0-9]{1,3}(?: +[0-9]{1,3})*")
# Where a row is short, the official verifier takes rows written as "Row 1: 1 2 3", if it finds as many as the grid has.
_NAMED_ROWS = tuple(
    re.compile(pattern + r"\s*([\d\s]+)")
    for pattern in (
        r"第\s*\d+\s*行\s*[:：]",
        r"行\s*\d+\s*[:：]",
        r"Row\s*\d+\s*[:：]",
        r"- 第\d+行[:：]?",
        r"- 行\d+[:：]?",
        r"- Row\d+[:：]?",
    )
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_MAX_CAGE = 4
_MAX_SIDE = 8
_FORMAT = (
    "Give the rows from top to bottom in double brackets on one line, a space between numbers and a comma between rows; for the "
    "rows A B and C D that is [[A B,C D]]."
)
_ENGLISH = (
    "Calcudoko of size {0} x {0}: write a number from 1 to {0} into every cell so that none repeats in a row, a column or a cage. "
    "A cage is given by its cells (row,column), counted from 1, and by its result: + is the sum, * the product, - the difference "
    "and ÷ the quotient of its numbers, the larger one first.\n{1}\n" + _FORMAT,
    "Fill a {0} by {0} square with the numbers 1 to {0}, each once per row and once per column. The cells are grouped; the numbers "
    "of a group differ from one another and reach the group's target with its operator (for - and ÷ take the larger number "
    "first). Cells are (row,column) from (1,1) at the top left. The groups:\n{1}\n" + _FORMAT,
    "Every row and every column of a square of side {0} holds 1 to {0}. In addition, the listed cells (row,column), with counts "
    "from 1, contain different numbers with the stated sum (+), product (*), difference (-) or quotient (÷), where the smaller "
    "number is subtracted from or divides the larger one:\n{1}\n" + _FORMAT,
)

Region = Mapping[str, Any]  # "cells": ["(r,c)", ...] from 1, "target", "operator"
_MAX_SIZE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalcudokoParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn
    cage_sizes: tuple[int, ...] = (
        2,
        2,
        3,
        3,
        4,
    )  # one is drawn per cage; small ones make a single solution more likely
    unique: bool = True  # only puzzles with one solution


LEVELS: Mapping[str, CalcudokoParams] = {
    "tiny": CalcudokoParams(sizes=(3,), cage_sizes=(2,)),
    "easy": CalcudokoParams(sizes=(4,), cage_sizes=(2, 2, 3)),
    "normal": CalcudokoParams(sizes=(4, 5, 6), cage_sizes=(2, 3, 4), unique=False),
    "hard": CalcudokoParams(sizes=(6,), cage_sizes=(2, 2, 3)),
}


@dataclasses.dataclass(frozen=True)
class Calcudoko:
    name: str = "calcudoko"
    measure: str = "placements of the oracle (numbers tried until the first solution)"
    json_answer: bool = False
    levels: Mapping[str, CalcudokoParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: CalcudokoParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n = rng.choice(params.sizes)
            square = latin.random_square(rng, n)
            cages = _random_cages(rng, square, params.cage_sizes)
            if cages is None:
                return None
            regions = [_region(rng, square, cage) for cage in cages]
            if params.unique and len(_search(n, regions, 2).solutions) != 1:
                return None
            letters = {cell: _LETTERS[k] for k, cage in enumerate(cages) for cell in cage}
            rows = "/".join("".join(letters[i, j] for j in range(n)) for i in range(n))
            short = " ".join(
                f"{_LETTERS[k]}{region['target']}{region['operator'].replace('÷', '/')}"
                for k, region in enumerate(regions)
            )
            listed = "\n".join(
                f"{''.join(region['cells'])}: {region['target']}{region['operator']}" for region in regions
            )
            return base.Draft(
                compact=f"calc {rows} {short}",
                english=tuple(text.format(n, listed) for text in _ENGLISH),
                answer=latin.bracketed(square),
                meta={"grid_size": n, "regions": regions},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        square = _found(sample).solutions[0]
        return latin.short(square) if sample.meta.get("form") == "compact" else latin.bracketed(square)

    def worked(self, sample: Sample) -> str:
        """The numbers in the order in which the search finds them, `12=3` for a 3 in row 1, column 2."""
        return latin.trail_text(sample.meta["grid_size"], _found(sample).trail)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        wrong = itertools.islice(latin.damaged(rng, _found(sample).solutions[0]), 200)
        form = latin.short if sample.meta.get("form") == "compact" else latin.bracketed
        return base.first_rejected(self, sample, map(form, wrong))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        n = sample.meta.get("grid_size", 4)
        if n > _MAX_SIZE:  # broken metadata: rows would be filled up to this size
            return False
        square = (
            _official_square(answer, n) if mode == "official" else latin.read_short(answer) or _strict_square(answer)
        )
        if square is None or not latin.is_latin(square, n):
            return False
        return all(_holds(square, region) for region in sample.meta.get("regions", []))

    def difficulty(self, sample: Sample) -> float:
        return float(_found(sample).placements)

    def show(self, sample: Sample, solved: bool = False) -> str:
        n, regions = sample.meta["grid_size"], sample.meta["regions"]
        owner = {cell: k for k, region in enumerate(regions) for cell in _cells(region) or ()}
        first = {min(_cells(region) or [(0, 0)]): f"{region['target']}{region['operator']}" for region in regions}
        square = _found(sample).solutions[0] if solved else [[""] * n] * n
        cells = [[f"{first.get((i, j), '')} {square[i][j]}".strip() for j in range(n)] for i in range(n)]
        return boards.block(boards.draw(cells, regions=[[owner.get((i, j)) for j in range(n)] for i in range(n)]))


def _cells(region: Region) -> list[tuple[int, int]] | None:
    """The cells from 0; None where one is not written as "(row,column)"."""
    found = [_CELL.search(cell) if isinstance(cell, str) else None for cell in region["cells"]]
    return None if None in found else [(int(cell[1]) - 1, int(cell[2]) - 1) for cell in found if cell]


def _holds(square: latin.Square, region: Region) -> bool:
    cells, n, target = _cells(region), len(square), region["target"]
    if cells is None or any(not (0 <= i < n and 0 <= j < n) for i, j in cells):
        return False
    return _reaches([square[i][j] for i, j in cells], region["operator"], target)


def _reaches(numbers: Sequence[int], operator: str, target: float) -> bool:
    if len(set(numbers)) != len(numbers):
        return False
    if operator == "+":
        return sum(numbers) == target
    if operator == "*":
        return math.prod(numbers) == target
    if len(numbers) != 2:
        return False
    a, b = numbers
    if operator == "-":
        return target in (a - b, b - a)
    return abs(a / b - target) < 0.001 or abs(b / a - target) < 0.001  # any other operator divides


def _brackets(text: str) -> str | None:
    """The inside of the first `[[...]]` that is on one line; the first `[[` of a line is the one that counts."""
    for line in text.split("\n"):
        _, opened, rest = line.partition("[[")
        inside, closed, _ = rest.partition("]]")
        if opened and closed:
            return inside
    return None


def _strict_square(text: str) -> latin.Square | None:
    rows = [row.strip(" ") for row in (_brackets(text) or "").split(",")]
    if any(_ROW.fullmatch(row) is None for row in rows):
        return None
    return tuple(tuple(map(int, row.split())) for row in rows)


def _official_square(text: str, n: int) -> latin.Square:
    """What the official verifier makes of any text. Where a part is no number, it falls back to rows that all say 1..n."""
    inside = _brackets(text)
    if inside is None:
        inside = parse.last_python_block(text)
    if inside is None:
        inside = latin.last_tuple(text) or text
    kept = "".join(char for char in inside if char.isdigit() or char in "[]," or char.isspace()).strip("[]")
    rows: list[list[int]] = []
    named: list[str] | None = None
    try:
        for part in kept.split(","):
            row = [int(word) for word in part.split()]
            if len(row) < n:
                if named is None:
                    named = [found for pattern in _NAMED_ROWS for found in pattern.findall(text)]
                if len(named) == n:
                    rows = [[int(word) for word in found.split()] for found in named]
                    break
            rows.append(row)
    except ValueError:
        return (tuple(range(1, n + 1)),) * n
    padded = [tuple((row + [1] * n)[:n]) for row in rows[:n]]
    return tuple(padded + [(1,) * n] * (n - len(padded)))


def _random_cages(rng: random.Random, square: latin.Square, sizes: Sequence[int]) -> list[list[tuple[int, int]]] | None:
    """Connected cages of 2 to 4 cells with different numbers, or None where a lone cell fits into no neighbouring cage."""
    n = len(square)
    cells = [(i, j) for i in range(n) for j in range(n)]
    rng.shuffle(cells)
    owner: dict[tuple[int, int], int] = {}
    cages: list[list[tuple[int, int]]] = []
    for start in cells:
        if start in owner:
            continue
        cage, size = [start], rng.choice(sizes)
        while len(cage) < size:
            used = {square[i][j] for i, j in cage}
            around = [(i + di, j + dj) for i, j in cage for di, dj in _STEPS if 0 <= i + di < n and 0 <= j + dj < n]
            free = [
                (i, j) for i, j in around if (i, j) not in owner and (i, j) not in cage and square[i][j] not in used
            ]
            if not free:
                break
            cage.append(rng.choice(free))
        if len(cage) == 1:
            (i, j), value = start, square[start[0]][start[1]]
            near = [cages[owner[i + di, j + dj]] for di, dj in _STEPS if (i + di, j + dj) in owner]
            near = [c for c in near if len(c) < _MAX_CAGE and all(square[a][b] != value for a, b in c)]
            if not near:
                return None
            cage = rng.choice(near)
            cage.append(start)
            owner[start] = cages.index(cage)
        else:
            owner.update(dict.fromkeys(cage, len(cages)))
            cages.append(cage)
    return cages


def _region(rng: random.Random, square: latin.Square, cage: Sequence[tuple[int, int]]) -> dict[str, Any]:
    numbers = [square[i][j] for i, j in cage]
    low, high = min(numbers), max(numbers)
    two = "-÷" if high % low == 0 else "-"
    operator = rng.choice(two if len(numbers) == 2 else "+*")
    target = {"-": high - low, "÷": high // low, "+": sum(numbers), "*": math.prod(numbers)}[operator]
    return {"cells": [f"({i + 1},{j + 1})" for i, j in cage], "target": target, "operator": operator}


@functools.lru_cache(maxsize=4096)
def _fillings(n: int, count: int, operator: str, target: int) -> tuple[tuple[int, ...], ...]:
    """The ways to fill a cage of `count` cells, as bits."""
    orders = itertools.permutations(range(1, n + 1), count)
    return tuple(tuple(1 << (v - 1) for v in order) for order in orders if _reaches(order, operator, target))


def _search(n: int, regions: Sequence[Region], limit: int) -> latin.Found:
    if n > _MAX_SIDE:
        raise ValueError(f"calcudoko: grid_size={n} is larger than the oracle searches ({_MAX_SIDE})")
    tables = []
    for region in regions:
        cells = _cells(region) or []
        fillings = _fillings(n, len(cells), region["operator"], region["target"])
        tables.append(latin.Table(tuple(i * n + j for i, j in cells), fillings))
    return latin.search(n, [(1 << n) - 1] * (n * n), tables, limit=limit)


def _found(sample: Sample) -> latin.Found:
    """The first solution: it follows from the question alone."""
    found = _search(sample.meta["grid_size"], sample.meta["regions"], 1)
    if not found.solutions:
        raise ValueError(f"calcudoko: no square fits the cages {sample.meta['regions']}")
    return found
