"""Number wall: build walls so that every island has one number, its size (SynLogic, arXiv:2505.19641, task `number_wall`).

A kind of nurikabe whose walls (A) need not be connected: no 2 x 2 block of walls, and two islands never touch, not even at a
corner. Compact form: `wall 3../.../..1` with the short answer `3XA/XAA/AA1`, in which a number of two digits would not fit; the
official answer is a list of rows with numbers, "X" (island) and "A" (wall). The official verifier reads the last such list in
the text and lets the answer add islands with numbers of its own; strict keeps to the given numbers, and accepts the short form
as well (its one widening).

The official generator lays straight arms and repairs the walls at random until a grid happens to be valid. Here islands start
and grow only where a 2 x 2 block of walls is left and no other island is touched; the number goes to a random cell of its island.
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse, regions
from framework.sample import Sample

__all__ = ["NumberWall", "NumberWallParams"]

# The official pattern without its ambiguous spaces, over which a backtracking matcher takes exponential time.
_CELL = r"""(?:"[XA]"|'[XA]'|[0-9]+|"[0-9]+"|'[0-9]+')"""
_ROW = rf"\[\s*{_CELL}(?:\s*,\s*{_CELL})*\s*\]"
_GRID = re.compile(rf"\[\s*{_ROW}\s*(?:,\s*{_ROW}\s*)*\]")
_SPACES = re.compile(r"[ \t\f]*")  # what a Python literal allows; the official pattern allows more and then fails
_SHORT = re.compile(r"[XA1-9]{1,20}(?:/[XA1-9]{1,20}){0,19}")
_MAX_NODES = 2_000  # of one search; a harder draw is thrown away
_MAX_SOLVE = 100_000
_RULES = (
    "Cells with a number or X form islands, cells with A are walls. Choose which of the X cells become walls so that every island "
    "(a group of cells connected by edges) contains exactly one number and has as many cells as the number says, its own cell "
    "included. No 2 x 2 block may consist of walls only, and cells of different islands may not touch, not even at a corner."
)
_FORMAT = (
    'Keep the numbers. Answer with the whole grid as a list of rows in a ```python block, walls as "A" and the remaining cells of '
    'the islands as "X", like [["X", 2], ["A", "A"]].'
)
_ENGLISH = (
    "Build walls on this {0} x {0} grid.\n{1}\n" + _RULES + "\n" + _FORMAT,
    "A puzzle of islands and walls with {0} rows and {0} columns. " + _RULES + "\n{1}\n" + _FORMAT,
    "The map below has {0} x {0} cells:\n{1}\n" + _RULES + "\n" + _FORMAT,
)

Cells = list[list[int | str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberWallParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn
    max_island: int | None = None  # the largest number; None: the size of the grid, as published


LEVELS: Mapping[str, NumberWallParams] = {
    "tiny": NumberWallParams(sizes=(3, 4)),
    "easy": NumberWallParams(sizes=(4, 5)),
    "normal": NumberWallParams(sizes=(5,)),
    "hard": NumberWallParams(sizes=(6, 7), max_island=6),
}


@dataclasses.dataclass(frozen=True)
class NumberWall:
    name: str = "number_wall"
    measure: str = "island shapes that the oracle must choose from (all numbers together)"
    json_answer: bool = False
    levels: Mapping[str, NumberWallParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: NumberWallParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n = rng.choice(params.sizes)
            islands = _random_islands(rng, n, params.max_island or n)
            if islands is None:
                return None
            grid: Cells = [["X"] * n for _ in range(n)]
            for island in islands:
                i, j = rng.choice(island)
                grid[i][j] = len(island)
            if _search(grid, _MAX_NODES) is None:
                return None
            text = "\n".join(" ".join(map(str, row)) for row in grid)
            return base.Draft(
                compact="wall " + "/".join("".join("." if cell == "X" else str(cell) for cell in row) for row in grid),
                english=tuple(wording.format(n, text) for wording in _ENGLISH),
                answer="",
                meta={"grid": grid, "n": n},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The cells of every island, the number's own first: `3:11,12,21 1:33`."""
        islands = []
        grid = _solution(sample)
        for part in regions.components(_land(grid)):
            part.sort(key=lambda cell: (grid[cell[0]][cell[1]] == "X", cell))
            i, j = part[0]
            islands.append(f"{grid[i][j]}:" + ",".join(f"{a + 1}{b + 1}" for a, b in part))
        return " ".join(islands)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        grid, given = _solution(sample), sample.meta["grid"]
        free = [(i, j) for i, row in enumerate(given) for j, cell in enumerate(row) if cell == "X"]

        def candidates() -> Iterator[str]:
            for _ in range(20):  # two cells exchanged: as many walls as before
                (a, b), (c, d) = rng.choice(free), rng.choice(free)
                changed = [list(row) for row in grid]
                changed[a][b], changed[c][d] = grid[c][d], grid[a][b]
                yield _in_form(sample, changed)
            i, j = rng.choice(free)
            changed = [list(row) for row in grid]
            changed[i][j] = "A" if grid[i][j] == "X" else "X"
            yield _in_form(sample, changed)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        given, n = sample.meta["grid"], sample.meta["n"]
        strict = mode == "strict"
        if strict and _SHORT.fullmatch(answer.strip()):
            grid: Cells | None = [[int(c) if c.isdigit() else c for c in row] for row in answer.strip().split("/")]
        else:
            grid = _last_grid(answer)
        if grid is None or len(grid) != n or any(len(row) != n for row in grid):
            return False
        pairs = [(given[i][j], grid[i][j]) for i in range(n) for j in range(n)]
        if any(old != new for old, new in pairs if isinstance(old, int)):
            return False
        if strict and any(isinstance(new, int) for old, new in pairs if not isinstance(old, int)):
            return False
        return _right(grid)

    def difficulty(self, sample: Sample) -> float:
        return float(sum(len(shapes) for shapes in _shapes(sample.meta["grid"])))

    def show(self, sample: Sample, solved: bool = False) -> str:
        grid = _solution(sample) if solved else sample.meta["grid"]
        names: dict[object, str] = {"A": "▒", "X": "·" if solved else ""}
        return boards.block(boards.draw([[names.get(cell, cell) for cell in row] for row in grid]))


def _last_grid(answer: str) -> Cells | None:
    """The last list of rows of numbers, "X" and "A" in the text, quoted numbers as numbers."""
    grids = _GRID.findall(answer)
    if not grids:
        return None
    text = grids[-1].replace("\n", "").replace("\r", "")
    if any(_SPACES.fullmatch(run) is None for run in re.findall(r"\s+", text)):
        return None
    rows: Cells = []
    for row in re.findall(_ROW, text):
        rows.append([])
        for cell in re.findall(_CELL, row):
            bare = cell.strip("\"'")
            if bare in ("X", "A"):
                rows[-1].append(bare)
            elif len(bare) > 4_000 or (bare == cell and bare[0] == "0" and bare.strip("0")):
                return None  # neither JSON nor Python: a number with leading zeros, or too long
            else:
                rows[-1].append(int(bare))
    return rows


def _land(grid: Sequence[Sequence[int | str]]) -> list[regions.Cell]:
    return [(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell != "A"]


def _right(grid: Cells) -> bool:
    n = len(grid)
    part_of: dict[regions.Cell, int] = {}
    for at, part in enumerate(regions.components(_land(grid))):
        numbers = [grid[i][j] for i, j in part if grid[i][j] != "X"]
        if numbers != [len(part)]:
            return False
        part_of |= dict.fromkeys(part, at)
    for i in range(n - 1):
        for j in range(n - 1):
            block = [part_of.get(cell) for cell in ((i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1))]
            # All walls, or two islands corner to corner: a third cell would connect them.
            if len({at for at in block if at is not None}) != 1:
                return False
    return True


def _random_islands(rng: random.Random, n: int, max_island: int) -> list[list[regions.Cell]] | None:
    """Islands that touch no other and leave no 2 x 2 block of walls; None where the random order leads to a dead end."""
    owner: dict[regions.Cell, int] = {}
    islands: list[list[regions.Cell]] = []
    blocks = [(i, j) for i in range(n - 1) for j in range(n - 1)]
    rng.shuffle(blocks)
    for i, j in blocks:
        block = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
        if any(cell in owner for cell in block):
            continue
        rng.shuffle(block)
        for cell in block:
            touched = {owner[near] for near in regions.around(cell, n, n) if near in owner}
            joined = {owner[near] for near in regions.beside(cell, n, n) if near in owner}
            if touched == joined and len(touched) <= 1:
                at = min(touched, default=len(islands))
                if at == len(islands):
                    islands.append([])
                if len(islands[at]) < max_island:
                    islands[at].append(cell)
                    owner[cell] = at
                    break
        else:
            return None
    for _ in range(rng.randint(0, n)):  # some islands grow on, or all would be as small as can be
        at = rng.randrange(len(islands))
        near = [cell for part in islands[at] for cell in regions.beside(part, n, n) if cell not in owner]
        near = [cell for cell in near if all(owner.get(other, at) == at for other in regions.around(cell, n, n))]
        if near and len(islands[at]) < max_island:
            owner[near[0]] = at
            islands[at].append(near[0])
    return islands


def _shapes(grid: Sequence[Sequence[int | str]]) -> list[list[tuple[int, int]]]:
    """For every number all (cells, cells with their surroundings) that its island can be, as bit masks."""
    n = len(grid)
    numbers = [((i, j), cell) for i, row in enumerate(grid) for j, cell in enumerate(row) if isinstance(cell, int)]
    found = []
    for at, size in numbers:
        others = [other for other, _ in numbers if other != at]
        banned = dict.fromkeys([*others, *(near for other in others for near in regions.around(other, n, n))])
        found.append(regions.shapes(n, at, size, banned))
    return found


def _search(grid: Sequence[Sequence[int | str]], max_nodes: int) -> int | None:
    """The land of the first solution as a bit mask, or None: always the number with the fewest shapes left comes next."""
    n = len(grid)
    corner = 1 | 2 | 1 << n | 2 << n
    blocks = [corner << (i * n + j) for i in range(n - 1) for j in range(n - 1)]
    nodes = 0

    def fill(land: int, left: list[list[tuple[int, int]]]) -> int | None:
        nonlocal nodes
        nodes += 1
        if nodes > max_nodes or not all(left):
            return None
        reach = land
        for shapes in left:
            for shape, _ in shapes:
                reach |= shape
        if any(not block & reach for block in blocks):
            return None
        if not left:
            return land
        at = min(range(len(left)), key=lambda number: len(left[number]))
        for shape, halo in left[at]:
            rest = [[option for option in shapes if not option[0] & halo] for shapes in (*left[:at], *left[at + 1 :])]
            solved = fill(land | shape, rest)
            if solved is not None:
                return solved
        return None

    return fill(0, _shapes(grid))


def _solution(sample: Sample) -> Cells:
    given = sample.meta["grid"]
    n = len(given)
    land = _search(given, _MAX_SOLVE)
    if land is None:
        raise ValueError(f"number_wall: the grid {given} has no solution that the oracle's search finds")
    return [
        [given[i][j] if given[i][j] != "X" else ("X" if land >> (i * n + j) & 1 else "A") for j in range(n)]
        for i in range(n)
    ]


def _in_form(sample: Sample, grid: Cells) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join("".join(map(str, row)) for row in grid)
    return "```python\n" + json.dumps(grid) + "\n```"
