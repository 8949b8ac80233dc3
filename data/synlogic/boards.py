"""Grids drawn with box characters, for people: the docs' gallery and the console.

>>> print(draw([["1", "X"], ["X", "4"]], right=["3", "7"]))
┌───┬───┐
│ 1 │ X │ 3
├───┼───┤
│ X │ 4 │ 7
└───┴───┘
"""

from collections.abc import Sequence

__all__ = ["block", "draw", "table"]

# By the arms of a junction: up 8, down 4, left 2, right 1.
_JUNCTIONS = " ╶╴─╷┌┐┬╵└┘┴│├┤┼"


def draw(
    cells: Sequence[Sequence[object]],
    *,
    regions: Sequence[Sequence[object]] | None = None,
    top: Sequence[object] = (),
    bottom: Sequence[object] = (),
    left: Sequence[object] = (),
    right: Sequence[object] = (),
) -> str:
    """A grid of cells [n][m] as text; `regions` [n][m] leaves out the lines between cells of equal values.

    `top`, `bottom` [m] and `left`, `right` [n] are labels outside of the frame.
    """
    texts = [[str(cell) for cell in row] for row in cells]
    n, m = len(texts), len(texts[0]) if texts else 0
    if any(len(row) != m for row in texts):
        raise ValueError(f"the rows of a board have {sorted({len(row) for row in texts})} cells; they must be equal.")
    labels = [str(label) for label in (*top, *bottom)]
    width = max([len(text) for row in texts for text in row] + [len(label) for label in labels] + [1])
    margin = max((len(str(label)) for label in left), default=0)
    indent = " " * (margin + 1) if left else ""

    def apart(a: tuple[int, int], b: tuple[int, int]) -> bool:
        inside = [0 <= i < n and 0 <= j < m for i, j in (a, b)]
        if not all(inside):
            return any(inside)
        return regions is None or regions[a[0]][a[1]] != regions[b[0]][b[1]]

    def level(i: int) -> str:  # the line above row i
        out = ""
        for j in range(m + 1):
            up, down = apart((i - 1, j - 1), (i - 1, j)), apart((i, j - 1), (i, j))
            back, ahead = apart((i - 1, j - 1), (i, j - 1)), apart((i - 1, j), (i, j))
            out += _JUNCTIONS[8 * up + 4 * down + 2 * back + ahead]
            out += ("─" if ahead else " ") * (width + 2) if j < m else ""
        return indent + out

    def row(i: int) -> str:
        head = f"{left[i]!s:>{margin}} " if left else ""
        body = "".join(("│" if apart((i, j - 1), (i, j)) else " ") + f" {texts[i][j]:^{width}} " for j in range(m))
        return head + body + "│" + (f" {right[i]}" if right else "")

    def outside(items: Sequence[object]) -> list[str]:
        return [indent + "".join(f"  {item!s:^{width}} " for item in items)] if items else []

    lines = outside(top)
    for i in range(n):
        lines += [level(i), row(i)]
    lines += [level(n), *outside(bottom)]
    return "\n".join(line.rstrip() for line in lines)


def block(text: str) -> str:
    """`text` as a Markdown code block."""
    return f"```text\n{text}\n```"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
