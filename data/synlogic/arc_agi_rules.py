"""Rules on coloured grids: a library of single steps, and the search for the rules that agree with given examples.

Helper of `arc_agi` (SynLogic, arXiv:2505.19641). A grid is a tuple of rows, a row is `bytes` of colours 0 to 9; 0 is empty.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Grid", "Step", "apply_all", "library", "random_grid", "rules_that_agree"]

Grid = tuple[bytes, ...]

MAX_SIDE = 30


@dataclasses.dataclass(frozen=True)
class Step:
    """One transformation with its colours; `apply` gives () where it makes no sense."""

    name: str
    apply: Callable[[Grid], Grid]


def _transpose(grid: Grid) -> Grid:
    return tuple(map(bytes, zip(*grid, strict=True)))


def _mirror(grid: Grid) -> Grid:
    return tuple(row[::-1] for row in grid)


def _turn(grid: Grid) -> Grid:
    return _transpose(grid[::-1])


def _left(grid: Grid) -> Grid:
    return tuple(row.replace(b"\0", b"").ljust(len(row), b"\0") for row in grid)


def _right(grid: Grid) -> Grid:
    return tuple(row.replace(b"\0", b"").rjust(len(row), b"\0") for row in grid)


def _crop(grid: Grid) -> Grid:
    for _ in range(2):  # rows, then columns as rows
        filled = [i for i, row in enumerate(grid) if any(row)]
        grid = _transpose(grid[filled[0] : filled[-1] + 1]) if filled else ()
    return grid


def _double(grid: Grid) -> Grid:
    wide = [bytes(cell for cell in row for _ in (0, 1)) for row in grid]
    return tuple(row for row in wide for _ in (0, 1))


def _fill(grid: Grid, colour: int) -> Grid:
    """Empty cells from which no path of empty cells leads to the edge get a colour."""
    rows = list(grid)
    for i, j in _holes(grid):
        rows[i] = rows[i][:j] + bytes([colour]) + rows[i][j + 1 :]
    return tuple(rows)


def _count(grid: Grid, colour: int) -> Grid:
    """A row with one cell for each object: a group of filled cells that touch along an edge."""
    objects = _objects(grid)
    return (bytes([colour] * objects),) if objects else ()


# Kept, because a search asks for them once for every colour.
@functools.lru_cache(maxsize=256)
def _holes(grid: Grid) -> tuple[tuple[int, int], ...]:
    n, m = len(grid), len(grid[0])
    edge = [(i, j) for i in range(n) for j in range(m) if i in (0, n - 1) or j in (0, m - 1)]
    outside = _reached(grid, edge, lambda cell: cell == 0)
    return tuple((i, j) for i in range(n) for j in range(m) if not grid[i][j] and (i, j) not in outside)


@functools.lru_cache(maxsize=256)
def _objects(grid: Grid) -> int:
    seen: set[tuple[int, int]] = set()
    objects = 0
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if cell and (i, j) not in seen:
                objects += 1
                seen |= _reached(grid, [(i, j)], bool)
    return objects


def _reached(grid: Grid, start: Sequence[tuple[int, int]], through: Callable[[int], bool]) -> set[tuple[int, int]]:
    n, m = len(grid), len(grid[0])
    todo = [(i, j) for i, j in start if through(grid[i][j])]
    seen = set(todo)
    while todo:
        i, j = todo.pop()
        for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= a < n and 0 <= b < m and (a, b) not in seen and through(grid[a][b]):
                seen.add((a, b))
                todo.append((a, b))
    return seen


def _framed(grid: Grid, colour: int) -> Grid:
    side, line = bytes([colour]), bytes([colour] * (len(grid[0]) + 2))
    return (line, *(side + row + side for row in grid), line)


_PLAIN = (
    Step("mirror left-right", _mirror),
    Step("mirror top-bottom", lambda grid: grid[::-1]),
    Step("turn right", _turn),
    Step("turn left", lambda grid: _transpose(grid)[::-1]),
    Step("turn around", lambda grid: _mirror(grid[::-1])),
    Step("transpose", _transpose),
    Step("transpose the other way", lambda grid: _mirror(_transpose(grid))[::-1]),
    Step("fall left", _left),
    Step("fall right", _right),
    Step("fall down", lambda grid: _transpose(_right(_transpose(grid)))),
    Step("fall up", lambda grid: _transpose(_left(_transpose(grid)))),
    Step("crop", _crop),
    Step("double the size", _double),
    Step("repeat to the right", lambda grid: tuple(row + row for row in grid)),
    Step("repeat below", lambda grid: grid + grid),
    Step("mirror image to the right", lambda grid: tuple(row + row[::-1] for row in grid)),
    Step("mirror image below", lambda grid: grid + grid[::-1]),
    Step("left half", lambda grid: tuple(row[: len(row) // 2] for row in grid) if len(grid[0]) > 1 else ()),
    Step("top half", lambda grid: grid[: len(grid) // 2]),
)


@functools.lru_cache(maxsize=512)
def library(colours: tuple[int, ...]) -> tuple[Step, ...]:
    """All single steps, those with a colour for each of `colours` (without 0)."""
    steps = list(_PLAIN)
    for a in colours:
        steps.append(Step(f"remove {a}", _translated({a: 0})))
        for b in colours:
            if a != b:
                steps.append(Step(f"recolour {a} to {b}", _translated({a: b})))
            if a < b:
                steps.append(Step(f"exchange {a} and {b}", _translated({a: b, b: a})))
    for c in colours:
        steps.append(Step(f"fill holes with {c}", lambda grid, c=c: _fill(grid, c)))
        steps.append(Step(f"frame of {c}", lambda grid, c=c: _framed(grid, c)))
        steps.append(Step(f"count objects in {c}", lambda grid, c=c: _count(grid, c)))
    return tuple(steps)


def _translated(change: dict[int, int]) -> Callable[[Grid], Grid]:
    table = bytes([change.get(cell, cell) for cell in range(256)])
    return lambda grid: tuple([row.translate(table) for row in grid])  # a list is faster here than a generator


def apply_all(steps: Sequence[Step], grid: Grid) -> Grid:
    for step in steps:
        grid = step.apply(grid) if grid and grid[0] else ()
    return grid if grid and grid[0] and max(len(grid), len(grid[0])) <= MAX_SIDE else ()


def rules_that_agree(
    examples: Sequence[tuple[Grid, Grid]], test: Grid, depth: int
) -> Iterator[tuple[tuple[Step, ...], Grid, int]]:
    """(steps, test output, rules tried so far) of all rules of up to `depth` steps that agree with all examples, short ones
    first. Of several ways to the same grids only the first is followed."""
    seen_colours = {cell for pair in examples for grid in pair for row in grid for cell in row}
    steps = library(tuple(sorted(seen_colours - {0})))
    wanted = tuple(output for _, output in examples)
    start = (*(grid for grid, _ in examples), test)
    states: dict[tuple[Grid, ...], tuple[Step, ...]] = {start: ()}
    level = dict(states)
    tried = 0
    for length in range(1, depth + 1):
        fresh: dict[tuple[Grid, ...], tuple[Step, ...]] = {}
        for state, before in level.items():
            for step in steps:
                tried += 1
                first = step.apply(state[0])
                # The last step only has to give the wanted grids: most rules are dropped at the first example.
                if length == depth and first != wanted[0]:
                    continue
                after = (first, *(step.apply(grid) if first else () for grid in state[1:]))
                if not all(grid and grid[0] for grid in after) or after in states or _too_large(after):
                    continue
                states[after] = fresh[after] = (*before, step)
                if after[:-1] == wanted:
                    yield (*before, step), after[-1], tried
        level = fresh


def _too_large(grids: Sequence[Grid]) -> bool:
    return any(len(grid) > MAX_SIDE or len(grid[0]) > MAX_SIDE for grid in grids)


def random_grid(rng: random.Random, n: int, m: int, colours: Sequence[int]) -> Grid:
    """Single cells at random, or some lines, boxes and frames on empty ground."""
    if min(n, m) < 4 or rng.random() < 0.3:
        return tuple(bytes(rng.choice(colours) if rng.random() < 0.5 else 0 for _ in range(m)) for _ in range(n))
    rows = [[0] * m for _ in range(n)]
    for _ in range(rng.randint(2, 2 + n * m // 25)):
        h, w = rng.randint(1, min(5, n)), rng.randint(1, min(5, m))
        top, left, colour = rng.randrange(n - h + 1), rng.randrange(m - w + 1), rng.choice(colours)
        hollow = rng.random() < 0.6
        for i in range(top, top + h):
            for j in range(left, left + w):
                inside = top < i < top + h - 1 and left < j < left + w - 1
                rows[i][j] = 0 if hollow and inside else colour
    return tuple(map(bytes, rows))
