"""Connected regions on a grid: grown at random from given cells, joined to groups, and taken apart again.

Used by the SynLogic tasks (arXiv:2505.19641) whose grids are divided into lettered regions. The official generators give
leftover cells to any region, so that theirs can fall apart; these stay connected by construction. A cell is (row, column),
counted from 0.
"""

import random
import string
from collections.abc import Collection, Iterator, Sequence

__all__ = ["LETTERS", "Cell", "around", "beside", "components", "grow", "join", "letter_grid", "shapes"]

Cell = tuple[int, int]

LETTERS = string.ascii_uppercase.replace("X", "")  # X marks cells without a region
_SIDES = ((-1, 0), (0, -1), (0, 1), (1, 0))
_EIGHT = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def beside(cell: Cell, n: int, m: int) -> Iterator[Cell]:
    """The cells of an n x m grid that share an edge with `cell`."""
    for di, dj in _SIDES:
        if 0 <= cell[0] + di < n and 0 <= cell[1] + dj < m:
            yield cell[0] + di, cell[1] + dj


def around(cell: Cell, n: int, m: int) -> Iterator[Cell]:
    """The cells of an n x m grid that touch `cell`, corners included."""
    for di, dj in _EIGHT:
        if 0 <= cell[0] + di < n and 0 <= cell[1] + dj < m:
            yield cell[0] + di, cell[1] + dj


def components(cells: Collection[Cell]) -> list[list[Cell]]:
    """The orthogonally connected parts of `cells`, in reading order of their first cells."""
    left, parts = dict.fromkeys(sorted(cells)), []
    while left:
        part = [next(iter(left))]
        del left[part[0]]
        for i, j in part:  # grows while it is read
            for di, dj in _SIDES:
                near = (i + di, j + dj)
                if near in left:
                    del left[near]
                    part.append(near)
        parts.append(part)
    return parts


def grow(rng: random.Random, n: int, m: int, seeds: Sequence[Cell], without: Collection[Cell] = ()) -> list[list[int]]:
    """Every cell [n][m] goes to one of `seeds`, whose regions grow by random neighbours until the grid is full.

    The value is the number of the seed; -1 for the cells in `without`, and for cells that they cut off.
    """
    owner = [[-1] * m for _ in range(n)]
    closed = set(without)  # only looked up, never iterated over
    edge: list[tuple[Cell, int]] = []
    for number, (i, j) in enumerate(seeds):
        owner[i][j] = number
        edge += [(near, number) for near in beside((i, j), n, m)]
    while edge:
        at = rng.randrange(len(edge))
        (i, j), number = edge[at]
        edge[at] = edge[-1]
        edge.pop()
        if owner[i][j] < 0 and (i, j) not in closed:
            owner[i][j] = number
            edge += [(near, number) for near in beside((i, j), n, m)]
    return owner


def join(rng: random.Random, owner: list[list[int]], size: int) -> list[list[int]] | None:
    """The regions joined to connected groups of `size` neighbours each; None where a random choice left one alone."""
    n, m = len(owner), len(owner[0])
    near: dict[int, dict[int, None]] = {number: {} for row in owner for number in row if number >= 0}
    for i in range(n):
        for j in range(m):
            for a, b in beside((i, j), n, m):
                if owner[i][j] != owner[a][b] and owner[i][j] >= 0 and owner[a][b] >= 0:
                    near[owner[i][j]][owner[a][b]] = None
    group: dict[int, int] = {}
    while len(group) < len(near):
        free = [number for number in sorted(near) if number not in group]
        rng.shuffle(free)
        # The region with the fewest free neighbours chooses first: it is the one that is left alone otherwise.
        first = min(free, key=lambda number: sum(other not in group for other in near[number]))
        label = len(group) // size
        members = [first]
        group[first] = label
        while len(members) < size:
            choices = sorted({other for member in members for other in near[member] if other not in group})
            if not choices:
                return None
            members.append(rng.choice(choices))
            group[members[-1]] = label
    return [[group.get(number, -1) for number in row] for row in owner]


def letter_grid(owner: list[list[int]]) -> list[list[str]]:
    """Region numbers as letters in reading order, so that the letters say nothing about how the grid was made; -1 is X."""
    order = dict.fromkeys(number for row in owner for number in row if number >= 0)
    if len(order) > len(LETTERS):
        raise ValueError(f"{len(order)} regions have no letters of their own. Use at most {len(LETTERS)} regions.")
    letters = {number: LETTERS[at] for at, number in enumerate(order)}
    return [[letters.get(number, "X") for number in row] for row in owner]


def shapes(n: int, start: Cell, size: int, banned: Collection[Cell] = ()) -> list[tuple[int, int]]:
    """Every connected set of `size` cells of an n x n grid that holds `start` and nothing `banned`, once each.

    As bit masks, cell (i, j) being bit i * n + j: (the set, the set with all cells that touch it).
    """
    cells = [(i, j) for i in range(n) for j in range(n)]
    sides = [sum(1 << (a * n + b) for a, b in beside(cell, n, n)) for cell in cells]
    eights = [sum(1 << (a * n + b) for a, b in around(cell, n, n)) for cell in cells]
    closed = sum(1 << (i * n + j) for i, j in banned)
    found: list[tuple[int, int]] = []

    def extend(shape: int, halo: int, edge: int, seen: int, left: int) -> None:
        if left == 0:
            found.append((shape, halo | shape))
            return
        while edge:  # Redelmeier's enumeration: a cell that was passed over is not looked at again
            bit = edge & -edge
            edge ^= bit
            at = bit.bit_length() - 1
            new = sides[at] & ~seen
            extend(shape | bit, halo | eights[at], edge | new, seen | new, left - 1)

    at = start[0] * n + start[1]
    if size > 0 and not closed >> at & 1:
        edge = sides[at] & ~closed
        extend(1 << at, eights[at], edge, 1 << at | edge | closed, size - 1)
    return found
