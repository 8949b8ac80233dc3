"""Latin squares for five tasks: random squares, and a search that counts solutions up to a limit.

SynLogic (arXiv:2505.19641), tasks `skyscraper_puzzle`, `futoshiki`, `calcudoko` and `sudoku`. A cell's candidates are a bit mask
(bit v - 1 stands for the value v), cells are numbered in reading order. What a task adds to the rows and columns (a line's
visible towers, a cage's sum, a sign) is a `Table`: the value combinations that its cells may take together.
"""

import ast
import dataclasses
import functools
import operator
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from data.synlogic import parse

__all__ = [
    "Found",
    "Square",
    "Table",
    "bracketed",
    "damaged",
    "is_latin",
    "last_tuple",
    "literal_grid",
    "peers_of",
    "random_square",
    "read_short",
    "search",
    "short",
    "trail_text",
]

Square = tuple[tuple[int, ...], ...]
Rows = Sequence[tuple[int, ...]]
# What a grid of whole numbers may be written with. Possessive, so that a text that is none costs one pass.
_GRID = re.compile(
    r"(?:[][(),\s]|\\\n|True\b|\+[ \t]*(?=[0-9(])|[0-9](?:[0-9_]{0,20}|[xX][0-9a-fA-F_]{1,20}|[bBoO][0-7_]{1,20})(?!\w)|#[^\n]*)*+"
)
_TUPLE_OPEN, _TUPLE_CLOSE = re.compile(r"\(\s*\(\s*\d+\s*,"), re.compile(r"\)\s*\)")
_SHORT = re.compile(r"[1-9]{1,9}(?:/[1-9]{1,9}){0,8}")


@dataclasses.dataclass(frozen=True)
class Table:
    """The combinations allowed in `cells`, each value as its bit."""

    cells: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Found:
    solutions: tuple[Square, ...]
    trail: tuple[tuple[int, int], ...]  # (cell, value) in the order in which the first solution was filled
    placements: int  # values tried, the forced ones included


def random_square(rng: random.Random, n: int) -> Square:
    """A random Latin square, row by row: a partial one with full rows can always be continued, so no row is undone."""
    free = [(1 << n) - 1] * n  # the values that each column still lacks
    rows = []
    for _ in range(n):
        row = _random_row(rng, free, 0, [])
        free = [left ^ (1 << (value - 1)) for left, value in zip(free, row, strict=True)]
        rows.append(tuple(row))
    return tuple(rows)


def _random_row(rng: random.Random, free: Sequence[int], used: int, row: list[int]) -> list[int]:
    if len(row) == len(free):
        return row
    left = free[len(row)] & ~used
    values = [value for value in range(1, len(free) + 1) if left >> (value - 1) & 1]
    rng.shuffle(values)
    for value in values:
        full = _random_row(rng, free, used | 1 << (value - 1), [*row, value])
        if full:
            return full
    return []


def is_latin(rows: Sequence[Sequence[int]], n: int) -> bool:
    """Whether rows and columns are permutations of 1..n."""
    whole = set(range(1, n + 1))
    if len(rows) != n or any(len(row) != n or set(row) != whole for row in rows):
        return False
    return all(set(column) == whole for column in zip(*rows, strict=True))


@functools.lru_cache(maxsize=32)
def peers_of(n: int, box: int = 0) -> tuple[tuple[int, ...], ...]:
    """For each cell, the cells that must differ: its row, its column and, with `box`, its box of that side."""

    def apart(a: int, b: int) -> bool:
        (i, j), (k, m) = divmod(a, n), divmod(b, n)
        return a != b and (i == k or j == m or bool(box and i // box == k // box and j // box == m // box))

    return tuple(tuple(b for b in range(n * n) if apart(a, b)) for a in range(n * n))


def search(n: int, domains: Sequence[int], tables: Sequence[Table] = (), *, limit: int = 2, box: int = 0) -> Found:
    """At most `limit` solutions. Always fills the cell with the fewest candidates, the first one among equals.

    A cell that has one candidate from the start is a clue: it is not counted as a placement.
    """
    peers = peers_of(n, box)
    at: list[list[int]] = [[] for _ in domains]  # the tables of each cell
    for k, table in enumerate(tables):
        for cell in table.cells:
            at[cell].append(k)
    cells = [table.cells for table in tables]
    state = list(domains)
    clues = [cell for cell, mask in enumerate(state) if mask.bit_count() == 1]
    solutions: list[Square] = []
    trails: list[tuple[tuple[int, int], ...]] = []
    placements = 0

    def branch(state: list[int], left: list[Rows], unfilled: list[int], trail: tuple[tuple[int, int], ...]) -> None:
        nonlocal placements
        if not unfilled:
            values = [mask.bit_length() for mask in state]
            solutions.append(tuple(tuple(values[i : i + n]) for i in range(0, n * n, n)))
            trails.append(trail)
            return
        best, fewest = unfilled[0], n + 1
        for cell in unfilled:
            count = state[cell].bit_count()
            if count < fewest:
                best, fewest = cell, count
                if count == 1:
                    break
        rest = [cell for cell in unfilled if cell != best]
        mask = state[best]
        while mask and len(solutions) < limit:
            bit = mask & -mask
            mask ^= bit
            placements += 1
            after, fewer = state.copy(), left.copy()
            if _place(after, best, bit, peers[best]) and all(_narrow(after, cells[k], fewer, k) for k in at[best]):
                branch(after, fewer, rest, (*trail, (best, bit.bit_length())))

    consistent = all(_place(state, cell, state[cell], peers[cell]) for cell in clues)
    left: list[Rows] = [table.rows for table in tables]
    if consistent and all(_narrow(state, cells[k], left, k) for k in range(len(tables))):
        given = set(clues)
        branch(state, left, [cell for cell in range(n * n) if cell not in given], ())
    return Found(tuple(solutions), trails[0] if trails else (), placements)


def _place(state: list[int], cell: int, bit: int, peers: Sequence[int]) -> bool:
    if not bit:  # a clue whose only candidate another clue has taken
        return False
    state[cell] = bit
    for peer in peers:
        if state[peer] & bit:
            state[peer] ^= bit
            if not state[peer]:
                return False
    return True


def _narrow(state: list[int], cells: Sequence[int], left: list[Rows], k: int) -> bool:
    """Keeps the combinations of table `k` that the candidates allow, and the candidates that one of these supports."""
    masks = [state[cell] for cell in cells]
    kept = [row for row in left[k] if all(map(operator.and_, masks, row))]
    if not kept:
        return False
    left[k] = kept
    for cell, column in zip(cells, zip(*kept, strict=True), strict=True):
        state[cell] = functools.reduce(operator.or_, column)
    return True


def short(square: Square) -> str:
    """The compact form of an answer, `123/231/312`."""
    return "/".join("".join(map(str, row)) for row in square)


def read_short(text: str) -> Square | None:
    """The rows of `123/231/312`; None for anything else."""
    text = text.strip()
    if len(text) > 90 or _SHORT.fullmatch(text) is None:
        return None
    return tuple(tuple(map(int, row)) for row in text.split("/"))


def literal_grid(text: str) -> Any:
    """The Python value of nested lists and tuples of whole numbers (True is one), comments allowed.

    Raises:
        LiteralError: anything else.
    """
    if parse.too_long(text) or parse.too_many_values(text) or _GRID.fullmatch(text) is None:
        raise parse.LiteralError("no grid of whole numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `[1](2)`, which is refused right after
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise parse.LiteralError(str(error)) from error


def last_tuple(text: str) -> str:
    """The last of the `((1,...))` that follow one another, or ""; each half is looked for once, so the scan is linear."""
    found, pos = "", 0
    while (start := _TUPLE_OPEN.search(text, pos)) and (end := _TUPLE_CLOSE.search(text, start.end())):
        found, pos = text[start.start() : end.end()], end.end()
    return found


def bracketed(square: Square) -> str:
    """The answer form of `futoshiki` and `calcudoko`, `[[1 2,2 1]]`."""
    return "[[" + ",".join(" ".join(map(str, row)) for row in square) + "]]"


def trail_text(n: int, trail: Sequence[tuple[int, int]]) -> str:
    """The cells in the order of filling, row and column from 1: `12=3` is a 3 in row 1, column 2."""
    return " ".join(f"{cell // n + 1}{cell % n + 1}={value}" for cell, value in trail)


def damaged(rng: random.Random, square: Square) -> Iterator[Square]:
    """Squares that look like `square`: two rows, two columns, two values or two cells swapped, one cell changed. Never ends."""
    n = len(square)
    while True:
        a, b = rng.sample(range(n), 2) if n > 1 else (0, 0)
        rows = [list(row) for row in square]
        kind = rng.randrange(5)
        if kind == 0:
            rows[a], rows[b] = rows[b], rows[a]
        elif kind == 1:
            rows = [[row[{a: b, b: a}.get(j, j)] for j in range(n)] for row in rows]
        elif kind == 2:
            rows = [[{a + 1: b + 1, b + 1: a + 1}.get(value, value) for value in row] for row in rows]
        elif kind == 3:
            i = rng.randrange(n)
            rows[i][a], rows[i][b] = rows[i][b], rows[i][a]
        else:
            rows[a][b] = rows[a][b] % n + 1
        yield tuple(tuple(row) for row in rows)
