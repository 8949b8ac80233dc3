"""Exact reasoning on minesweeper boards: which mines are certain, and boards on which one rule finds them all.

Helper of `minesweeper` (SynLogic, arXiv:2505.19641). Sets of cells are bit masks: cell (i, j) of an n x n board is bit i*n+j.
"""

import random
from collections.abc import Sequence

__all__ = ["cover_until_closed", "is_certain"]

Cell = tuple[int, int]
Rule = tuple[int, int]  # (covered cells around a number, how many of them are mines)

_BUDGET = (
    400  # arrangements tried for one cell before it counts as certain: numbers are covered then, which is always right
)


def cover_until_closed(rng: random.Random, board: list[list[str]], mines: Sequence[Cell]) -> None:
    """Cover numbers of `board` until every certain mine stands around a number whose covered neighbours are all mines.

    Covering only takes knowledge away, so a mine that was shown to be uncertain stays so, and the loop ends.
    """
    n = len(board)
    rules = _rules(board)
    truth = sum(1 << (i * n + j) for i, j in mines)
    uncertain = 0
    while True:
        proved = 0
        for mask, count in rules.values():
            if mask.bit_count() == count:
                proved |= mask
        rest = truth & ~(proved | uncertain)
        if not rest:
            return
        cell = rest & -rest
        freed = _freed(list(rules.values()), truth, cell)
        if freed:
            uncertain |= freed
            continue
        i, j = rng.choice([(i, j) for (i, j), (mask, _) in rules.items() if mask & cell])
        board[i][j] = "X"
        del rules[i, j]
        for (a, b), (mask, count) in rules.items():
            if abs(a - i) <= 1 and abs(b - j) <= 1:
                rules[a, b] = mask | 1 << (i * n + j), count


def is_certain(board: Sequence[Sequence[str]], mines: Sequence[Cell], cell: Cell) -> bool:
    """True iff every arrangement of mines that fits the numbers has one at `cell`; `mines` is one arrangement that fits."""
    n = len(board)
    truth = sum(1 << (i * n + j) for i, j in mines)
    return not _freed(list(_rules(board).values()), truth, 1 << (cell[0] * n + cell[1]))


def _rules(board: Sequence[Sequence[str]]) -> dict[Cell, Rule]:
    n = len(board)
    rules: dict[Cell, Rule] = {}
    for i, row in enumerate(board):
        for j, number in enumerate(row):
            if number != "X":
                around = [
                    (a, b) for a in range(max(0, i - 1), min(n, i + 2)) for b in range(max(0, j - 1), min(n, j + 2))
                ]
                rules[i, j] = sum(1 << (a * n + b) for a, b in around if board[a][b] == "X"), int(number)
    return rules


def _freed(rules: Sequence[Rule], truth: int, cell: int) -> int:
    """The mines that are safe in some arrangement that fits all rules and has `cell` safe; 0 when none was found."""
    budget = _BUDGET

    def arrange(mined: int, safe: int, news: int) -> int:
        """The safe cells of an arrangement, or 0. `news`: the cells decided last; rules without them have nothing to say, and
        what no rule decides stays as in the true arrangement."""
        nonlocal budget
        budget -= 1
        while news:
            touched, news = news, 0
            for mask, count in rules:
                if not mask & touched:
                    continue
                open_cells = mask & ~(mined | safe)
                need = count - (mask & mined).bit_count()
                size = open_cells.bit_count()
                if not 0 <= need <= size:
                    return 0
                if open_cells and need in (0, size):
                    news |= open_cells
                    if need:
                        mined |= open_cells
                    else:
                        safe |= open_cells
        arranged = mined | (truth & ~safe)
        for mask, count in rules:
            if (arranged & mask).bit_count() != count:
                open_cells = mask & ~(mined | safe)
                choice = open_cells & -open_cells
                # Too few mines: one of the open cells becomes a mine first; too many: it becomes safe first.
                more = (arranged & mask).bit_count() < count
                for is_mine in (more, not more):
                    found = arrange(mined | choice, safe, choice) if is_mine else arrange(mined, safe | choice, choice)
                    if found or budget <= 0:
                        return found
                return 0
        return safe

    return arrange(0, cell, cell) & truth
