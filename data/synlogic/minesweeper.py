"""Minesweeper: list the covered cells that must be mines (SynLogic, arXiv:2505.19641, task `minesweeper`).

The single rule: a number with exactly as many covered neighbours as it says has only mines around it. (The official generator
also counts mines found before; they are covered too, so this changes nothing.) Its defect: mines that follow only from several
numbers together count as wrong, although most of its prompts ask for all certain mines. Ours says the rule in the prompt, and
covers numbers again until no exact reasoning finds a further mine (`closed`; the total number of mines is not told), so that
both readings give one answer. Compact form: `mines XX1/X2X/XXX` with the short answer `0,0 2,1` (row,column from 0).

Official: all lists of pairs in round brackets are united, else lists of pairs in square brackets, else all bracketed pairs,
else any numbers two by two; the set must be `current_mines`. Strict takes the same pairs in brackets in plain digits, or the
short form alone, but no loose numbers out of a sentence.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.minesweeper_logic import cover_until_closed
from framework.sample import Sample

__all__ = ["Minesweeper", "MinesweeperParams"]

_PAIRS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\[\s*\(\s*\d+\s*,\s*\d+\s*\)(?:\s*,\s*\(\s*\d+\s*,\s*\d+\s*\))*\s*\]",
        r"\[\s*\[\s*\d+\s*,\s*\d+\s*\](?:\s*,\s*\[\s*\d+\s*,\s*\d+\s*\])*\s*\]",
        r"\(\s*\d+\s*,\s*\d+\s*\)",
    )
)
_NUMBER = re.compile(r"\d+")
_SHORT = re.compile(r"[0-9]{1,3},[0-9]{1,3}(?: [0-9]{1,3},[0-9]{1,3})*")
_MAX_DIGITS = 4_000  # what int() reads in every setting of the interpreter
_FORMAT = "Answer with a list of (row, column) pairs, both counted from 0, such as [(0, 1), (2, 3)]."
_ENGLISH = (
    "Minesweeper, {0} x {0}. X is a covered cell; a number tells how many of the up to eight cells around it are mines, "
    "and cells with numbers are never mines.\n{1}\nWhich covered cells are certainly mines? Use this rule on every number: when it "
    "has exactly as many covered neighbours as it says, all of them are mines. (No other reasoning finds more.)\n"
    + _FORMAT,
    "Below is a minesweeper board with {0} rows and {0} columns. Numbers count the mines among their neighbours (also diagonal "
    "ones) and are safe themselves; X cells are covered.\n{1}\nList every cell that is proved to be a mine because some number "
    "equals the count of covered cells around it. Nothing else can be proved.\n" + _FORMAT,
    "Find the sure mines. On this {0} x {0} board each digit is the number of mines in the 8 cells that touch it, X marks cells "
    "that are still covered, and a digit's own cell is free.\n{1}\nA digit with as many covered neighbours as its value shows that "
    "all these neighbours are mines; collect the mines that all such digits show (further thought adds none).\n"
    + _FORMAT,
)

Cell = tuple[int, int]
Board = Sequence[Sequence[str]]  # digits and X


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinesweeperParams(base.Params):
    sides: tuple[int, ...]  # one is drawn: the board is square
    density: tuple[float, ...] = (0.2,)  # one is drawn: mines per cell
    reveal: tuple[float, ...] = (0.4,)  # one is drawn: share of the safe cells that show their number at first
    closed: bool = True  # cover numbers again until exact reasoning finds what the rule finds


LEVELS: Mapping[str, MinesweeperParams] = {
    "tiny": MinesweeperParams(sides=(3, 4), density=(0.2, 0.3), reveal=(0.5,)),
    "easy": MinesweeperParams(sides=(8,)),
    "normal": MinesweeperParams(sides=tuple(range(8, 13)), density=(0.3, 0.35, 0.4), reveal=(0.3, 0.35, 0.4)),
    "hard": MinesweeperParams(sides=(14, 15, 16), density=(0.3, 0.35, 0.4), reveal=(0.4,)),
}


@dataclasses.dataclass(frozen=True)
class Minesweeper:
    name: str = "minesweeper"
    measure: str = "numbers on the board (each is compared with its covered neighbours)"
    json_answer: bool = False
    levels: Mapping[str, MinesweeperParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: MinesweeperParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n = rng.choice(params.sides)
            cells = [(i, j) for i in range(n) for j in range(n)]
            mines = sorted(rng.sample(cells, int(n * n * rng.choice(params.density))))
            hidden = set(mines)
            safe = [cell for cell in cells if cell not in hidden]
            shown = rng.sample(safe, max(1, int(len(safe) * rng.choice(params.reveal))))
            board = [["X"] * n for _ in range(n)]
            for i, j in shown:
                board[i][j] = str(sum((a, b) in hidden for a in range(i - 1, i + 2) for b in range(j - 1, j + 2)))
            if params.closed and _proved(board):  # covering a number proves no mine that was not proved before
                cover_until_closed(rng, board, mines)
            found = _proved(board)
            if not found:
                return None
            text = "\n".join(" ".join(row) for row in board)
            return base.Draft(
                compact=f"mines {'/'.join(''.join(row) for row in board)}",
                english=tuple(wording.format(n, text) for wording in _ENGLISH),
                answer="",
                meta={"revealed_grid": board, "current_mines": [list(cell) for cell in found], "n": n},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, list(_proved(sample.meta["revealed_grid"])))

    def worked(self, sample: Sample) -> str:
        """Each number that proves new mines: `1,1=2:0,1 2,2` is the 2 in row 1, column 1 with its two covered neighbours."""
        board = sample.meta["revealed_grid"]
        steps: dict[Cell, list[str]] = {}
        for (i, j), source in _proved(board).items():
            steps.setdefault(source, []).append(f"{i},{j}")
        return " ".join(f"{i},{j}={board[i][j]}:{' '.join(mines)}" for (i, j), mines in steps.items())

    def perturb(self, sample: Sample, seed: int) -> str:
        """One mine missing, or a covered cell too many."""
        rng = base.rng_for(self.name, "perturb", seed)
        board = sample.meta["revealed_grid"]
        found = list(_proved(board))
        others = [
            (i, j) for i, row in enumerate(board) for j, cell in enumerate(row) if cell == "X" and (i, j) not in found
        ]

        def candidates() -> Iterator[str]:
            missing = rng.choice(found)
            fewer = [cell for cell in found if cell != missing]
            extra = [rng.choice(others)] if others else []
            for mines in (
                ([*found, *extra], [*fewer, *extra], fewer) if rng.random() < 0.5 else ([*fewer, *extra], fewer)
            ):
                if mines:
                    yield _in_form(sample, sorted(mines))
            yield _in_form(sample, [(0, len(board))])

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """The named cells are `current_mines`, in any order."""
        if parse.too_long(answer) or re.search(rf"\d{{{_MAX_DIGITS}}}", answer):
            return False
        if mode == "strict" and not all(number.isascii() for number in _NUMBER.findall(answer)):
            return False
        numbers = _bracketed(answer)
        if not numbers and (mode == "official" or _SHORT.fullmatch(answer.strip())):
            numbers = _NUMBER.findall(answer)
        values = [int(number) for number in numbers]
        named = set(zip(values[::2], values[1::2], strict=False))  # a last number without a partner names no cell
        return named == {tuple(mine) for mine in sample.meta["current_mines"]} and (bool(named) or mode == "official")

    def difficulty(self, sample: Sample) -> float:
        return float(sum(cell != "X" for row in sample.meta["revealed_grid"] for cell in row))

    def show(self, sample: Sample, solved: bool = False) -> str:
        board = sample.meta["revealed_grid"]
        found = _proved(board) if solved else {}
        cells = [
            ["*" if (i, j) in found else "" if cell == "X" else cell for j, cell in enumerate(row)]
            for i, row in enumerate(board)
        ]
        sides = [str(i) for i in range(len(board))]
        return boards.block(boards.draw(cells, top=sides, left=sides))


def _bracketed(text: str) -> list[str]:
    """The numbers of all matches of the first pattern that matches at all."""
    for pattern in _PAIRS:
        found = pattern.findall(text)
        if found:
            return [number for match in found for number in _NUMBER.findall(match)]
    return []


def _neighbours(n: int, i: int, j: int) -> list[Cell]:
    around = ((i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if di or dj)
    return [(a, b) for a, b in around if 0 <= a < n and 0 <= b < n]


def _proved(board: Board) -> dict[Cell, Cell]:
    """Each mine that the rule proves, in reading order, with the first number that proves it."""
    found: dict[Cell, Cell] = {}
    for i, row in enumerate(board):
        for j, cell in enumerate(row):
            if cell not in ("X", "0"):
                covered = [(a, b) for a, b in _neighbours(len(board), i, j) if board[a][b] == "X"]
                if len(covered) == int(cell):
                    found.update({mine: (i, j) for mine in covered if mine not in found})
    return dict(sorted(found.items()))


def _in_form(sample: Sample, cells: Sequence[Cell]) -> str:
    if sample.meta.get("form") == "compact":
        return " ".join(f"{i},{j}" for i, j in cells)
    return str(list(cells))
