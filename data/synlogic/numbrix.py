"""Numbrix: number the cells of a grid so that consecutive numbers share an edge (SynLogic, arXiv:2505.19641, task `numbrix`).

Compact form: `numbrix 1 . ./. . 3/. . 9` with the short answer `1 2 5/...`; the official answer is a list of rows of whole
numbers. The official verifier reads the last stretch that begins with `[[` and a digit and ends with `]]`, quotes removed; any
grid that keeps the clues is right, and True counts as 1. Strict wants whole numbers, and accepts the short form as well (its one
widening).

The official generator falls back to one fixed snake, for every grid from 7 x 7 on. Here the path is a random Hamiltonian path:
a snake, a column- or row-wise one, changed by backbite moves (one end is tied to a neighbour, the loop that appears is cut).
Clues whose gaps the oracle cannot fill within its node cap are drawn again.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse, regions
from framework.sample import Sample

__all__ = ["Numbrix", "NumbrixParams"]

# The official pattern, `[[` digit ... `]]`, in two linear halves.
_OPEN = re.compile(r"\[\s*\[\s*\d")
_CLOSE = re.compile(r"\]\s*\]")
_SHORT = re.compile(r"[0-9]{1,3}(?:[ /][0-9]{1,3}){0,399}")
_MAX_NODES = 1_500  # of one search while generating; a harder draw is thrown away
_MAX_SOLVE = 200_000
_MOVES_PER_CELL = 6
_RULES = (
    "Write every number from 1 to {1} into exactly one cell, so that any two consecutive numbers are in cells that share an edge "
    "(left, right, above or below; not diagonally). The given numbers stay where they are; X marks the empty cells."
)
_FORMAT = "Answer with the complete grid as a list of {0} rows of numbers, like [[1, 2], [4, 3]]."
_ENGLISH = (
    "Complete this {0} x {0} Numbrix grid.\n{2}\n" + _RULES + "\n" + _FORMAT,
    "One path visits all cells of a {0} by {0} grid, and its steps are numbered. " + _RULES + "\n{2}\n" + _FORMAT,
    "Fill in the path! " + _RULES + " The grid has {0} rows and {0} columns:\n{2}\n" + _FORMAT,
)

Grid = list[list[int]]  # 0: empty


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumbrixParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn
    fill_rates: tuple[float, ...]  # one is drawn: share of the cells with a clue


LEVELS: Mapping[str, NumbrixParams] = {
    "tiny": NumbrixParams(sizes=(3, 4), fill_rates=(0.3, 0.4)),
    "easy": NumbrixParams(sizes=(4, 5), fill_rates=(0.3,)),
    "normal": NumbrixParams(sizes=tuple(range(6, 13)), fill_rates=(0.3, 0.4)),
    "hard": NumbrixParams(sizes=(10, 11, 12), fill_rates=(0.3,)),
}


@dataclasses.dataclass(frozen=True)
class Numbrix:
    name: str = "numbrix"
    measure: str = "search nodes of the oracle (cells filled until the first solution)"
    json_answer: bool = False
    levels: Mapping[str, NumbrixParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: NumbrixParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, fill_rate = rng.choice(params.sizes), rng.choice(params.fill_rates)
            path = _random_path(rng, n)
            hidden = rng.sample(path[1:-1], min(int(n * n * (1 - fill_rate)), n * n - 2))
            clues = [[0] * n for _ in range(n)]
            for number, (i, j) in enumerate(path, start=1):
                clues[i][j] = number
            for i, j in hidden:
                clues[i][j] = 0
            if _search(clues, _MAX_NODES)[0] is None:
                return None
            text = "\n".join(" ".join(f"{number or 'X':>{len(str(n * n))}}" for number in row) for row in clues)
            return base.Draft(
                compact="numbrix " + "/".join(" ".join(str(number or ".") for number in row) for row in clues),
                english=tuple(wording.format(n, n * n, text) for wording in _ENGLISH),
                answer="",
                meta={"grid": [[number or "X" for number in row] for row in clues], "n": n, "fill_rate": fill_rate},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The path as steps between neighbours from the cell of 1: `11 RRDLL...` (row, column; right, down, left, up)."""
        at = _places(_solution(sample))
        steps = ((at[number], at[number + 1]) for number in range(1, len(at)))
        names = {(0, 1): "R", (1, 0): "D", (0, -1): "L", (-1, 0): "U"}
        walk = "".join(names[c - a, d - b] for (a, b), (c, d) in steps)
        return f"{at[1][0] + 1},{at[1][1] + 1} {walk}"

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        grid, clues = _solution(sample), sample.meta["grid"]
        n = len(grid)
        empty = [(i, j) for i in range(n) for j in range(n) if clues[i][j] == "X"]

        def candidates() -> Iterator[str]:
            for _ in range(50):
                (a, b), (c, d) = rng.choice(empty), rng.choice(empty)
                changed = [list(row) for row in grid]
                changed[a][b], changed[c][d] = grid[c][d], grid[a][b]
                yield _in_form(sample, changed)
            yield _in_form(sample, [row[::-1] for row in grid][::-1])
            yield _in_form(sample, grid[1:])

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        strict = mode == "strict"
        if strict and _SHORT.fullmatch(answer.strip()):
            grid = [[int(number) for number in row.split(" ") if number] for row in answer.strip().split("/")]
        else:
            text = _last_grid(answer)
            if text is None:
                return False
            try:
                grid = parse.literal(text.replace("'", "").replace('"', ""))
            except parse.LiteralError:
                return False
            kinds = (int,) if strict else (int, bool)
            if not isinstance(grid, list) or not all(isinstance(row, list) for row in grid):
                return False
            if any(type(number) not in kinds for row in grid for number in row):
                return False
        return _right(grid, sample.meta["grid"])

    def difficulty(self, sample: Sample) -> float:
        return float(_search(_clues(sample), _MAX_SOLVE)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        cells = _solution(sample) if solved else [[number or "" for number in row] for row in _clues(sample)]
        return boards.block(boards.draw(cells))


def _last_grid(text: str) -> str | None:
    found, at = None, 0
    while opened := _OPEN.search(text, at):
        closed = _CLOSE.search(text, opened.end())
        if closed is None:
            break
        at = closed.end()
        found = text[opened.start() : at]
    return found


def _right(grid: Sequence[Sequence[int]], clues: Sequence[Sequence[int | str]]) -> bool:
    n = len(clues)
    if len(grid) != n or any(len(row) != n for row in grid):
        return False
    if sorted(number for row in grid for number in row) != list(range(1, n * n + 1)):
        return False
    if any(clues[i][j] not in ("X", grid[i][j]) for i in range(n) for j in range(n)):
        return False
    at = _places(grid)
    return all(
        abs(at[number][0] - at[number + 1][0]) + abs(at[number][1] - at[number + 1][1]) == 1
        for number in range(1, n * n)
    )


def _places(grid: Sequence[Sequence[int]]) -> dict[int, regions.Cell]:
    """The cell of every number that is not 0."""
    return {number: (i, j) for i, row in enumerate(grid) for j, number in enumerate(row) if number}


def _random_path(rng: random.Random, n: int) -> list[regions.Cell]:
    """A random Hamiltonian path by backbite moves (Oberdorf et al. 2006): the end of the path is tied to a neighbour."""
    path = [(i, j if i % 2 == 0 else n - 1 - j) for i in range(n) for j in range(n)]
    if rng.random() < 0.5:
        path = [(j, i) for i, j in path]
    for _ in range(_MOVES_PER_CELL * n * n):
        if rng.random() < 0.5:
            path.reverse()
        near = [cell for cell in regions.beside(path[-1], n, n) if cell != path[-2]]
        if near:
            cut = path.index(rng.choice(near)) + 1
            path[cut:] = path[cut:][::-1]
    return path


def _search(clues: Grid, max_nodes: int) -> tuple[Grid | None, int]:
    """(the first solution or None, nodes): the path is walked from 1 on, and a cell that nothing can reach ends the walk.

    A free cell needs two of its neighbours to come before and after it: free cells, the walk's end, or clues still ahead.
    """
    n = len(clues)
    total = n * n
    at = _places(clues)
    grid = [list(row) for row in clues]
    ahead: dict[int, int] = {}  # number -> the next clue from it on
    following = total
    for number in range(total, 0, -1):
        following = number if number in at else following
        ahead[number] = following
    near = {(i, j): list(regions.beside((i, j), n, n)) for i in range(n) for j in range(n)}
    nodes = 0

    def stuck(cell: regions.Cell, end: regions.Cell, number: int) -> bool:
        ways = 0
        for i, j in near[cell]:
            value = grid[i][j]
            ways += value == 0 or value > number or (i, j) == end
        return ways < 2

    def walk(number: int, cell: regions.Cell) -> bool:
        nonlocal nodes
        nodes += 1
        if number == total:
            return True
        if nodes > max_nodes:
            return False
        goal = ahead[number + 1]
        for i, j in near[cell]:
            value = grid[i][j]
            if value not in (0, number + 1) or (value == 0 and number + 1 in at):
                continue
            if abs(at[goal][0] - i) + abs(at[goal][1] - j) > goal - number - 1:
                continue
            grid[i][j] = number + 1
            # Only the neighbours of the cell that was left have lost a way.
            if not any(grid[a][b] == 0 and stuck((a, b), (i, j), number + 1) for a, b in near[cell]) and walk(
                number + 1, (i, j)
            ):
                return True
            grid[i][j] = value
        return False

    if 1 not in at or total not in at:
        return None, 0
    return (grid if walk(1, at[1]) else None), nodes


def _clues(sample: Sample) -> Grid:
    return [[0 if cell == "X" else cell for cell in row] for row in sample.meta["grid"]]


def _solution(sample: Sample) -> Grid:
    grid, nodes = _search(_clues(sample), _MAX_SOLVE)
    if grid is None:
        reason = "has no solution" if nodes <= _MAX_SOLVE else "is too hard for the oracle's search"
        raise ValueError(f"numbrix: the grid {sample.meta['grid']} {reason}")
    return grid


def _in_form(sample: Sample, grid: Grid) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join(" ".join(map(str, row)) for row in grid)
    return "[" + ", ".join(str(row) for row in grid) + "]"
