"""Norinori: shade dominoes so that every region has exactly two shaded cells (SynLogic, arXiv:2505.19641, task `norinori`).

Dominoes may cross borders of regions but do not share an edge with each other; X cells belong to no region and must be shaded.
Compact form: `nori AAB/ABB/CCC` with the short answer `11h,23v`: row, column and direction (h to the right, v downwards) of
every domino's first cell. The official answer is `[[(r1,c1),(r2,c2)],...]`, 1-based; every such pair anywhere in the text counts,
and if there is none, pairs without the square brackets do. The official verifier does not notice a region without any shaded
cell, so an answer may leave out dominoes, or have none; strict wants two shaded cells in every region and accepts the short form
as well (its one widening).

Official regions can fall apart. Here dominoes are placed at random, some of their cells become X, and the regions grow from the
others, so that they are connected and a solution exists.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse, regions
from framework.sample import Sample

__all__ = ["Norinori", "NorinoriParams"]

_PAIR = re.compile(r"\[\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)\]")
_BARE_PAIR = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_SHORT = re.compile(r"[1-9]{2}[hv](?:, ?[1-9]{2}[hv]){0,40}")
_MAX_DIGITS = 4_300  # Python's `int` refuses longer texts, and so does the official verifier
_MAX_NODES = 3_000  # of one search; a harder draw is thrown away
_RULES = (
    "Shade dominoes (two cells that share an edge) so that every lettered region has exactly two shaded cells. A domino may cross "
    "the border between regions. Different dominoes may touch at corners only, never along an edge. A cell marked X belongs to no "
    "region and must be shaded."
)
_FORMAT = (
    "Answer with the list of all dominoes, each as the coordinates of its two cells (row, column), counted from 1 at the top "
    "left, in this form: [[(1,1), (1,2)], [(3,2), (4,2)]]"
)
_ENGLISH = (
    "Norinori on {0} x {0} cells.\n" + _RULES + "\n{1}\n" + _FORMAT,
    "Here is a map of {0} rows and {0} columns; equal letters form a region:\n{1}\n" + _RULES + "\n" + _FORMAT,
    "Solve this region puzzle. " + _RULES + "\nThe {0} by {0} grid:\n{1}\n" + _FORMAT,
)

Grid = Sequence[Sequence[str]]
Domino = tuple[regions.Cell, regions.Cell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NorinoriParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn
    regions: tuple[int, int]  # how many, at least and at most
    shadow_ratio: float = 0.1  # X cells per cell, rounded down to an even count


LEVELS: Mapping[str, NorinoriParams] = {
    "tiny": NorinoriParams(sizes=(3, 4), regions=(2, 3), shadow_ratio=0.13),
    "easy": NorinoriParams(sizes=(5,), regions=(3, 5)),
    "normal": NorinoriParams(sizes=(6,), regions=(6, 8), shadow_ratio=0.06),
    "hard": NorinoriParams(sizes=(8,), regions=(11, 14), shadow_ratio=0.05),
}


@dataclasses.dataclass(frozen=True)
class Norinori:
    name: str = "norinori"
    measure: str = "search nodes of the oracle (dominoes placed until all solutions are known, or two)"
    json_answer: bool = False
    levels: Mapping[str, NorinoriParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: NorinoriParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, count = rng.choice(params.sizes), rng.randint(*params.regions)
            shadows = int(n * n * params.shadow_ratio) // 2 * 2
            shaded = [cell for domino in _random_dominoes(rng, n, count + shadows // 2) for cell in domino]
            if len(shaded) < 2 * count + shadows:
                return None
            rng.shuffle(shaded)
            owner = regions.grow(rng, n, n, shaded[shadows:], without=shaded[:shadows])
            joined = regions.join(rng, owner, 2)
            if joined is None or sum(number < 0 for row in joined for number in row) != shadows:
                return None  # a cell without any region would look like an X
            grid = regions.letter_grid(joined)
            found, nodes = _search(grid, 2)
            if not found or nodes > _MAX_NODES:
                return None
            rows = ["".join(row) for row in grid]
            return base.Draft(
                compact=f"nori {'/'.join(rows)}",
                english=tuple(text.format(n, "\n".join(rows)) for text in _ENGLISH),
                answer="",
                meta={"region_grid": grid, "n": n, "region_nums": count},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The shaded cells of each region, then of X: `A11,12 B23,33`."""
        grid = sample.meta["region_grid"]
        shaded: dict[str, list[str]] = {}
        for i, j in sorted(cell for domino in _solution(sample) for cell in domino):
            shaded.setdefault(grid[i][j], []).append(f"{i + 1}{j + 1}")
        return " ".join(letter + ",".join(shaded[letter]) for letter in sorted(shaded))

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        dominoes, n = _solution(sample), len(sample.meta["region_grid"])

        def candidates() -> Iterator[str]:
            spots = list(range(len(dominoes)))
            rng.shuffle(spots)
            for spot in spots:
                rest = [*dominoes[:spot], *dominoes[spot + 1 :]]
                cell = rng.choice(dominoes[spot])
                for near in regions.beside(cell, n, n):
                    if near not in dominoes[spot]:  # the domino is turned
                        yield _in_form(sample, sorted([*rest, (min(cell, near), max(cell, near))]))
                if rest:
                    yield _in_form(sample, rest)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        grid = sample.meta["region_grid"]
        strict = mode == "strict"
        if strict and _SHORT.fullmatch(answer.strip()):
            dominoes = _from_short(answer.strip())
        else:
            found = _PAIR.findall(answer) or _BARE_PAIR.findall(answer)
            if any(len(text) > _MAX_DIGITS for pair in found for text in pair):
                return False
            dominoes = [((int(a) - 1, int(b) - 1), (int(c) - 1, int(d) - 1)) for a, b, c, d in found]
        return _right(dominoes, grid, strict)

    def difficulty(self, sample: Sample) -> float:
        return float(_search(sample.meta["region_grid"], 2)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        grid = sample.meta["region_grid"]
        shaded = dict.fromkeys(cell for domino in _solution(sample) for cell in domino) if solved else {}
        cells = [["■" if (i, j) in shaded else letter for j, letter in enumerate(row)] for i, row in enumerate(grid)]
        return boards.block(boards.draw(cells, regions=grid))


def _right(dominoes: Sequence[Domino], grid: Grid, strict: bool) -> bool:
    n = len(grid)
    shaded: dict[regions.Cell, int] = {}
    for at, domino in enumerate(dominoes):
        (a, b), (c, d) = domino
        if abs(a - c) + abs(b - d) != 1:
            return False
        for i, j in domino:
            if not (0 <= i < n and 0 <= j < n) or (i, j) in shaded:
                return False
            shaded[i, j] = at
    if any(shaded.get(near, at) != at for cell, at in shaded.items() for near in regions.beside(cell, n, n)):
        return False
    counts = {letter: 0 for row in grid for letter in row if letter != "X"}
    for i, j in shaded:
        if grid[i][j] != "X":
            counts[grid[i][j]] += 1
    if any(letter == "X" and (i, j) not in shaded for i, row in enumerate(grid) for j, letter in enumerate(row)):
        return False
    return all(count == 2 or (count == 0 and not strict) for count in counts.values())


def _random_dominoes(rng: random.Random, n: int, count: int) -> list[Domino]:
    """Up to `count` dominoes at random places, none along an edge of another."""
    dominoes = _all_dominoes(n)
    rng.shuffle(dominoes)
    chosen: list[Domino] = []
    closed: set[regions.Cell] = set()  # only looked up
    for domino in dominoes:
        if len(chosen) < count and not any(cell in closed for cell in domino):
            chosen.append(domino)
            closed.update(domino)
            closed.update(near for cell in domino for near in regions.beside(cell, n, n))
    return chosen


def _all_dominoes(n: int) -> list[Domino]:
    cells = [(i, j) for i in range(n) for j in range(n)]
    return [(cell, near) for cell in cells for near in regions.beside(cell, n, n) if cell < near]


def _search(grid: Grid, limit: int, max_nodes: int = _MAX_NODES) -> tuple[list[list[Domino]], int]:
    """(up to `limit` solutions, nodes): always the X cell or region with the fewest dominoes left for it comes next."""
    n = len(grid)
    dominoes = _all_dominoes(n)
    # A need is a region, or one X cell; `adds` says how many cells of which needs a domino shades.
    names = sorted({letter for row in grid for letter in row if letter != "X"})
    wants = dict.fromkeys(names, 2) | {f"X{i},{j}": 1 for i in range(n) for j in range(n) if grid[i][j] == "X"}
    adds: list[dict[str, int]] = [{} for _ in dominoes]
    clash: list[int] = []  # bit mask of the dominoes that a domino excludes, itself included
    at_cell: dict[regions.Cell, int] = {}
    for at, domino in enumerate(dominoes):
        for i, j in domino:
            need = grid[i][j] if grid[i][j] != "X" else f"X{i},{j}"
            adds[at][need] = adds[at].get(need, 0) + 1
            at_cell[i, j] = at_cell.get((i, j), 0) | 1 << at
    for domino in dominoes:
        cells = dict.fromkeys([*domino, *(near for cell in domino for near in regions.beside(cell, n, n))])
        clash.append(0)
        for cell in cells:
            clash[-1] |= at_cell[cell]
    one = {need: sum(1 << at for at, add in enumerate(adds) if add.get(need) == 1) for need in wants}
    two = {need: sum(1 << at for at, add in enumerate(adds) if add.get(need) == 2) for need in wants}
    found: list[list[Domino]] = []
    nodes = 0

    def fill(chosen: list[int], missing: dict[str, int], free: int) -> None:
        nonlocal nodes
        nodes += 1
        if nodes > max_nodes:
            return
        if not missing:
            found.append(sorted(dominoes[at] for at in chosen))
            return
        best = min((free & (one[need] | two[need]) for need in missing), key=int.bit_count)
        while best and len(found) < limit and nodes <= max_nodes:
            at = (best & -best).bit_length() - 1
            best ^= 1 << at
            free &= ~(1 << at)  # solutions with this domino become known now
            after, still = dict(missing), free & ~clash[at]
            for need, count in adds[at].items():
                after[need] -= count
                if after[need] == 1:
                    still &= ~two[need]
                else:
                    del after[need]
                    still &= ~(one[need] | two[need])
            fill([*chosen, at], after, still)

    fill([], wants, (1 << len(dominoes)) - 1)
    return found, nodes


def _solution(sample: Sample) -> list[Domino]:
    found, nodes = _search(sample.meta["region_grid"], 1, max_nodes=100_000)
    if not found:
        reason = "has no solution" if nodes <= 100_000 else "is too hard for the oracle's search"
        raise ValueError(f"norinori: the grid {sample.meta['region_grid']} {reason}")
    return found[0]


def _from_short(text: str) -> list[Domino]:
    parts = text.replace(" ", "").split(",")
    cells = [(int(part[0]) - 1, int(part[1]) - 1, part[2] == "h") for part in parts]
    return [((i, j), (i, j + 1) if across else (i + 1, j)) for i, j, across in cells]


def _in_form(sample: Sample, dominoes: Sequence[Domino]) -> str:
    if sample.meta.get("form") == "compact":
        return ",".join(f"{a + 1}{b + 1}{'h' if a == c else 'v'}" for (a, b), (c, _) in dominoes)
    return "[" + ", ".join(f"[({a + 1},{b + 1}), ({c + 1},{d + 1})]" for (a, b), (c, d) in dominoes) + "]"
