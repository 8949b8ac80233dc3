"""The seven bugs of `buggy_tables` (SynLogic, arXiv:2505.19641): how each damages a table, and how it is undone.

A table is a list of rows of texts; None is an empty cell. Rows and columns are counted from 0, the header is not counted.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["BUGS", "FLAT_ONLY", "Row", "damage", "describe", "flat", "markdown", "repair"]

BUGS = ("error", "merge_rows", "rotate_columns", "rotate_rows", "add_end_row", "add_end_column", "null")
FLAT_ONLY = ("add_end_row", "add_end_column", "null")  # such tables are no rectangles: they are written as one list
_MERGED = " && "

Row = list[str | None]

_TOLD = {
    "error": "The program that wrote it replaced some cells by ERROR. The lost values, column by column from left to right and "
    "from top to bottom within a column, are: {affected}.",
    "merge_rows": 'The program that wrote it joined rows in pairs: a cell holds the values of two successive rows with " && " '
    "between them. (With an odd number of rows the last row stays as it was.)",
    "rotate_columns": "The program that wrote it moved the values of each column down, those of column i (the first column is "
    "column 0) by i places; what falls off the bottom of a column comes back at its top. The header is right.",
    "rotate_rows": "The program that wrote it moved the values of each row to the right, those of row i (the first row below the "
    "header is row 0) by i places; what falls off at the end of a row comes back at its start. The header is right.",
    "add_end_row": "The program that wrote it appended made-up values to the rows: i values after the end of row i, where the "
    "first row below the header is row 0.",
    "add_end_column": "The program that wrote it appended made-up values to the columns: j values below the last cell of column j, "
    "where the first column is column 0. The list goes on row by row with these values; cells that do not exist are left out.",
    "null": "The program that wrote it left out empty cells. They are at these places (row, column), where the first row below the "
    "header is row 0 and the first column is column 0: {affected}.",
}


def damage(
    rng: random.Random, bug: str, rows: Sequence[Sequence[str]], rate: float, made_up: Callable[[int], str]
) -> tuple[list[Row], list[Any]]:
    """The damaged rows, and what the question has to tell: the lost values (error) or the places of empty cells (null)."""
    n, m = len(rows), len(rows[0])
    cells: list[Row] = [list(row) for row in rows]
    if bug in ("error", "null"):
        hit = sorted(rng.sample(range(n * m), max(1, int(n * m * rate))), key=lambda place: (place % m, place // m))
        for place in hit:
            cells[place // m][place % m] = "ERROR" if bug == "error" else None
        if bug == "error":
            return cells, [rows[place // m][place % m] for place in hit]
        return cells, [[place // m, place % m] for place in sorted(hit)]
    if bug == "merge_rows":
        pairs = itertools.zip_longest(rows[::2], rows[1::2], fillvalue=None)
        return [
            list(a) if b is None else [_MERGED.join(two) for two in zip(a, b, strict=True)] for a, b in pairs if a
        ], []
    if bug == "rotate_columns":
        return [[rows[(i - j) % n][j] for j in range(m)] for i in range(n)], []
    if bug == "rotate_rows":
        return [[rows[i][(j - i) % m] for j in range(m)] for i in range(n)], []
    if bug == "add_end_row":
        return [[*row, *(str(rng.randint(0, 99)) for _ in range(i))] for i, row in enumerate(cells)], []
    return [*cells, *([made_up(j) if j > i else None for j in range(m)] for i in range(m - 1))], []


def describe(bug: str, affected: Sequence[Any]) -> str:
    listed = ", ".join(f"({place[0]}, {place[1]})" if bug == "null" else str(place) for place in affected)
    return _TOLD[bug].format(affected=listed)


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def flat(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """One list, the header first; cells that are empty or do not exist are left out."""
    return f"[{', '.join([*columns, *(cell for row in rows for cell in row if cell is not None)])}]"


def repair(text: str, bug: str, n: int, m: int, affected: Sequence[Any]) -> list[Row]:
    """The rows before the bug, from the written table alone; the empty cells of `null` stay empty."""
    if text.startswith("|"):
        lines: list[Row] = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    else:
        lines = _lines(text[1:-1].split(", ")[m:], bug, n, m, affected)
    if bug == "error":
        lost = iter(affected)
        for j, i in itertools.product(range(m), range(n)):
            if lines[i][j] == "ERROR":
                lines[i][j] = next(lost)
        return lines
    if bug == "merge_rows":
        halves = [[(cell or "").split(_MERGED) for cell in line] for line in lines]
        return [[cell[half] for cell in line] for line in halves for half in range(len(line[0]))]
    if bug == "rotate_columns":
        return [[lines[(i + j) % n][j] for j in range(m)] for i in range(n)]
    if bug == "rotate_rows":
        return [[line[(j + i) % m] for j in range(m)] for i, line in enumerate(lines)]
    return lines


def _lines(values: Sequence[str], bug: str, n: int, m: int, affected: Sequence[Any]) -> list[Row]:
    """The rows of a flat list."""
    left = iter(values)
    if bug == "null":
        empty = {(i, j) for i, j in affected}
        return [[None if (i, j) in empty else next(left) for j in range(m)] for i in range(n)]
    lines: list[Row] = []
    for i in range((n + 1) // 2 if bug == "merge_rows" else n):
        lines.append(list(itertools.islice(left, m)))
        if bug == "add_end_row":
            list(itertools.islice(left, i))  # the made-up values of this row
    return lines
