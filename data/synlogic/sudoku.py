"""Sudoku, 9 x 9 (SynLogic, arXiv:2505.19641, task `sudoku`).

Compact form: `sudoku ` and the 81 cells in reading order, X for a hidden one, with the short answer of the hidden digits alone in
the same order. The official answer is a tuple of nine rows in a ```python block. Official: the last such block (tuples or lists),
else the last bare `((1,...))` of the text; True counts as 1. Strict wants whole numbers, and accepts the short form as well (its
one widening). The official difficulties 1 to 4 keep 70-80, 55-70, 40-55 and 25-40 clues; cells are hidden one by one in a random
order while the solution stays the only one, which is what `unique` asks for.
"""

import dataclasses
import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, latin, parse
from framework.sample import Sample

__all__ = ["Sudoku", "SudokuParams"]

_FORMAT = (
    "Finish with the solved grid in a ```python block, as a tuple of nine rows that are tuples of nine digits: "
    "((1, 2, 3, 4, 5, 6, 7, 8, 9), (4, 5, ...), ...)."
)
_ENGLISH = (
    "Sudoku: replace each X by a digit from 1 to 9 so that all nine digits occur once in every row, once in every column and once "
    "in each of the nine 3 x 3 boxes.\n{0}\n" + _FORMAT,
    "The nine lines below are the rows of a sudoku, X is an empty cell. In the solution no digit from 1 to 9 may repeat in a row, "
    "a column or a 3 x 3 box, and the printed digits stay.\n{0}\n" + _FORMAT,
    "Complete this 9 x 9 grid. Its rows, its columns and its nine 3 x 3 blocks must each contain 1, 2, 3, 4, 5, 6, 7, 8 and 9. "
    "Cells to fill are marked X.\n{0}\n" + _FORMAT,
)
_BOX = 3
_SIDE = 9
_ALL = (1 << _SIDE) - 1
_CELLS = range(_SIDE * _SIDE)

Cells = list[int]  # 81 digits, 0 for an empty cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuParams(base.Params):
    clues: tuple[int, int]  # drawn from this range, both ends included; more are left where fewer are not unique
    unique: bool = True


LEVELS: Mapping[str, SudokuParams] = {
    "tiny": SudokuParams(clues=(74, 78)),
    "easy": SudokuParams(clues=(55, 70)),
    "normal": SudokuParams(clues=(40, 55)),
    "hard": SudokuParams(clues=(25, 32)),
}


@dataclasses.dataclass(frozen=True)
class Sudoku:
    name: str = "sudoku"
    measure: str = "placements of the oracle (digits tried until the first solution)"
    json_answer: bool = False
    levels: Mapping[str, SudokuParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: SudokuParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            full = _random_grid(rng)
            puzzle = _dig(rng, full, rng.randint(*params.clues), params.unique)
            text = "".join(str(value or "X") for value in puzzle)
            board = "\n".join(text[i : i + _SIDE] for i in range(0, len(text), _SIDE))
            return base.Draft(
                compact=f"sudoku {text}",
                english=tuple(wording.format(board) for wording in _ENGLISH),
                answer=str(_rows(full)),
                meta={
                    "original_sudoku": [[value or "X" for value in row] for row in _rows(puzzle)],
                    "unique_solution": params.unique,
                },
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _found(sample)[0])

    def worked(self, sample: Sample) -> str:
        """The digits in the order in which the search finds them, `12=3` for a 3 in row 1, column 2."""
        cells, trail, _ = _found(sample)
        return latin.trail_text(_SIDE, [(cell, cells[cell]) for cell in trail])

    def perturb(self, sample: Sample, seed: int) -> str:
        """A hidden digit changed, or two of them swapped."""
        rng = base.rng_for(self.name, "perturb", seed)
        right = _found(sample)[0]
        hidden = [cell for cell, value in enumerate(_puzzle(sample)) if not value] or list(_CELLS)

        def candidates() -> Iterator[str]:
            for _ in range(20):
                wrong = list(right)
                a, b = rng.choice(hidden), rng.choice(hidden)
                wrong[a], wrong[b] = wrong[b], wrong[a]
                yield _in_form(sample, wrong)
            wrong = list(right)
            a = rng.choice(hidden)
            wrong[a] = wrong[a] % _SIDE + 1
            yield _in_form(sample, wrong)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        puzzle = _puzzle(sample)
        if len(puzzle) != len(_CELLS):
            return False
        text = answer.strip()
        if mode == "strict" and text.isdecimal() and text.isascii():
            if len(text) != puzzle.count(0):
                return False
            digits = map(int, text)
            cells = [value or next(digits) for value in puzzle]
        else:
            cells = _read(text, bools=mode == "official")
        if cells is None or any(value not in (0, cell) for value, cell in zip(puzzle, cells, strict=True)):
            return False
        whole = set(range(1, _SIDE + 1))
        return all({cells[cell] for cell in unit} == whole for unit in _units())

    def difficulty(self, sample: Sample) -> float:
        return float(_found(sample)[2])

    def show(self, sample: Sample, solved: bool = False) -> str:
        rows = _rows(_found(sample)[0] if solved else _puzzle(sample))
        boxes = [[(i // _BOX, j // _BOX) for j in range(_SIDE)] for i in range(_SIDE)]
        return boards.block(boards.draw([[value or "." for value in row] for row in rows], regions=boxes))


def _read(text: str, *, bools: bool) -> Cells | None:
    """The 81 numbers of the answer, or None."""
    block = parse.last_python_block(text)
    try:
        grid = latin.literal_grid(latin.last_tuple(text) if block is None else block)
    except parse.LiteralError:
        return None
    if not isinstance(grid, (tuple, list)) or len(grid) != _SIDE:
        return None
    if any(not isinstance(row, (tuple, list)) or len(row) != _SIDE for row in grid):
        return None
    cells: list[Any] = [value for row in grid for value in row]
    if any(not isinstance(value, int) or (isinstance(value, bool) and not bools) for value in cells):
        return None
    return cells


def _puzzle(sample: Sample) -> Cells:
    """The clues; published records write a hidden cell as "X", "x" or 0."""
    return [0 if value in (0, "X", "x") else int(value) for row in sample.meta["original_sudoku"] for value in row]


def _rows(cells: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(cells[i : i + _SIDE]) for i in range(0, len(cells), _SIDE))


@functools.lru_cache(maxsize=1)
def _units() -> tuple[tuple[int, ...], ...]:
    """The cells of the rows, the columns and the boxes."""
    rows = [tuple(range(i, i + _SIDE)) for i in range(0, len(_CELLS), _SIDE)]
    columns = [tuple(range(j, len(_CELLS), _SIDE)) for j in range(_SIDE)]
    corners = [i * _SIDE + j for i in range(0, _SIDE, _BOX) for j in range(0, _SIDE, _BOX)]
    boxes = [tuple(corner + i * _SIDE + j for i in range(_BOX) for j in range(_BOX)) for corner in corners]
    return (*rows, *columns, *boxes)


@functools.lru_cache(maxsize=1)
def _places() -> tuple[tuple[int, int, int], ...]:
    """Row, column and box of each cell, as indices into one list of 27 masks."""
    places = [divmod(cell, _SIDE) for cell in _CELLS]
    return tuple((i, _SIDE + j, 2 * _SIDE + i // _BOX * _BOX + j // _BOX) for i, j in places)


def _masks(cells: Sequence[int]) -> list[int] | None:
    """The digits used in each unit, as bits; None where one occurs twice."""
    used = [0] * (3 * _SIDE)
    for value, units in zip(cells, _places(), strict=True):
        for unit in units if value else ():
            bit = 1 << (value - 1)
            if used[unit] & bit:
                return None
            used[unit] |= bit
    return used


def _complete(
    cells: Cells, *, rng: random.Random | None = None, banned: tuple[int, int] = (-1, 0)
) -> tuple[Cells, list[int], int] | None:
    """(solution, cells in the order of filling, digits tried), or None. Fills the cell with the fewest candidates first.

    With `rng` digits are tried in random order; `banned` is (cell, mask of digits it must not get).
    """
    used = _masks(cells)
    if used is None:
        return None
    cells, places = list(cells), _places()
    trail: list[int] = []
    tried = 0

    def fill(empty: list[int]) -> bool:
        nonlocal tried
        if not empty:
            return True
        best, candidates, fewest = -1, 0, _SIDE + 1
        for cell in empty:
            a, b, c = places[cell]
            free = _ALL & ~(used[a] | used[b] | used[c])
            if cell == banned[0]:
                free &= ~banned[1]
            count = free.bit_count()
            if count < fewest:
                best, candidates, fewest = cell, free, count
                if count <= 1:
                    break
        values = [value for value in range(1, _SIDE + 1) if candidates >> (value - 1) & 1]
        if rng is not None:
            rng.shuffle(values)
        rest = [cell for cell in empty if cell != best]
        trail.append(best)
        for value in values:
            tried += 1
            cells[best] = value
            for unit in places[best]:
                used[unit] |= 1 << (value - 1)
            if fill(rest):
                return True
            for unit in places[best]:
                used[unit] &= ~(1 << (value - 1))
        cells[best] = 0
        trail.pop()
        return False

    return (cells, trail, tried) if fill([cell for cell, value in enumerate(cells) if not value]) else None


def _random_grid(rng: random.Random) -> Cells:
    """The three boxes of the diagonal at random, the rest by a search that tries the digits in random order."""
    cells = [0] * len(_CELLS)
    for box in (18, 22, 26):
        for cell, value in zip(_units()[box], rng.sample(range(1, _SIDE + 1), _SIDE), strict=True):
            cells[cell] = value
    found = _complete(cells, rng=rng)
    if found is None:
        raise AssertionError("three boxes of the diagonal can always be completed")
    return found[0]


def _dig(rng: random.Random, full: Cells, clues: int, unique: bool) -> Cells:
    """Hides cells in a random order, one pass, until `clues` are left; with `unique` only those that stay forced."""
    cells = list(full)
    order = list(_CELLS)
    rng.shuffle(order)
    left = len(order)
    for cell in order:
        if left <= clues:
            break
        value, cells[cell] = cells[cell], 0
        if unique and not _forced(cells, cell, value):
            cells[cell] = value
        else:
            left -= 1
    return cells


def _forced(cells: Cells, cell: int, value: int) -> bool:
    """Whether no solution has another digit than `value` in `cell`: the quick ways to see it first."""
    used, places = _masks(cells), _places()
    if used is None:
        return False

    def free(other: int) -> int:
        a, b, c = places[other]
        return _ALL & ~(used[a] | used[b] | used[c])

    bit = 1 << (value - 1)
    if free(cell) == bit:
        return True
    for unit in places[cell]:
        if not any(other != cell and not cells[other] and free(other) & bit for other in _units()[unit]):
            return True
    return _complete(cells, banned=(cell, bit)) is None


def _found(sample: Sample) -> tuple[Cells, list[int], int]:
    """The first solution: it follows from the question alone."""
    found = _complete(_puzzle(sample))
    if found is None:
        raise ValueError(f"sudoku: no grid has the clues {sample.meta['original_sudoku']}")
    return found


def _in_form(sample: Sample, cells: Cells) -> str:
    if sample.meta.get("form") == "compact":
        puzzle = _puzzle(sample)
        return "".join(str(value) for clue, value in zip(puzzle, cells, strict=True) if not clue)
    return f"```python\n{_rows(cells)}\n```"
