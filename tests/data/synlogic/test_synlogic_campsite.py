"""Campsite: verdicts by hand, systematic changes judged by rules restated here, and what the generator promises."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.campsite import Campsite, CampsiteParams
from framework.sample import Sample

TASK = Campsite()
TWO = {"grid": [["T", "X"], ["X", "X"]], "row_constraints": [1, 0], "col_constraints": [0, 1], "n": 2, "m": 2}
TALL = {
    "grid": [["T", "X"], ["X", "X"], ["X", "X"]],
    "row_constraints": [1, 0, 0],
    "col_constraints": [0, 1],
    "n": 3,
    "m": 2,
}
# The tent in the middle stands beside two trees, the other tree needs the tent below: a pairing exists all the same.
SHARED = {
    "grid": [["T", "X", "T"], ["X", "X", "X"], ["X", "X", "X"]],
    "row_constraints": [1, 1, 0],
    "col_constraints": [0, 1, 1],
    "n": 3,
    "m": 3,
}
PAIR = {
    "grid": [["T", "X", "T", "X"], ["X", "X", "X", "X"]],
    "row_constraints": [2, 0],
    "col_constraints": [0, 1, 0, 1],
    "n": 2,
    "m": 4,
}
APART = {
    "grid": [["T", "X", "X", "X"], ["T", "X", "X", "X"]],
    "row_constraints": [1, 1],
    "col_constraints": [0, 1, 0, 1],
    "n": 2,
    "m": 4,
}
CASES = [
    # meta, answer, official, strict
    (TWO, "[['T','C'],['X','X']]", True, True),  # card, section 37
    (TWO, "[['T','X'],['C','X']]", False, False),  # card, section 37
    (TWO, '[["T","C"],["X","X"]]', True, True),
    (TWO, "so:\n```python\n[ ['T', 'C'],\n ['X', 'X'] ]\n```", True, True),
    (TWO, "[['T','C'],['X','X']] and not [['T','X'],['C','X']]", True, True),  # the first list counts
    (TWO, "not [['T','X'],['C','X']] but [['T','C'],['X','X']]", False, False),
    (TWO, "[['T','C'],['.','.']]", True, False),  # other symbols in empty cells
    (TWO, "[['T','C'],[0,None]]", True, False),
    (TALL, "[['T','C'],'XX',['X','X']]", True, False),  # a text is a row as well
    (TALL, "[['T','C'],('X','X'),['X','X']]", True, False),
    (TALL, "[['T','C'],{0:'X',1:'X'},['X','X']]", True, False),
    (TALL, "[['T','C'],{'X','Y'},['X','X']]", False, False),
    (TWO, "[['T','C'],('X','X')]", False, False),  # no `]]` at the end
    (TWO, "TC/XX", False, True),  # the widening of strict
    (TWO, " TC/XX\n", False, True),
    (TWO, "TC/XX/", False, False),
    (TWO, "TX/CX", False, False),
    (TWO, "[[T,C],[X,X]]", False, False),
    (TWO, "[['t','c'],['x','x']]", False, False),
    (TWO, "[['T','C']]", False, False),
    (TWO, "[['T','C'],['X','X'],['X','X']]", False, False),
    (TWO, "[['T','C'],['X']]", False, False),
    (TWO, "(('T','C'),('X','X'))", False, False),
    (TWO, "[['C','C'],['X','X']]", False, False),  # the tree is gone
    (TWO, "[['T','C'],['X','T']]", False, False),  # a tree more
    (TWO, "[['T','C'],['X','X']", False, False),
    (TWO, "[['T',['C']],['X','X']]", False, False),
    (TWO, "[[],[]]", False, False),
    (TWO, "[['T','C'],['X','X']] " + " " * 20_000, False, False),  # too long to be an answer
    (SHARED, "[['T','C','T'],['X','X','C'],['X','X','X']]", False, False),  # two tents touch
    (PAIR, "TCTC/XXXX", False, True),  # the first tent stands between two trees
    (PAIR, "[['T','C','T','C'],['X','X','X','X']]", True, True),
    (APART, "[['T','C','X','X'],['T','X','X','C']]", False, False),  # counts right, one tent without a tree
]


@pytest.mark.parametrize(("meta", "answer", "official", "strict"), CASES)
def test_verdicts(meta: dict, answer: str, official: bool, strict: bool):
    sample = Sample(task="campsite", question="", meta=meta)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 30)


def right(meta: dict, grid: list) -> bool:
    """The rules read naively: all pairings are tried."""
    n, m = meta["n"], meta["m"]
    if len(grid) != n or any(len(row) != m for row in grid):
        return False
    cells = list(itertools.product(range(n), range(m)))
    trees = [(i, j) for i, j in cells if meta["grid"][i][j] == "T"]
    tents = [(i, j) for i, j in cells if grid[i][j] == "C"]
    if trees != [(i, j) for i, j in cells if grid[i][j] == "T"] or len(trees) != len(tents):
        return False
    counts = [sum((i, j) in tents for j in range(m)) for i in range(n)]
    if counts != meta["row_constraints"]:
        return False
    if [sum((i, j) in tents for i in range(n)) for j in range(m)] != meta["col_constraints"]:
        return False
    if any(max(abs(a - c), abs(b - d)) == 1 for a, b in tents for c, d in tents):
        return False
    return any(
        all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in zip(trees, order, strict=True))
        for order in itertools.permutations(tents)
    )


def swapped(grid: list, i: int, j: int) -> list:
    cells = [cell for row in grid for cell in row]
    a, b = i % len(cells), j % len(cells)
    cells[a], cells[b] = cells[b], cells[a]
    width = len(grid[0])
    return [cells[k : k + width] for k in range(0, len(cells), width)]


def with_cell(grid: list, i: int, j: int, symbol: str) -> list:
    new = [list(row) for row in grid]
    new[i % len(new)][j % len(new[0])] = symbol
    return new


# Changes of the grid, judged by `right`.
GRIDS: dict[str, Callable[[list, int, int], list]] = {
    "itself": lambda g, i, j: g,
    "two cells swapped": swapped,
    "a tent more": lambda g, i, j: with_cell(g, i, j, "C"),
    "a tree more": lambda g, i, j: with_cell(g, i, j, "T"),
    "an empty cell": lambda g, i, j: with_cell(g, i, j, "X"),
    "a row dropped": lambda g, i, j: g[: i % len(g)] + g[i % len(g) + 1 :],
    "a row twice": lambda g, i, j: [*g, g[i % len(g)]],
    "rows swapped": lambda g, i, j: [g[1], g[0], *g[2:]],
    "a column dropped": lambda g, i, j: [row[:-1] for row in g],
    "a column twice": lambda g, i, j: [[*row, row[-1]] for row in g],
    "transposed": lambda g, i, j: [list(column) for column in zip(*g, strict=True)],
    "upside down": lambda g, i, j: g[::-1],
    "mirrored": lambda g, i, j: [row[::-1] for row in g],
    "no tents": lambda g, i, j: [["T" if c == "T" else "X" for c in row] for row in g],
    "tents and trees exchanged": lambda g, i, j: [[{"T": "C", "C": "T"}.get(c, c) for c in row] for row in g],
    "shifted": lambda g, i, j: [[row[-1], *row[:-1]] for row in g],
}
# Ways to write it: (text, accepted by official if right, by strict if right).
TEXTS: dict[str, tuple[Callable[[list], str], bool, bool]] = {
    "list": (str, True, True),
    "double quotes": (lambda g: str(g).replace("'", '"'), True, True),
    "no spaces": (lambda g: str(g).replace(" ", ""), True, True),
    "lines": (lambda g: "[" + ",\n".join(map(str, g)) + "]", True, True),
    "fenced": (lambda g: f"```python\n{g}\n```", True, True),
    "prose": (lambda g: f"The camp is {g}, as asked.", True, True),
    "short": (lambda g: "/".join(map("".join, g)), False, True),
    "no quotes": (lambda g: str(g).replace("'", ""), False, False),
    "small letters": (lambda g: str(g).lower(), False, False),
    "numbers": (lambda g: str(g).replace("'X'", "0"), True, False),
    "dots": (lambda g: str(g).replace("X", "."), True, False),
    "tuple of rows": (lambda g: str(tuple(g)), False, False),
    "unclosed": (lambda g: str(g)[:-1], False, False),
    "first a wrong one": (lambda g: f"[['X']] no, {g}", False, False),
    "empty": (lambda g: "", False, False),
    "rows of text": (lambda g: "\n".join(" ".join(row) for row in g), False, False),
}


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 300),
    level=st.sampled_from(("tiny", "easy")),
    change=st.sampled_from(sorted(GRIDS)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 24),
    j=st.integers(0, 24),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, level: str, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels[level], "compact")
    grid = GRIDS[change]([list(row) for row in TASK.solve(sample).split("/")], i, j)
    write, official, strict = TEXTS[text]
    good = right(dict(sample.meta), grid)
    if text in ("numbers", "dots") and not any("X" in row for row in grid):
        strict = True
    assert TASK.verify(sample, write(grid), "official") is (good and official)
    assert TASK.verify(sample, write(grid), "strict") is (good and strict)


@pytest.mark.parametrize("seed", range(12))
def test_tiny_puzzles_have_one_solution_by_brute_force(seed: int):
    sample = TASK.generate(seed, CampsiteParams(sizes=((3, 3), (3, 4)), unique=True))
    free = [(i, j) for i, row in enumerate(sample.meta["grid"]) for j, cell in enumerate(row) if cell == "X"]
    count = 0
    for tents in itertools.combinations(free, sum(sample.meta["row_constraints"])):
        grid = [["C" if (i, j) in tents else c for j, c in enumerate(row)] for i, row in enumerate(sample.meta["grid"])]
        count += right(dict(sample.meta), grid)
    assert count == 1


def test_trees_are_as_dense_as_asked_and_the_grids_differ():
    for level in LEVELS:
        params = TASK.levels[level]
        samples = [TASK.generate(seed, params) for seed in range(30)]
        assert len({sample.question for sample in samples}) >= 18
        for sample in samples:
            n, m = sample.meta["n"], sample.meta["m"]
            assert sum(row.count("T") for row in sample.meta["grid"]) == max(1, int(n * m * params.density))


def test_a_published_record_is_solved_from_its_metadata():
    record = {**PAIR, "solution": None, "tree_density": 0.2, "trace_id": "x"}
    sample = Sample(task="campsite", question="", meta=record)
    assert TASK.verify(sample, TASK.solve(sample), "official")
    assert "C" in TASK.show(sample, solved=True)
    with pytest.raises(ValueError, match="no placement"):
        TASK.solve(Sample(task="campsite", question="", meta={**TWO, "row_constraints": [0, 1]}))
