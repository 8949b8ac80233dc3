"""Minesweeper: verdicts by hand, systematic changes judged by rules restated here, and what the generator promises."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.minesweeper import Minesweeper, MinesweeperParams
from data.synlogic.minesweeper_logic import is_certain
from framework.sample import Sample

TASK = Minesweeper()
TWO = Sample(task="minesweeper", question="", meta={"current_mines": [[0, 1], [2, 2]]})
CASES = [
    # answer, official, strict; the first three are in section 37 of the card
    ("[(2,2),(0,1)]", True, True),
    ("(0,1) and (2,2)", True, True),
    ("[(0,1)]", False, False),
    ("[(0, 1), (2, 2)]", True, True),
    ("[[0, 1], [2, 2]]", True, True),
    ("[( 0 ,1 ) ,\n(2, 2)]", True, True),
    ("```python\n[(0, 1), (2, 2)]\n```", True, True),
    ("[(0, 1), (2, 2), (0, 1)]", True, True),
    ("[(0, 1)] and [(2, 2)]", True, True),  # all lists are united
    ("such as [(3, 3)], so [(0, 1), (2, 2)]", False, False),
    ("[[3, 3]] is the format, so [(0, 1), (2, 2)]", True, True),  # lists of round pairs come first
    ("(3, 3) is safe, so [(0, 1), (2, 2)]", True, True),
    ("(3, 3) is safe, so [[0, 1], [2, 2]]", True, True),
    ("((0, 1), (2, 2))", True, True),
    ("{(0, 1), (2, 2)}", True, True),
    ("[(00, 01), (2, 2)]", True, True),
    ("0,1 2,2", True, True),  # the short form
    (" 0,1 2,2\n", True, True),
    ("[0, 1], [2, 2]", True, False),  # loose numbers, two by two
    ("row 0, column 1; row 2, column 2", True, False),
    ("0 1 2 2 9", True, False),
    ("0122", False, False),
    ("[(0.5, 1), (2, 2)]", False, False),
    ("[(-0, 1), (2, 2)]", False, False),
    ("[('0', '1'), ('2', '2')]", True, False),
    ("[(1, 0), (2, 2)]", False, False),
    ("[(1, 2), (3, 3)]", False, False),  # counted from 1
    ("[(0, 1), (2, 2)", True, True),  # not a list, two pairs all the same
    ("[(０, 1), (2, 2)]", True, False),  # digits of other scripts
    ("[]", False, False),
    ("", False, False),
    ("no mines", False, False),
    ("[(0, 1), (2, 2)]" + " " * 20_000, False, False),  # too long to be an answer
    ("[(0, 1), (2, " + "2" * 5_000 + ")]", False, False),
]


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdicts(answer: str, official: bool, strict: bool):
    assert TASK.verify(TWO, answer, "official") is official
    assert TASK.verify(TWO, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 6)


def around(n: int, i: int, j: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(n) for b in range(n) if max(abs(a - i), abs(b - j)) == 1]


def right(board: list[list[str]], named: list[tuple[int, int]]) -> bool:
    """The rule read naively, cell by cell."""
    n = len(board)
    sure = []
    for i, j in itertools.product(range(n), repeat=2):
        if board[i][j] == "X":
            for a, b in around(n, i, j):
                number = board[a][b]
                if number != "X" and sum(board[c][d] == "X" for c, d in around(n, a, b)) == int(number):
                    sure.append((i, j))
                    break
    return sorted(set(named)) == sure


Cells = list[tuple[int, int]]
CHANGES: dict[str, Callable[[Cells, int, int], Cells]] = {
    "itself": lambda c, i, j: c,
    "one missing": lambda c, i, j: c[: i % len(c)] + c[i % len(c) + 1 :],
    "one more": lambda c, i, j: [*c, (i, j)],
    "one twice": lambda c, i, j: [*c, c[i % len(c)]],
    "reversed": lambda c, i, j: c[::-1],
    "row and column exchanged": lambda c, i, j: [(b, a) for a, b in c],
    "counted from 1": lambda c, i, j: [(a + 1, b + 1) for a, b in c],
    "one moved": lambda c, i, j: [(c[0][0], c[0][1] + 1), *c[1:]],
    "one other": lambda c, i, j: [(i, j), *c[1:]],
    "only one": lambda c, i, j: c[:1],
    "a row lower": lambda c, i, j: [(a + 1, b) for a, b in c],
    "out of the board": lambda c, i, j: [*c, (i + 50, j)],
}
# Ways to write it: (text, does official read these cells, does strict).
TEXTS: dict[str, tuple[Callable[[Cells], str], bool, bool]] = {
    "list of tuples": (str, True, True),
    "list of lists": (lambda c: str([list(cell) for cell in c]), True, True),
    "tuple of tuples": (lambda c: str(tuple(c)), True, True),
    "no spaces": (lambda c: str(c).replace(" ", ""), True, True),
    "lines": (lambda c: str(c).replace("), ", "),\n "), True, True),
    "fence": (lambda c: f"```python\n{c}\n```", True, True),
    "sentence": (lambda c: "The mines are " + " and ".join(map(str, c)) + ".", True, True),
    "short": (lambda c: " ".join(f"{a},{b}" for a, b in c), True, True),
    "words": (lambda c: "; ".join(f"row {a} column {b}" for a, b in c), True, False),
    "texts": (lambda c: str([(str(a), str(b)) for a, b in c]), True, False),
    "json objects": (lambda c: str([{"row": a, "column": b} for a, b in c]), True, False),
    "no separators": (lambda c: "".join(f"{a}{b}" for a, b in c), False, False),
    "example first": (lambda c: f"As in [(90, 91)]: {c}", False, False),
    "example last": (lambda c: f"{c}, not [(90, 91)]", False, False),
    "decimals": (lambda c: str([(float(a), float(b)) for a, b in c]), False, False),
    "empty": (lambda c: "", False, False),
}


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 200),
    level=st.sampled_from(("tiny", "easy")),
    change=st.sampled_from(sorted(CHANGES)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 7),
    j=st.integers(0, 7),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, level: str, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    mines = [(a, b) for a, b in sample.meta["current_mines"]]
    cells = CHANGES[change](mines, i, j)
    if not cells:  # an empty list names nothing, and a board without a certain mine is never emitted
        cells = [(90, 90)]
    write, official, strict = TEXTS[text]
    good = right(sample.meta["revealed_grid"], cells)
    assert TASK.verify(sample, write(cells), "official") is (good and official)
    assert TASK.verify(sample, write(cells), "strict") is (good and strict)


def certain(board: list[list[str]]) -> list[tuple[int, int]]:
    """The mines common to all arrangements that fit, by brute force."""
    n = len(board)
    covered = [(i, j) for i in range(n) for j in range(n) if board[i][j] == "X"]
    numbers = [(i, j) for i in range(n) for j in range(n) if board[i][j] != "X"]
    common = set(covered)
    for bits in itertools.product((0, 1), repeat=len(covered)):
        mines = {cell for cell, bit in zip(covered, bits, strict=True) if bit}
        if all(sum(cell in mines for cell in around(n, i, j)) == int(board[i][j]) for i, j in numbers):
            common &= mines
    return sorted(common)


def test_the_rule_finds_every_certain_mine_by_brute_force():
    params = MinesweeperParams(sides=(3, 4), density=(0.3,), reveal=(0.5, 0.7))
    open_differs = 0
    for seed in range(15):
        sample = TASK.generate(seed, params)
        assert [list(cell) for cell in certain(sample.meta["revealed_grid"])] == sample.meta["current_mines"]
        loose = TASK.generate(seed, MinesweeperParams(sides=(3, 4), density=(0.3,), reveal=(0.7,), closed=False))
        open_differs += [list(c) for c in certain(loose.meta["revealed_grid"])] != loose.meta["current_mines"]
    assert open_differs, "without `closed` the defect shows"


@pytest.mark.parametrize("seed", range(10))
def test_is_certain_agrees_with_brute_force(seed: int):
    sample = TASK.generate(seed, MinesweeperParams(sides=(4,), density=(0.3,), reveal=(0.8,), closed=False))
    board = sample.meta["revealed_grid"]
    n = len(board)
    covered = [(i, j) for i in range(n) for j in range(n) if board[i][j] == "X"]
    sure = certain(board)
    for bits in itertools.product((0, 1), repeat=len(covered)):  # any arrangement that fits will do
        mines = [cell for cell, bit in zip(covered, bits, strict=True) if bit]
        numbers = [(i, j) for i in range(n) for j in range(n) if board[i][j] != "X"]
        if all(sum(cell in mines for cell in around(n, i, j)) == int(board[i][j]) for i, j in numbers):
            assert [cell for cell in mines if is_certain(board, mines, cell)] == sure
            break


def test_boards_differ_and_have_the_sizes_of_their_level():
    for level in LEVELS:
        samples = [TASK.generate(seed, TASK.levels[level]) for seed in range(20)]
        assert {sample.meta["n"] for sample in samples} <= set(TASK.levels[level].sides)
        assert len({sample.question for sample in samples}) >= 15
        assert all(len(sample.meta["current_mines"]) >= 1 for sample in samples)


def test_a_published_record_is_solved_from_its_board():
    board = [["1", "X"], ["X", "X"]]
    empty = Sample(task="minesweeper", question="", meta={"revealed_grid": board, "current_mines": []})
    assert TASK.verify(empty, "none", "official")  # the official verifier compares two empty sets
    assert not TASK.verify(empty, "none", "strict")
    board = [["3", "X"], ["X", "X"]]
    record = {"revealed_grid": board, "current_mines": [[0, 1], [1, 0], [1, 1]], "n": 2, "mine_den": 0.3}
    sample = Sample(task="minesweeper", question="", meta=record)
    assert TASK.solve(sample) == "[(0, 1), (1, 0), (1, 1)]"
    assert TASK.worked(sample) == "0,0=3:0,1 1,0 1,1"
    assert TASK.verify(sample, TASK.solve(sample), "official")
