"""Arrow maze: fill a grid with arrows that numbers emit as rays (SynLogic, arXiv:2505.19641, task `arrow_maze`).

A number's ray in a direction is the run of arrows of exactly that direction which begins beside it; the lengths of its eight rays
add up to the number, and every arrow belongs to a ray. Compact form: `arrow 2..x/..1.` with the short answer `2ddx/wq1a`, arrows
as the keys around S on a keyboard (q w e / a d / z x c for up-left, up, up-right / left, right / down-left, down, down-right).
The official answer is a list of rows of texts in a code block; of the last ```python block, the last plain block, the last
one-line block and the last bare list, the first that is a list of lists counts. Its verifier lets an answer fill an empty cell
with a number of its own ("0", where the rays of the given ones still add up); strict wants arrows there, and accepts the short
form as well (its one widening).
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.arrow_maze_rays import ARROWS, Grid, random_maze, ray_length, search
from framework.sample import Sample

__all__ = ["ArrowMaze", "ArrowMazeParams"]

_KEYS = dict(zip(ARROWS, "wxadqecz", strict=True))
_FROM_KEYS = {key: arrow for arrow, key in _KEYS.items()}
_SHORT = re.compile(r"[1-9wxadqecz]{1,20}(?:/[1-9wxadqecz]{1,20}){0,19}")
# (opening, closing) of the official patterns for code blocks; between them stand a "[" and a later "]".
_BLOCKS = ((re.compile(r"```python\s*\n"), "\n```"), (re.compile(r"```\s*\n"), "\n```"), (re.compile("```"), "```"))
_OPEN, _CLOSE = re.compile(r"\[\s*\["), re.compile(r"\]\s*\]")
_MAX_GRID = 8_000  # characters of a grid; an honest one of 12 x 12 cells has about 2,000, and four may be parsed
_MAX_NODES = 400  # of one search while generating; a harder draw is thrown away
_MAX_SOLVE = 20_000
_RULES = (
    "Put one arrow into every X cell: ↑ ↓ ← → ↖ ↗ ↘ or ↙. A number sends out rays in the eight directions: the ray in a direction "
    "is the unbroken run of arrows pointing in exactly that direction, starting at the cell beside the number. The lengths of "
    "all rays of a number must add up to the number, and every arrow must be part of some number's ray. Given arrows and numbers "
    "stay."
)
_FORMAT = (
    "End with the complete grid in a ```python block that holds only a list of rows of quoted texts, like this:\n"
    '```python\n[["1", "→"], ["←", "1"]]\n```'
)
_ENGLISH = (
    "Fill in this arrow maze of {0} rows and {1} columns:\n{2}\n" + _RULES + "\n" + _FORMAT,
    "An arrow maze, {0} x {1}. " + _RULES + "\n{2}\n" + _FORMAT,
    "Find the missing arrows. " + _RULES + " The {0} x {1} grid is:\n{2}\n" + _FORMAT,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrowMazeParams(base.Params):
    sizes: tuple[tuple[int, int], ...]  # one is drawn: (rows, columns)
    fill: tuple[float, float]  # share of the arrows that is given, at least and at most; rounded to one decimal


LEVELS: Mapping[str, ArrowMazeParams] = {
    "tiny": ArrowMazeParams(sizes=((3, 3), (3, 4)), fill=(0.3, 0.6)),
    "easy": ArrowMazeParams(sizes=((5, 5),), fill=(0.5, 0.9)),
    "normal": ArrowMazeParams(sizes=((5, 5),), fill=(0.3, 0.9)),
    "hard": ArrowMazeParams(sizes=((8, 8),), fill=(0.0, 0.0)),
}


@dataclasses.dataclass(frozen=True)
class ArrowMaze:
    name: str = "arrow_maze"
    measure: str = "empty cells"
    json_answer: bool = False
    levels: Mapping[str, ArrowMazeParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: ArrowMazeParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, m = rng.choice(params.sizes)
            full = random_maze(rng, n, m)
            if full is None:
                return None
            arrows = [(i, j) for i in range(n) for j in range(m) if full[i][j] in ARROWS]
            rate = round(rng.uniform(*params.fill), 1)
            hidden = rng.sample(arrows, len(arrows) - int(len(arrows) * rate))
            maze = [list(row) for row in full]
            for i, j in hidden:
                maze[i][j] = "X"
            found, _ = search(maze, _MAX_NODES)
            if not hidden or found is None:
                return None
            return base.Draft(
                compact="arrow " + "/".join("".join(_KEYS.get(c, c).replace("X", ".") for c in row) for row in maze),
                english=tuple(text.format(n, m, "\n".join(" ".join(row) for row in maze)) for text in _ENGLISH),
                answer=json.dumps(found),
                meta={"maze": maze, "height": n, "width": m, "arrow_fill_rate": rate},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The rays of every number, row and column first: `11 d2x1` is two to the right and one down."""
        grid = _solution(sample)
        parts = []
        for i, row in enumerate(grid):
            for j, cell in enumerate(row):
                if cell.isdigit():
                    rays = ((_KEYS[arrow], ray_length(grid, i, j, arrow)) for arrow in ARROWS)
                    parts.append(f"{i + 1}{j + 1} " + "".join(f"{key}{length}" for key, length in rays if length))
        return ",".join(parts)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        grid, maze = _solution(sample), sample.meta["maze"]
        changes = [
            (i, j, arrow)
            for i, row in enumerate(maze)
            for j, cell in enumerate(row)
            for arrow in ARROWS
            if cell == "X" and grid[i][j] != arrow
        ]
        rng.shuffle(changes)

        def candidates() -> Iterator[str]:
            for i, j, arrow in changes:
                changed = [list(row) for row in grid]
                changed[i][j] = arrow
                yield _in_form(sample, changed)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        strict = mode == "strict"
        if strict and _SHORT.fullmatch(answer.strip()):
            grid: Any = [[_FROM_KEYS.get(cell, cell) for cell in row] for row in answer.strip().split("/")]
        else:
            grid = _last_grid(answer)
        if grid is None or not all(isinstance(cell, str) for row in grid for cell in row):
            return False
        return _right(grid, sample.meta["maze"], strict)

    def difficulty(self, sample: Sample) -> float:
        return float(sum(row.count("X") for row in sample.meta["maze"]))

    def show(self, sample: Sample, solved: bool = False) -> str:
        grid = _solution(sample) if solved else sample.meta["maze"]
        return boards.block(boards.draw([["" if cell == "X" else cell for cell in row] for row in grid]))


def _last_grid(text: str) -> list[list[Any]] | None:
    for opening, closing in _BLOCKS:
        grid = _list_of_lists(_last_block(text, opening, closing))
        if grid is not None:
            return grid
    found, at = "", 0
    while opened := _OPEN.search(text, at):
        closed = _CLOSE.search(text, opened.end())
        if closed is None:
            break
        at = closed.end()
        found = text[opened.start() : at]
    return _list_of_lists(found)


def _last_block(text: str, opening: re.Pattern[str], closing: str) -> str:
    """The last block with a "[" and a "]" in it, "" if there is none; blocks are read from left to right."""
    found, at = "", 0
    while opened := opening.search(text, at):
        left = text.find("[", opened.end())
        right = text.find("]", left) if left >= 0 else -1
        end = text.find(closing, right) if right >= 0 else -1
        if end < 0:
            break
        found, at = text[opened.end() : end], end + len(closing)
    return found


def _list_of_lists(text: str) -> list[list[Any]] | None:
    if not text or len(text) > _MAX_GRID:
        return None
    try:
        value = parse.literal(text)
        json.dumps(value)  # the official verifier passes it on as JSON: a set ends here
    except (parse.LiteralError, TypeError):
        return None
    return value if isinstance(value, list) and all(isinstance(row, list) for row in value) else None


def _right(grid: Sequence[Sequence[str]], maze: Sequence[Sequence[str]], strict: bool) -> bool:
    if [len(row) for row in grid] != [len(row) for row in maze]:
        return False
    arrows = rays = 0
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            given = maze[i][j]
            if cell != given if given != "X" else cell == "X" or (strict and cell not in ARROWS):
                return False
            if cell in ARROWS:
                arrows += 1
            elif not cell.isdigit():
                return False
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if cell.isdigit():
                length = sum(ray_length(grid, i, j, arrow) for arrow in ARROWS)
                # `isdigit` takes digits that `int` refuses, such as a superscript two.
                if not cell.isdecimal() or len(cell) > 4_000 or int(cell) != length:
                    return False
                rays += length
    # An arrow is in one ray at most, the one of the first cell behind it that is no such arrow.
    return rays == arrows


def _solution(sample: Sample) -> Grid:
    grid, nodes = search(sample.meta["maze"], _MAX_SOLVE)
    if grid is None:
        reason = "has no solution" if nodes <= _MAX_SOLVE else "is too hard for the oracle's search"
        raise ValueError(f"arrow_maze: the maze {sample.meta['maze']} {reason}")
    return grid


def _in_form(sample: Sample, grid: Sequence[Sequence[str]]) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join("".join(_KEYS.get(cell, cell) for cell in row) for row in grid)
    return "```python\n" + json.dumps(grid, ensure_ascii=False) + "\n```"
