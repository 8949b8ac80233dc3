"""Star battle: k stars in every row, column and region, none touching (SynLogic, arXiv:2505.19641, `star_placement_puzzle`).

Compact form: `stars 1 AABB/AABB/CCDD/CCDD` (k, then the rows of region letters) with the short answer `2/4/1/3`: the columns of
the stars row by row (`1,3/5,7/...` for k = 2). The official answer is a dictionary from region to 1-based (row, column) pairs
inside the first ```python block; its verifier ignores the keys, merges duplicates and takes True for 1. Strict wants each star
once, as whole numbers, under the letter of its own region, and accepts the short form as well (its one widening).

The official generator has one placement per size for k = 1, none at all for n = 6 and 8, and two touching stars at n = 4. Here a
placement is drawn by random backtracking (it exists for k = 1 from n = 4, for k = 2 from n = 8), single-star regions grow from
it, and neighbours are joined to regions of k stars: all regions are connected.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse, regions
from framework.sample import Sample

__all__ = ["StarPlacementParams", "StarPlacementPuzzle"]

# Linear forms of "```python, line break, anything, line break, ```" and of "name = {...}".
_OPEN = re.compile(r"```python\s*\n")
_CLOSE = re.compile(r"\S[^\S\n]*\n\s*```")
_BRACES = re.compile(r"\{[^{}]*\}")
_ASSIGNED = re.compile(r"\w\s*=\s*(\{[^{}]*\})")
_SHORT = re.compile(r"[0-9]{1,2}(?:[,/][0-9]{1,2}){0,80}")
_MAX_NODES = 4_000  # of one search; a harder draw is thrown away
_FORMAT = (
    "Write the answer into a ```python block that holds nothing but a dictionary from each letter to the list of its stars, every "
    "star as (row, column) counted from 1 at the top left, for example:\n```python\n{{'A': [(1, 2)], 'B': [(2, 4)]}}\n```"
)
_RULES = "Every row, column and lettered region must hold exactly {1} star(s), and no two stars may touch, not even at a corner."
_ENGLISH = (
    "Place stars on a grid of {0} rows and {0} columns. " + _RULES + "\nThe regions:\n{2}\n" + _FORMAT,
    "Star battle, {0} x {0}. The letters below show which region a cell belongs to.\n{2}\n" + _RULES + "\n" + _FORMAT,
    "The {0} by {0} map is divided into regions of equal letters:\n{2}\nFind out where the stars are. "
    + _RULES
    + "\n"
    + _FORMAT,
)

Grid = Sequence[Sequence[str]]
Rows = tuple[tuple[int, ...], ...]  # the columns of the stars of each row, from 0
Pair = tuple[Any, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarPlacementParams(base.Params):
    sizes: tuple[tuple[int, int], ...]  # one is drawn: (n, k)
    unique: bool = False  # only puzzles with one solution


LEVELS: Mapping[str, StarPlacementParams] = {
    "tiny": StarPlacementParams(sizes=((4, 1), (5, 1)), unique=True),
    "easy": StarPlacementParams(sizes=((5, 1), (6, 1))),
    "normal": StarPlacementParams(sizes=((7, 1), (8, 1))),
    "hard": StarPlacementParams(sizes=((8, 2), (9, 2), (10, 2))),
}


@dataclasses.dataclass(frozen=True)
class StarPlacementPuzzle:
    name: str = "star_placement_puzzle"
    measure: str = "search nodes of the oracle (rows filled until all placements are known, or two)"
    json_answer: bool = False
    levels: Mapping[str, StarPlacementParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )

    def generate(self, seed: int, params: StarPlacementParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, k = rng.choice(params.sizes)
            stars = _random_stars(rng, n, k)
            if stars is None:
                return None
            owner = regions.grow(rng, n, n, [(i, j) for i, row in enumerate(stars) for j in row])
            joined = regions.join(rng, owner, k)
            if joined is None:
                return None
            grid = regions.letter_grid(joined)
            found, _, complete = _search(grid, k, 2)
            if not complete or (params.unique and len(found) != 1):
                return None
            rows = ["".join(row) for row in grid]
            return base.Draft(
                compact=f"stars {k} {'/'.join(rows)}",
                english=tuple(text.format(n, k, "\n".join(rows)) for text in _ENGLISH),
                answer=_official(grid, found[0]),
                meta={"n": n, "k": k, "region_grid": grid},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The stars as row, column and region: `12A 24B 31C 43D`."""
        grid = sample.meta["region_grid"]
        return " ".join(
            f"{i + 1}{',' if len(grid) > 9 else ''}{j + 1}{grid[i][j]}"
            for i, row in enumerate(_solution(sample))
            for j in row
        )

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        rows, n = _solution(sample), len(sample.meta["region_grid"])

        def candidates() -> Iterator[str]:
            pairs = list(itertools.combinations(range(n), 2))
            rng.shuffle(pairs)
            for a, b in pairs:  # two rows swapped: rows and columns stay right
                yield _in_form(sample, tuple(rows[{a: b, b: a}.get(i, i)] for i in range(n)))

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        n, k, grid = sample.meta["n"], sample.meta["k"], sample.meta["region_grid"]
        text = answer.strip()
        if mode == "strict" and _SHORT.fullmatch(text):
            stars = [(i, j) for i, row in enumerate(text.split("/"), 1) for j in map(int, row.split(","))]
        else:
            named = _named_stars(answer)
            stars = [pair for _, pairs in named for pair in pairs]
            if mode == "strict" and not _named_right(named, grid, n):
                return False
        if not stars or any(not isinstance(value, int) or not 1 <= value <= n for pair in stars for value in pair):
            return False
        cells = sorted({(int(i) - 1, int(j) - 1) for i, j in stars})
        return (mode == "official" or len(cells) == len(stars)) and _right(cells, grid, n, k)

    def difficulty(self, sample: Sample) -> float:
        return float(_search(sample.meta["region_grid"], sample.meta["k"], 2)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        grid = sample.meta["region_grid"]
        rows = _solution(sample) if solved else ((),) * len(grid)
        cells = [["★" if j in rows[i] else letter for j, letter in enumerate(row)] for i, row in enumerate(grid)]
        return boards.block(boards.draw(cells, regions=grid)) + f"\n\n{sample.meta['k']} per row, column and region."


def _right(cells: Sequence[regions.Cell], grid: Grid, n: int, k: int) -> bool:
    in_row, in_column, in_region = [0] * n, [0] * n, {letter: 0 for row in grid for letter in row}
    marked = set(cells)
    for i, j in cells:
        in_row[i] += 1
        in_column[j] += 1
        in_region[grid[i][j]] += 1
        if any(near in marked for near in regions.around((i, j), n, n)):
            return False
    return all(count == k for count in (*in_row, *in_column, *in_region.values()))


def _named_right(named: Sequence[tuple[Any, list[Pair]]], grid: Grid, n: int) -> bool:
    """Whether all stars are whole numbers on the board, under the letter of their own region."""
    return all(
        type(i) is int and type(j) is int and 1 <= i <= n and 1 <= j <= n and grid[i - 1][j - 1] == letter
        for letter, pairs in named
        for i, j in pairs
    )


def _named_stars(answer: str) -> list[tuple[Any, list[Pair]]]:
    """(key, pairs) of the dictionary in the first python block; [] where the official verifier finds none."""
    block = _first_block(answer)
    first = _BRACES.search(block)
    if first is None:
        return []
    named = _dictionary(first[0])
    if named is None:  # the official verifier looks again, for an assignment
        second = _ASSIGNED.search(block)
        named = _dictionary(second[1]) if second else None
    return named or []


def _first_block(text: str) -> str:
    for opened in _OPEN.finditer(text):
        closed = _CLOSE.search(text, opened.end())
        return text[opened.end() : closed.start() + 1] if closed else ""
    return ""


def _dictionary(text: str) -> list[tuple[Any, list[Pair]]] | None:
    """None: no dictionary of pairs, so a second look is worth it. []: the official verifier gives up for good."""
    try:
        value = parse.literal(text)
    except parse.LiteralError as error:
        return [] if isinstance(error.__cause__, TypeError) else None
    if not isinstance(value, dict):
        return None
    named = []
    for key, coordinates in value.items():
        if not isinstance(coordinates, (list, tuple, str)):
            return []
        pairs = []
        for pair in coordinates:
            if not isinstance(pair, (list, tuple, str)):
                return []
            if len(pair) != 2:
                return None
            if not all(isinstance(part, (int, float)) for part in pair):
                return []
            pairs.append((pair[0], pair[1]))
        named.append((key, pairs))
    return named


def _random_stars(rng: random.Random, n: int, k: int) -> Rows | None:
    """A random placement without regards to regions, by backtracking; None if a try takes too long (the caller redraws)."""
    options = _row_options(n, k)
    left, rows, nodes = [k] * n, [], 0

    def fill() -> bool:
        nonlocal nodes
        nodes += 1
        if len(rows) == n:
            return True
        if nodes > _MAX_NODES or max(left) > n - len(rows):
            return False
        for row in rng.sample(options, len(options)):
            if all(left[j] for j in row) and not (rows and _touch(rows[-1], row)):
                rows.append(row)
                for j in row:
                    left[j] -= 1
                if fill():
                    return True
                for j in rows.pop():
                    left[j] += 1
        return False

    return tuple(rows) if fill() else None


def _row_options(n: int, k: int) -> list[tuple[int, ...]]:
    return [row for row in itertools.combinations(range(n), k) if all(b - a > 1 for a, b in itertools.pairwise(row))]


def _touch(above: Sequence[int], row: Sequence[int]) -> bool:
    return any(abs(a - b) <= 1 for a in above for b in row)


def _search(grid: Grid, k: int, limit: int, max_nodes: int = _MAX_NODES) -> tuple[list[Rows], int, bool]:
    """(up to `limit` solutions, nodes, whether the search ended before `max_nodes`): rows from the top, in a fixed order."""
    n = len(grid)
    options = _row_options(n, k)
    left = [k] * n
    quota = {letter: k for row in grid for letter in row}
    last = {letter: i for i, row in enumerate(grid) for letter in row}  # a region's last row
    ends: list[list[str]] = [[letter for letter in last if last[letter] == i] for i in range(n)]
    rows: list[tuple[int, ...]] = []
    found: list[Rows] = []
    nodes = 0

    def fill() -> None:
        nonlocal nodes
        nodes += 1
        i = len(rows)
        if nodes > max_nodes or (i and any(quota[letter] for letter in ends[i - 1])) or max(left) > n - i:
            return
        if i == n:
            found.append(tuple(rows))
            return
        letters = grid[i]
        for row in options:
            if not all(left[j] for j in row) or (rows and _touch(rows[-1], row)):
                continue
            for j in row:
                left[j] -= 1
                quota[letters[j]] -= 1
            rows.append(row)
            if all(quota[letters[j]] >= 0 for j in row):
                fill()
            rows.pop()
            for j in row:
                left[j] += 1
                quota[letters[j]] += 1
            if len(found) == limit:
                return

    fill()
    return found, nodes, nodes <= max_nodes


def _solution(sample: Sample) -> Rows:
    found, _, complete = _search(sample.meta["region_grid"], sample.meta["k"], 1, max_nodes=200_000)
    if not found:
        reason = "has no solution" if complete else "is too hard for the oracle's search"
        raise ValueError(f"star_placement_puzzle: the grid {sample.meta['region_grid']} {reason}")
    return found[0]


def _official(grid: Grid, rows: Rows) -> str:
    named: dict[str, list[str]] = {}
    for i, row in enumerate(rows):
        for j in row:
            named.setdefault(grid[i][j], []).append(f"({i + 1}, {j + 1})")
    return "```python\n{" + ", ".join(f"'{key}': [{', '.join(named[key])}]" for key in sorted(named)) + "}\n```"


def _in_form(sample: Sample, rows: Rows) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join(",".join(str(j + 1) for j in row) for row in rows)
    return _official(sample.meta["region_grid"], rows)
