"""Kukurasu: mark cells so that weighted row and column sums hold (SynLogic, arXiv:2505.19641, task `kukurasu`).

A 1 in column j (from 1) adds j to its row's sum, a 1 in row i adds i to its column's sum. Any grid that fits is right.
Compact form: `kuku 2,1|2,1` (row sums, then column sums) with the short answer `X1/1X`; the official answer is a JSON list of
rows of "X" and "1", and only that is in the official accept set. The strict verifier accepts the short form as well (its one
widening). The official generator also drops puzzles whose row sums and column sums have unequal totals, a condition without
a reason: `equal_totals` keeps it at the published level only.
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse
from framework.sample import Sample

__all__ = ["Kukurasu", "KukurasuParams"]

_ROW = r'\[\s*"[X1]"(?:\s*,\s*"[X1]")*\s*\]'
_GRID = re.compile(rf"\[\s*{_ROW}(?:\s*,\s*{_ROW})*\s*\]")
_CELL = re.compile("[X1]")
_NOT_JSON = re.compile(r"[^][X1,\" \t\r\n]")  # white space that JSON does not know: the published verifier gives up
_SHORT = re.compile(r"[X1]+(?:/[X1]+)*")
_MAX_SIDE = 12
_ENGLISH = (
    "Fill a grid of {0} rows and {1} columns with 1 and X. A 1 in column j counts j for its row, a 1 in row i counts i for its "
    'column. Row sums: {2}. Column sums: {3}.\nAnswer with a JSON list of rows such as [["X","1"],["1","X"]].',
    'Kukurasu, {0} x {1}: mark cells with "1" and leave the others "X". Each row sum adds the column numbers of its marked '
    "cells and must be {2}; each column sum adds the row numbers of its marked cells and must be {3} (counting from 1).\n"
    "Give the grid as a list of rows of double-quoted strings.",
    "Find which cells of a {0} by {1} board are 1 (the rest is X). The numbers of the columns in which a row has its 1s add up to "
    "{2} for the rows from top to bottom; the numbers of the rows in which a column has its 1s add up to {3} for the columns from "
    'left to right (both are counted from 1).\nWrite the board as one JSON list of rows of "X" and "1".',
)

Grid = tuple[str, ...]  # rows of X and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class KukurasuParams(base.Params):
    sizes: tuple[tuple[int, int], ...]  # one is drawn: (rows, columns)
    fill: tuple[float, ...]  # one is drawn: chance of each cell to be 1
    equal_totals: bool = False
    grids: int = 1  # drawn for one size and fill before others are drawn; many keep the shares of `sizes`


# The shares of the published run: 60, 120, 150 and 150 of each.
_SWEEP = ((3, 3),) * 2 + ((4, 4),) * 4 + ((5, 5),) * 5 + ((6, 6),) * 5

LEVELS: Mapping[str, KukurasuParams] = {
    "tiny": KukurasuParams(sizes=((3, 3), (3, 4)), fill=(0.5,)),
    "easy": KukurasuParams(sizes=((4, 4),), fill=(0.3, 0.5)),
    "normal": KukurasuParams(sizes=_SWEEP, fill=(0.2, 0.3), equal_totals=True, grids=20_000),
    "hard": KukurasuParams(sizes=((6, 6), (7, 7)), fill=(0.3, 0.5)),
}


@dataclasses.dataclass(frozen=True)
class Kukurasu:
    name: str = "kukurasu"
    levels: Mapping[str, KukurasuParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "cells of the grid"
    json_answer: bool = False

    def generate(self, seed: int, params: KukurasuParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, m = rng.choice(params.sizes)
            fill = rng.choice(params.fill)
            for _ in range(params.grids):
                grid = tuple("".join("1" if rng.random() < fill else "X" for _ in range(m)) for _ in range(n))
                rows, columns = _sums(grid)
                if min(*rows, *columns) > 0 and (not params.equal_totals or sum(rows) == sum(columns)):
                    break
            else:
                return None
            row_text, column_text = ",".join(map(str, rows)), ",".join(map(str, columns))
            return base.Draft(
                compact=f"kuku {row_text}|{column_text}",
                english=tuple(text.format(n, m, row_text, column_text) for text in _ENGLISH),
                answer="",
                meta={"row_sums": rows, "col_sums": columns, "n": n, "m": m},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """Each row's sum with the columns that make it: `6:24` means 6 = 2 + 4."""
        rows = zip(sample.meta["row_sums"], _solution(sample), strict=True)
        return " ".join(
            f"{total}:{'+'.join(_marked(row)) if len(row) > 9 else ''.join(_marked(row))}" for total, row in rows
        )

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        grid = _solution(sample)
        n, m = len(grid), len(grid[0])
        cells = [(i, j) for i in range(n) for j in range(m)]
        rng.shuffle(cells)
        return base.first_rejected(self, sample, (_in_form(sample, _flipped(grid, i, j)) for i, j in cells))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """The first JSON list of rows of "X" and "1" has the sums; no uniqueness is asked for."""
        if parse.too_long(answer):
            return False
        match = _GRID.search(answer)
        if match is not None:
            if _NOT_JSON.search(match[0]):
                return False
            grid = tuple("".join(_CELL.findall(row)) for row in re.findall(_ROW, match[0]))
        elif mode == "strict" and _SHORT.fullmatch(answer.strip()):
            grid = tuple(answer.strip().split("/"))
        else:
            return False
        n, m = len(sample.meta["row_sums"]), len(sample.meta["col_sums"])
        if len(grid) != n or any(len(row) != m for row in grid):
            return False
        return _sums(grid) == (list(sample.meta["row_sums"]), list(sample.meta["col_sums"]))

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["row_sums"]) * len(sample.meta["col_sums"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        """The board: weights above and on the left, sums on the right and below."""
        rows, columns = sample.meta["row_sums"], sample.meta["col_sums"]
        grid = _solution(sample) if solved else (" " * len(columns),) * len(rows)
        weights = range(1, len(columns) + 1), range(1, len(rows) + 1)
        return boards.block(boards.draw(grid, top=weights[0], left=weights[1], right=rows, bottom=columns))


def _sums(grid: Grid) -> tuple[list[int], list[int]]:
    rows = [sum(j for j, cell in enumerate(row, start=1) if cell == "1") for row in grid]
    columns = [sum(i for i, cell in enumerate(column, start=1) if cell == "1") for column in zip(*grid, strict=True)]
    return rows, columns


def _marked(row: str) -> list[str]:
    return [str(j) for j, cell in enumerate(row, start=1) if cell == "1"]


def _flipped(grid: Grid, i: int, j: int) -> Grid:
    row = grid[i]
    return (*grid[:i], row[:j] + ("X" if row[j] == "1" else "1") + row[j + 1 :], *grid[i + 1 :])


def _solution(sample: Sample) -> Grid:
    """The first grid that fits, rows tried in a fixed order: it follows from the question alone."""
    rows, columns = sample.meta["row_sums"], sample.meta["col_sums"]
    if max(len(rows), len(columns)) > _MAX_SIDE:
        raise ValueError(
            f"kukurasu: a {len(rows)}x{len(columns)} grid is larger than the oracle searches ({_MAX_SIDE})"
        )
    grid = _search(rows, list(columns), 0)
    if grid is None:
        raise ValueError(f"kukurasu: no grid has row sums {rows} and column sums {columns}")
    return grid


def _search(rows: Sequence[int], left: list[int], i: int) -> Grid | None:
    if i == len(rows):
        return () if not any(left) else None
    below = sum(range(i + 2, len(rows) + 1))  # what the rows below can still add to a column
    for row in _rows_with_sum(rows[i], len(left)):
        after = [rest - (i + 1) * (cell == "1") for rest, cell in zip(left, row, strict=True)]
        if all(0 <= rest <= below for rest in after):
            tail = _search(rows, after, i + 1)
            if tail is not None:
                return row, *tail
    return None


def _rows_with_sum(total: int, width: int) -> Iterator[str]:
    if width == 0:
        if total == 0:
            yield ""
        return
    if not 0 <= total <= width * (width + 1) // 2:
        return
    for head in _rows_with_sum(total - width, width - 1):
        yield head + "1"
    for head in _rows_with_sum(total, width - 1):
        yield head + "X"


def _in_form(sample: Sample, grid: Grid) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join(grid)
    return json.dumps([list(row) for row in grid], separators=(",", ":"))
