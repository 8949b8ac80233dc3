"""Skyscrapers: a Latin square of heights from what is seen at its edges (SynLogic, arXiv:2505.19641, task `skyscraper_puzzle`).

A number at an edge counts the towers seen from there: a taller tower hides the lower ones behind it. Compact form: `sky 321 122
321 122` (seen from the top, bottom, left and right; top and bottom from left to right, left and right from the top) with the
short answer `123/231/312`. Official: the first ```python block that begins with a line break and ends with one, a Python list of
lists; True counts as 1. Strict wants whole numbers, and accepts the short form as well (its one widening). Every square that
fits is right; the official generator asks for no unique one, `unique` does. There are just 12 squares of order 3 and 576 of order
4, so the levels go beyond the official sizes 3 and 4.
"""

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, latin, parse
from framework.sample import Sample

__all__ = ["SkyscraperPuzzle", "SkyscraperPuzzleParams"]

_COMMENT = re.compile(r"#.*$", re.MULTILINE)
_OPEN = re.compile(r"```python(\s*)")
_SIDES = ("top", "bottom", "left", "right")
_MAX_SIDE = 8
_FORMAT = (
    "End your answer with a code block that starts with ```python on a line of its own and holds only the grid, a list of rows "
    "such as [[1, 2], [2, 1]], on the lines after it."
)
_ENGLISH = (
    "Skyscrapers on a {0} x {0} grid. Each cell holds a tower of height 1 to {0}; no height occurs twice in a row or column. The "
    "numbers outside of the grid say how many towers are seen from there along that row or column, where a tower hides all lower "
    "ones behind it. X marks the towers to find:\n{1}\n" + _FORMAT,
    "Find the heights of the {0} by {0} buildings marked X. Every row and every column contains 1 to {0} once each. A number at "
    "an edge is the count of buildings that are visible when you look into the grid from that spot; higher buildings hide lower "
    "ones.\n{1}\n" + _FORMAT,
    "Looking at a city of {0} streets and {0} avenues: in each of them stand towers of all heights from 1 to {0}. From the edge "
    "one sees a tower only if every tower before it is lower. The numbers of towers seen are written around the map:\n{1}\nGive "
    "all heights.\n" + _FORMAT,
)

Bits = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkyscraperPuzzleParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn
    unique: bool = False  # only puzzles with one solution


LEVELS: Mapping[str, SkyscraperPuzzleParams] = {
    "tiny": SkyscraperPuzzleParams(sizes=(3, 4, 4)),
    "easy": SkyscraperPuzzleParams(sizes=(4, 4, 5)),
    "normal": SkyscraperPuzzleParams(sizes=(5,), unique=True),
    "hard": SkyscraperPuzzleParams(sizes=(6,), unique=True),
}


@dataclasses.dataclass(frozen=True)
class SkyscraperPuzzle:
    name: str = "skyscraper_puzzle"
    measure: str = "arrangements that the clues leave in all rows and columns"
    json_answer: bool = False
    levels: Mapping[str, SkyscraperPuzzleParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )

    def generate(self, seed: int, params: SkyscraperPuzzleParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n = rng.choice(params.sizes)
            meta = {"n": n, **_clues(latin.random_square(rng, n))}
            if params.unique and len(_search(meta, 2).solutions) != 1:
                return None
            sides = ["".join(map(str, meta[side])) for side in _SIDES]
            board = _board(meta)
            return base.Draft(
                compact=f"sky {' '.join(sides)}",
                english=tuple(text.format(n, board) for text in _ENGLISH),
                answer="",
                meta=meta,
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The towers in the order in which the search finds them, `12=3` for a 3 in row 1, column 2."""
        return latin.trail_text(sample.meta["n"], _found(sample).trail)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        wrong = itertools.islice(latin.damaged(rng, _solution(sample)), 100)
        return base.first_rejected(self, sample, (_in_form(sample, square) for square in wrong))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        meta = sample.meta
        grid: Any = latin.read_short(answer) if mode == "strict" else None
        if grid is None:
            grid = _first_block(answer, meta["n"])
            if grid is None or not all(isinstance(value, int) for row in grid for value in row):
                return False
            if mode == "strict" and any(isinstance(value, bool) for row in grid for value in row):
                return False
        if not latin.is_latin(grid, meta["n"]):
            return False
        seen = _clues(grid)
        return all(seen[side] == list(meta[side]) for side in _SIDES)

    def difficulty(self, sample: Sample) -> float:
        return float(sum(len(table.rows) for table in _tables(sample.meta)))

    def show(self, sample: Sample, solved: bool = False) -> str:
        n = sample.meta["n"]
        cells: Sequence[Sequence[object]] = _solution(sample) if solved else [[""] * n] * n
        top, bottom, left, right = (sample.meta[side] for side in _SIDES)
        return boards.block(boards.draw(cells, top=top, bottom=bottom, left=left, right=right))


def _first_block(text: str, n: int) -> list[list[Any]] | None:
    """The n x n list in the first block whose body is on lines of its own, comments left out on a second try."""
    opening = next((found for found in _OPEN.finditer(text) if "\n" in found[1]), None)
    if opening is None:
        return None
    start = opening.start(1) + opening[1].rindex("\n") + 1
    pieces = text[start:].split("```")
    # The block ends at the first fence that only white space with a line break stands before.
    ends = (k for k, piece in enumerate(pieces[:-1]) if "\n" in piece[len(piece.rstrip()) :])
    end = next(ends, None)
    if end is None:
        return None
    body = "```".join(pieces[: end + 1]).strip()
    for code in (body, _COMMENT.sub("", body).strip()):
        try:
            grid = latin.literal_grid(code)
        except parse.LiteralError:
            continue
        if isinstance(grid, list) and len(grid) == n and all(isinstance(row, list) and len(row) == n for row in grid):
            return grid
        return None
    return None


def _visible(heights: Sequence[int]) -> int:
    count = highest = 0
    for height in heights:
        if height > highest:
            count, highest = count + 1, height
    return count


def _clues(grid: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    columns = list(zip(*grid, strict=True))
    return {
        "top": [_visible(column) for column in columns],
        "bottom": [_visible(column[::-1]) for column in columns],
        "left": [_visible(row) for row in grid],
        "right": [_visible(row[::-1]) for row in grid],
    }


@functools.lru_cache(maxsize=256)
def _lines(n: int, ahead: int, behind: int) -> tuple[Bits, ...]:
    """The orders of 1..n, as bits, in which so many towers are seen from either end."""
    orders = itertools.permutations(range(1, n + 1))
    return tuple(
        tuple(1 << (height - 1) for height in order)
        for order in orders
        if (_visible(order), _visible(order[::-1])) == (ahead, behind)
    )


def _tables(meta: Mapping[str, Any]) -> list[latin.Table]:
    n = meta["n"]
    if n > _MAX_SIDE:
        raise ValueError(f"skyscraper_puzzle: n={n} is larger than the oracle searches ({_MAX_SIDE})")
    rows = [(range(i * n, i * n + n), meta["left"][i], meta["right"][i]) for i in range(n)]
    columns = [(range(j, n * n, n), meta["top"][j], meta["bottom"][j]) for j in range(n)]
    return [latin.Table(tuple(cells), _lines(n, ahead, behind)) for cells, ahead, behind in (*rows, *columns)]


def _search(meta: Mapping[str, Any], limit: int) -> latin.Found:
    n = meta["n"]
    return latin.search(n, [(1 << n) - 1] * (n * n), _tables(meta), limit=limit)


def _found(sample: Sample) -> latin.Found:
    """The first solution: it follows from the question alone."""
    found = _search(sample.meta, 1)
    if not found.solutions:
        raise ValueError(f"skyscraper_puzzle: no square has the clues {[sample.meta[side] for side in _SIDES]}")
    return found


def _solution(sample: Sample) -> latin.Square:
    return _found(sample).solutions[0]


def _board(meta: Mapping[str, Any]) -> str:
    n = meta["n"]
    top, bottom = ("  " + " ".join(map(str, meta[side])) for side in ("top", "bottom"))
    middle = [f"{meta['left'][i]} {' '.join('X' * n)} {meta['right'][i]}" for i in range(n)]
    return "\n".join([top, *middle, bottom])


def _in_form(sample: Sample, square: latin.Square) -> str:
    if sample.meta.get("form") == "compact":
        return latin.short(square)
    return "```python\n" + str([list(row) for row in square]) + "\n```"
