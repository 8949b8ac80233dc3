"""Campsite (tents and trees): put one tent beside every tree (SynLogic, arXiv:2505.19641, task `campsite`).

Tents and trees pair one to one, each tent orthogonally beside its tree; no two tents touch, not even diagonally; the counts of
tents per row and column are given. Compact form: `camp TXX/XXX|1,0|0,1,0` (grid, row counts, column counts) with the short
answer `TCX/XXX`; the official answer is a Python list of rows. Official: the first `[[...]]` of the text is the grid, any
symbol may stand in a cell without tree and tent, and a tent may touch several trees as long as a pairing exists (its prompt
says "exactly one", its verifier does not). Strict wants rows that are lists of T, C and X, and accepts the short form as well
(its one widening). Every right grid counts; the official generator never asks for a unique one, `unique` does.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from framework.sample import Sample

__all__ = ["Campsite", "CampsiteParams"]

_OPEN, _CLOSE = re.compile(r"\[\s*\["), re.compile(r"\]\s*\]")
_SHORT = re.compile(r"[TCX]{1,30}(?:/[TCX]{1,30}){0,29}")
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_FORMAT = "Answer with the whole grid as a Python list of rows, for example [['T', 'C'], ['X', 'X']]."
_RULES = (
    "put tents (C) on empty cells (X) so that tents and trees (T) form pairs: every tree has exactly one tent of its own, directly "
    "above, below, left or right of it, and every tent belongs to one tree (it may stand beside further trees). No two tents may "
    "touch, not even diagonally."
)
_ENGLISH = (
    "A campsite of {0} rows and {1} columns:\n{2}\nYour job: "
    + _RULES
    + "\nTents in each row, from the top: {3}. Tents in each column, from the left: {4}.\n"
    + _FORMAT,
    "Tents and trees, {0} x {1}. The rules: "
    + _RULES
    + "\nThe rows hold {3} tents (top to bottom), the columns {4} (left to right). The map:\n{2}\n"
    + _FORMAT,
    "In the grid below, T is a tree and X is free ground. Please "
    + _RULES
    + " There are {0} rows with {3} tents and {1} columns with {4} tents, in this order.\n{2}\n"
    + _FORMAT,
)

Grid = tuple[str, ...]  # rows of T, C and X


@dataclasses.dataclass(frozen=True, kw_only=True)
class CampsiteParams(base.Params):
    sizes: tuple[tuple[int, int], ...]  # one is drawn: (rows, columns)
    density: float = 0.2  # trees per cell; above 0.25 large grids have no room for the tents
    unique: bool = False  # only puzzles with one solution


LEVELS: Mapping[str, CampsiteParams] = {
    "tiny": CampsiteParams(sizes=((3, 3), (3, 4), (4, 4)), unique=True),
    "easy": CampsiteParams(sizes=((4, 5), (5, 4), (5, 5))),
    "normal": CampsiteParams(sizes=((5, 10),)),
    "hard": CampsiteParams(sizes=((8, 10), (9, 9)), density=0.22, unique=True),
}


@dataclasses.dataclass(frozen=True)
class Campsite:
    name: str = "campsite"
    measure: str = "search nodes of the oracle (tents placed until all grids are known, or two)"
    json_answer: bool = False
    levels: Mapping[str, CampsiteParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: CampsiteParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, m = rng.choice(params.sizes)
            solution = _random_camp(rng, n, m, max(1, int(n * m * params.density)))
            if solution is None:
                return None
            rows, columns = _counts(solution)
            grid = [row.replace("C", "X") for row in solution]
            if params.unique and len(_search(grid, rows, columns, 2)[0]) != 1:
                return None
            row_text, column_text = ",".join(map(str, rows)), ",".join(map(str, columns))
            board = "\n".join(" ".join(row) for row in grid)
            return base.Draft(
                compact=f"camp {'/'.join(grid)}|{row_text}|{column_text}",
                english=tuple(text.format(n, m, board, row_text, column_text) for text in _ENGLISH),
                answer="",
                meta={
                    "grid": [list(row) for row in grid],
                    "row_constraints": rows,
                    "col_constraints": columns,
                    "n": n,
                    "m": m,
                },
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """Each tree with its tent, counted from 1: `11:12` is a tree in row 1, column 1 with its tent on the right."""
        grid = _solution(sample)
        partner = _pairs(grid) or {}
        comma = "," if max(len(grid), len(grid[0])) > 9 else ""
        named = [[f"{i + 1}{comma}{j + 1}" for i, j in pair] for pair in sorted(partner.items())]
        return " ".join(":".join(pair) for pair in named)

    def perturb(self, sample: Sample, seed: int) -> str:
        """One tent on another cell, or one tent missing."""
        rng = base.rng_for(self.name, "perturb", seed)
        grid = _solution(sample)
        tents, free = ([(i, j) for i, row in enumerate(grid) for j, c in enumerate(row) if c == kind] for kind in "CX")

        def candidates() -> Iterator[str]:
            for _ in range(20):
                old = rng.choice(tents)
                moved = _with(grid, old, "X")
                yield _in_form(sample, _with(moved, rng.choice(free), "C") if free else moved)
            yield _in_form(sample, _with(grid, tents[0], "X"))

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        if mode == "strict" and _SHORT.fullmatch(answer.strip()):
            grid: Any = [list(row) for row in answer.strip().split("/")]
        else:
            grid = _first_grid(answer)
        if mode == "strict" and not _plain(grid):
            return False
        try:
            return _fits(sample.meta, grid)
        except (TypeError, KeyError, IndexError):  # the official verifier looks into whatever stands in the list
            return False

    def difficulty(self, sample: Sample) -> float:
        meta = sample.meta
        return float(_search(meta["grid"], meta["row_constraints"], meta["col_constraints"], 2)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        grid = _solution(sample) if solved else sample.meta["grid"]
        cells = [["" if cell == "X" else cell for cell in row] for row in grid]
        rows, columns = sample.meta["row_constraints"], sample.meta["col_constraints"]
        return boards.block(boards.draw(cells, right=rows, bottom=columns))


def _first_grid(text: str) -> Any:
    """The value of the first `[[...]]`; each half is looked for once, so an unclosed text costs no second look."""
    start = _OPEN.search(text)
    end = _CLOSE.search(text, start.end()) if start else None
    if start is None or end is None:
        return None
    try:
        return parse.literal(text[start.start() : end.end()])
    except parse.LiteralError:
        return None


def _plain(grid: Any) -> bool:
    return isinstance(grid, list) and all(
        isinstance(row, list) and all(isinstance(cell, str) and cell in ("T", "C", "X") for cell in row) for row in grid
    )


def _fits(meta: Mapping[str, Any], grid: Any) -> bool:
    """The rules of the official verifier on a value of any shape."""
    n, m = meta["n"], meta["m"]
    if not grid or len(grid) != n or any(len(row) != m for row in grid):
        return False
    if any((meta["grid"][i][j] == "T") != (grid[i][j] == "T") for i in range(n) for j in range(m)):
        return False
    if any(sum(cell == "C" for cell in grid[i]) != meta["row_constraints"][i] for i in range(n)):
        return False
    if any(sum(grid[i][j] == "C" for i in range(n)) != meta["col_constraints"][j] for j in range(m)):
        return False
    tents = [(i, j) for i in range(n) for j in range(m) if grid[i][j] == "C"]
    if any(abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1 for k, a in enumerate(tents) for b in tents[:k]):
        return False
    return _pairs(grid) is not None


def _pairs(grid: Sequence[Sequence[str]]) -> dict[tuple[int, int], tuple[int, int]] | None:
    """A pairing tree -> tent in which everyone has exactly one partner, or None (augmenting paths)."""
    cells = ((i, j) for i in range(len(grid)) for j in range(len(grid[0])))
    kinds = {(i, j): grid[i][j] for i, j in cells if grid[i][j] in ("T", "C")}
    tents = [cell for cell, kind in kinds.items() if kind == "C"]
    partner: dict[tuple[int, int], tuple[int, int]] = {}

    def place(tent: tuple[int, int], seen: set[tuple[int, int]]) -> bool:
        for di, dj in _STEPS:
            tree = tent[0] + di, tent[1] + dj
            if kinds.get(tree) == "T" and tree not in seen:
                seen.add(tree)
                if tree not in partner or place(partner[tree], seen):
                    partner[tree] = tent
                    return True
        return False

    if 2 * len(tents) != len(kinds) or not all(place(tent, set()) for tent in tents):
        return None
    return partner


def _random_camp(rng: random.Random, n: int, m: int, count: int) -> Grid | None:
    """Tents that do not touch, then a tree beside each: solvable by construction."""
    cells = [(i, j) for i in range(n) for j in range(m)]
    rng.shuffle(cells)
    tents: list[tuple[int, int]] = []
    for i, j in cells:
        if len(tents) < count and all(abs(i - a) > 1 or abs(j - b) > 1 for a, b in tents):
            tents.append((i, j))
    grid = [["X"] * m for _ in range(n)]
    for i, j in tents:
        grid[i][j] = "C"
    for i, j in tents:
        free = [(i + di, j + dj) for di, dj in _STEPS if 0 <= i + di < n and 0 <= j + dj < m]
        free = [(a, b) for a, b in free if grid[a][b] == "X"]
        if not free:
            return None
        a, b = rng.choice(free)
        grid[a][b] = "T"
    return tuple("".join(row) for row in grid) if len(tents) == count else None


def _counts(grid: Sequence[Sequence[str]]) -> tuple[list[int], list[int]]:
    return [row.count("C") for row in grid], [column.count("C") for column in zip(*grid, strict=True)]


def _search(
    grid: Sequence[Sequence[str]], rows: Sequence[int], columns: Sequence[int], limit: int
) -> tuple[list[int], int]:
    """(different sets of tents as bit masks, at most `limit`; tents tried): the tree with the fewest free cells goes first."""
    n, m = len(rows), len(columns)
    bit = {(i, j): 1 << (i * m + j) for i in range(n) for j in range(m)}
    around = {bit[i, j]: sum(bit.get((i + di, j + dj), 0) for di in (-1, 0, 1) for dj in (-1, 0, 1)) for i, j in bit}
    lines = [sum(bit[i, j] for j in range(m)) for i in range(n)] + [sum(bit[i, j] for i in range(n)) for j in range(m)]
    trees = [cell for cell in bit if grid[cell[0]][cell[1]] == "T"]
    blocked = sum(bit[cell] for cell in trees)
    options = [sum(bit.get((i + di, j + dj), 0) for di, dj in _STEPS) for i, j in trees]
    wanted = [*rows, *columns]
    found: dict[int, None] = {}
    nodes = 0

    def visit(open_trees: list[int], tents: int, blocked: int) -> None:
        nonlocal nodes
        for line, count in zip(lines, wanted, strict=True):
            if (tents & line).bit_count() == count:
                blocked |= line
        free = [tree & ~blocked for tree in open_trees]
        reachable = 0
        for cells in free:
            reachable |= cells
        if any(((tents | reachable) & line).bit_count() < count for line, count in zip(lines, wanted, strict=True)):
            return
        if not free:
            found[tents] = None
            return
        k = min(range(len(free)), key=lambda i: free[i].bit_count())
        cells, rest = free[k], open_trees[:k] + open_trees[k + 1 :]
        while cells and len(found) < limit:
            cell = cells & -cells
            cells ^= cell
            nodes += 1
            visit(rest, tents | cell, blocked | around[cell])

    visit(options, 0, blocked)
    return list(found), nodes


def _solution(sample: Sample) -> Grid:
    """The first grid that fits, from the question alone."""
    meta = sample.meta
    found, _ = _search(meta["grid"], meta["row_constraints"], meta["col_constraints"], 1)
    if not found:
        raise ValueError("campsite: no placement of tents fits this grid and these counts")
    m = len(meta["col_constraints"])
    rows = enumerate(meta["grid"])
    return tuple("".join("C" if found[0] >> (i * m + j) & 1 else c for j, c in enumerate(row)) for i, row in rows)


def _with(grid: Grid, cell: tuple[int, int], symbol: str) -> Grid:
    i, j = cell
    return (*grid[:i], grid[i][:j] + symbol + grid[i][j + 1 :], *grid[i + 1 :])


def _in_form(sample: Sample, grid: Grid) -> str:
    return "/".join(grid) if sample.meta.get("form") == "compact" else str([list(row) for row in grid])
