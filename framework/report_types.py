"""What an experiment hands to the report: sections with figures and tables."""

import dataclasses
from collections.abc import Sequence

import plotly.graph_objects as go

__all__ = ["Cell", "Section", "Table", "cell_text"]

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. Text is shown as it stands, numbers with four digits, None as a dash.

    `align` holds one letter a column, "l" or "r"; without it the first column is left-aligned and the others right-aligned.
    A cell that equals the label of an arm gets the arm's colour in front.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    align: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {i} has {len(row)} cells but the table has {len(self.columns)} columns: {row}")
        if self.align and (len(self.align) != len(self.columns) or set(self.align) - set("lr")):
            raise ValueError(f"align={self.align!r} needs one letter l or r for each of {len(self.columns)} columns.")

    @property
    def alignment(self) -> str:
        """One letter a column."""
        return self.align or "l" + "r" * (len(self.columns) - 1)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: heading, paragraphs (blank line between them), figures side by side, table, small print."""

    title: str
    text: str = ""
    figures: Sequence[go.Figure] = ()
    table: Table | None = None
    note: str = ""


def cell_text(cell: Cell) -> str:
    """How a cell is printed."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell)
