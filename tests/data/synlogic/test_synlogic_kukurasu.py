"""Claims of kukurasu: form by form verdicts against a naive checker; published records; the sizes of the published sweep."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.kukurasu import Kukurasu
from framework.sample import Sample

TASK = Kukurasu()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=6)


def is_grid(value):
    rows = isinstance(value, list) and value and all(isinstance(row, list) and row for row in value)
    return bool(rows) and all(cell in ("X", "1") for row in value for cell in row)


def first_grid(text):
    """The first JSON list of rows of "X" and "1" in the text, tried from every bracket."""
    for at, char in enumerate(text):
        if char == "[":
            try:
                value, _ = json.JSONDecoder().raw_decode(text[at:])
            except ValueError:
                continue
            if is_grid(value):
                return value
    return None


def naive(sample, text, mode):
    grid = first_grid(text)
    if grid is None and mode == "strict":
        grid = [list(row) for row in text.strip().split("/")]
    rows, columns = sample.meta["row_sums"], sample.meta["col_sums"]
    if not is_grid(grid) or len(grid) != len(rows) or {len(row) for row in grid} != {len(columns)}:
        return False
    marked = [(i, j) for i in range(len(rows)) for j in range(len(columns)) if grid[i][j] == "1"]
    got_rows = [sum(j + 1 for i, j in marked if i == row) for row in range(len(rows))]
    got_columns = [sum(i + 1 for i, j in marked if j == column) for column in range(len(columns))]
    return (got_rows, got_columns) == (rows, columns)


def changed(grid, i, j, value):
    return [[value if (r, c) == (i, j) else cell for c, cell in enumerate(row)] for r, row in enumerate(grid)]


EDITS = {
    "right": lambda g, i, j: g,
    "a cell changed": lambda g, i, j: changed(g, i, j, "X" if g[i][j] == "1" else "1"),
    "a cell of another symbol": lambda g, i, j: changed(g, i, j, "0"),
    "a cell without a symbol": lambda g, i, j: changed(g, i, j, ""),
    "a number in a cell": lambda g, i, j: changed(g, i, j, 1),
    "a cell too few": lambda g, i, j: [row[: j if r == i else None] for r, row in enumerate(g)],
    "a cell too many": lambda g, i, j: [[*row, "X"] if r == i else row for r, row in enumerate(g)],
    "rows swapped": lambda g, i, j: [g[-1], *g[1:-1], g[0]],
    "columns swapped": lambda g, i, j: [[row[-1], *row[1:-1], row[0]] for row in g],
    "a row dropped": lambda g, i, j: g[:i] + g[i + 1 :],
    "a row repeated": lambda g, i, j: [*g, g[i]],
    "transposed": lambda g, i, j: [list(column) for column in zip(*g, strict=True)],
    "a column dropped": lambda g, i, j: [row[:-1] for row in g],
    "all marked": lambda g, i, j: [["1"] * len(row) for row in g],
    "none marked": lambda g, i, j: [["X"] * len(row) for row in g],
    "inverted": lambda g, i, j: [["X" if cell == "1" else "1" for cell in row] for row in g],
    "lower case": lambda g, i, j: [[cell.lower() for cell in row] for row in g],
    "one list": lambda g, i, j: [cell for row in g for cell in row],
}
WRITERS = {
    "json": json.dumps,
    "indented": lambda grid: json.dumps(grid, indent=2),
    "python": str,
    "short": lambda grid: "/".join("".join(map(str, row)) for row in grid),
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 20),
    st.sampled_from(LEVELS[:3]),
    st.sampled_from([*EDITS]),
    st.sampled_from([*WRITERS]),
    st.sampled_from([*FORMS]),
    st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_every_form_of_right_and_wrong_grids_is_judged_as_by_a_naive_checker(seed, level, edit, writer, form, cell):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    grid = json.loads(TASK.solve(sample))
    text = FORMS[form](WRITERS[writer](EDITS[edit](grid, cell[0] % len(grid), cell[1] % len(grid[0]))))
    for mode in ("strict", "official"):
        assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


PUBLISHED = {
    "trace_id": "x",
    "grid": [["X", "X"], ["X", "X"]],
    "row_sums": [2, 1],
    "col_sums": [2, 1],
    "solution": [["X", "1"], ["1", "X"]],
    "n": 2,
    "m": 2,
    "ones_probability": 0.3,
}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [  # runs of the official verifier
        ('[ [ "X" , "1" ],\t["1","X"] ]', True),
        ('[["X",\xa0"1"],["1","X"]]', False),  # white space for its regular expression, not for JSON
        ('[[["X","1"],["1","X"]]]', True),
        ('[["X","1"],["1","X"],]', False),
        ('{"answer": [["X","1"],["1","X"]]}', True),
        ('[["X","1"],["1","X"]] or [["1","1"],["1","X"]]', True),
        ('[["x","1"],["1","x"]]', False),
    ],
)
def test_verdict_on_a_published_record(text, verdict):
    sample = Sample(task=TASK.name, question="", meta=PUBLISHED)
    assert all(TASK.verify(sample, text, mode) is verdict for mode in ("strict", "official"))
    assert TASK.verify(sample, TASK.solve(sample), "official")


def test_a_marked_cell_counts_its_column_for_its_row_and_its_row_for_its_column():
    grids = [["".join(cells[:2]), "".join(cells[2:])] for cells in itertools.product("X1", repeat=4)]
    sample = Sample(task=TASK.name, question="", meta=PUBLISHED)
    assert [grid for grid in grids if TASK.verify(sample, "/".join(grid))] == [["X1", "1X"]]


def test_the_normal_level_has_the_shares_of_the_published_sweep():
    sides = [TASK.generate(seed, TASK.levels["normal"]).meta["n"] for seed in range(150)]
    shares = [sides.count(n) / len(sides) for n in (3, 4, 5, 6)]
    # 2:4:5:5 asked; three standard errors of 150 draws are 0.12.
    assert all(abs(share - asked / 16) < 0.12 for share, asked in zip(shares, (2, 4, 5, 5), strict=True)), shares
