"""Sudoku (SynLogic, arXiv:2505.19641): verdicts, perturbations against a checker of its own, and unique solutions."""

import ast
import collections
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.sudoku import Sudoku, SudokuParams
from framework.sample import Sample

TASK = Sudoku()
GRID = [[(3 * (i % 3) + i // 3 + j) % 9 + 1 for j in range(9)] for i in range(9)]
PUZZLE: list = [["X" if i == j else value for j, value in enumerate(row)] for i, row in enumerate(GRID)]
TUPLES = str(tuple(tuple(row) for row in GRID))
LISTS = str(GRID)
# Two digits swapped everywhere give another valid grid, which breaks the clues.
OTHER = str(tuple(tuple({1: 2, 2: 1}.get(value, value) for value in row) for row in GRID))
HIDDEN = "".join(str(GRID[i][i]) for i in range(9))


def fence(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


CASES = [
    # answer, official, strict
    (fence(TUPLES), True, True),
    (fence(LISTS), True, True),  # tuples or lists inside of a block
    (fence(str([tuple(row) for row in GRID])), True, True),
    (TUPLES, True, True),  # a bare tuple is read
    (LISTS, False, False),  # a bare list is not
    (f"The answer is {TUPLES}.", True, True),
    (f"((1,2),(3,4)) or {TUPLES}", True, True),  # the last one counts
    (f"{TUPLES} or ((1,2),(3,4))", False, False),
    (f"{fence('1')}\n{fence(TUPLES)}", True, True),
    (f"{fence(TUPLES)}\n{fence('1')}", False, False),
    (f"{TUPLES}\n{fence('1')}", False, False),  # a block goes before a bare tuple
    (f"```python {TUPLES}```", True, True),
    (fence(TUPLES, ""), True, True),  # such a fence is no block, but the tuple in it is read
    (fence(LISTS, ""), False, False),
    (fence(OTHER), False, False),
    (fence(f"x = {TUPLES}"), False, False),
    (fence(f"# solved\n{TUPLES}"), True, True),
    (fence(TUPLES.replace("1", "True")), True, False),  # True is an int to Python
    (fence(TUPLES.replace("1", "1.0")), False, False),
    (fence(str([[str(value) for value in row] for row in GRID])), False, False),
    (fence(str(tuple(map(tuple, GRID[:8])))), False, False),
    (fence("\n".join("".join(map(str, row)) for row in GRID)), False, False),
    (TUPLES.replace("((", "( (").replace("))", ") )"), True, True),
    (HIDDEN, False, True),  # the widening of strict: the hidden digits in reading order
    (HIDDEN[::-1], False, False),
    (HIDDEN[:-1], False, False),
    (f"{HIDDEN}1", False, False),
    ("", False, False),
]


@pytest.mark.slow
def test_every_rule_holds_for_this_task():
    check_all(TASK, seeds=4)


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
@pytest.mark.parametrize("empty", ["X", "x", 0])
def test_verdict(answer, official, strict, empty):
    puzzle = [[empty if value == "X" else value for value in row] for row in PUZZLE]
    sample = Sample(task="sudoku", question="", meta={"original_sudoku": puzzle})
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


def test_a_record_without_clues_is_never_right():
    sample = Sample(task="sudoku", question="", meta={"original_sudoku": []})
    assert not TASK.verify(sample, fence(TUPLES), "official")
    assert not TASK.verify(sample, fence(TUPLES), "strict")


def right_grid(meta: dict, grid: object) -> bool:
    """The rules once more: whole numbers, no digit twice in a row, column or box, clues kept."""
    if not isinstance(grid, list) or [len(row) for row in grid] != [9] * 9:
        return False
    seen = collections.Counter()
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            if type(value) is not int or not 1 <= value <= 9:
                return False
            if meta["original_sudoku"][i][j] not in ("X", value):
                return False
            seen.update([("row", i, value), ("column", j, value), ("box", i // 3, j // 3, value)])
    return max(seen.values()) == 1


def perturbations(puzzle: list, right: list[list[int]], pick: int) -> dict[str, list]:
    hidden = [(i, j) for i in range(9) for j in range(9) if puzzle[i][j] == "X"]
    seen = [(i, j) for i in range(9) for j in range(9) if puzzle[i][j] != "X"]
    (a, b), (c, d), (e, f) = hidden[pick % len(hidden)], hidden[pick // 9 % len(hidden)], seen[pick % len(seen)]
    k = pick % 9

    def changed(*cells: tuple[int, int, object]) -> list:
        rows: list = [list(row) for row in right]
        for i, j, value in cells:
            rows[i][j] = value
        return rows

    return {
        "same": right,
        "one more": changed((a, b, right[a][b] + 1)),
        "one less": changed((a, b, right[a][b] - 1)),
        "another digit": changed((a, b, right[a][b] % 9 + 1)),
        "negative": changed((a, b, -right[a][b])),
        "ten more": changed((a, b, right[a][b] + 10)),
        "still hidden": changed((a, b, 0)),
        "hidden ones swapped": changed((a, b, right[c][d]), (c, d, right[a][b])),
        "clue changed": changed((e, f, right[e][f] % 9 + 1)),
        "rows swapped": [right[i ^ 1 if i < 2 else i] for i in range(9)],
        "columns swapped": [[row[j ^ 1 if j < 2 else j] for j in range(9)] for row in right],
        "bands swapped": right[3:6] + right[:3] + right[6:],
        "digits swapped": [[{1: 2, 2: 1}.get(value, value) for value in row] for row in right],
        "transposed": [list(column) for column in zip(*right, strict=True)],
        "mirrored": [row[::-1] for row in right],
        "row dropped": right[:k] + right[k + 1 :],
        "row doubled": [*right, right[k]],
        "row over another": [right[k] if i == (k + 1) % 9 else row for i, row in enumerate(right)],
        "column dropped": [row[:k] + row[k + 1 :] for row in right],
        "column added": [[*row, row[0]] for row in right],
        "ragged": [right[0][:-1], *right[1:]],
        "Latin square without boxes": [[(i + j) % 9 + 1 for j in range(9)] for i in range(9)],
    }


@settings(max_examples=examples(25), deadline=None)
@given(st.sampled_from(["tiny", "easy", "normal"]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_perturbed_answers_are_judged_by_the_rules(level, seed, pick):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    meta = dict(sample.meta)
    right = [list(row) for row in ast.literal_eval(sample.answer)]
    texts: dict[str, tuple[str, object]] = {}
    for kind, grid in perturbations(meta["original_sudoku"], right, pick).items():
        texts[kind] = (fence(json.dumps(grid)), grid)
        texts[f"{kind}, bare tuples"] = (str(tuple(map(tuple, grid))), grid)
    texts |= {
        "own solution": (TASK.solve(sample), right),
        "bare lists": (json.dumps(right), None),
        "prose around": (f"So\n{fence(sample.answer)}\nwhich is right.", right),
        "prose inside": (fence(f"{sample.answer} done"), None),
        "quoted": (fence(f'"{sample.answer}"'), None),
        "flat": (fence(str([value for row in right for value in row])), None),
        "null": (fence(sample.answer.replace("1", "None")), None),
        "upper-case tag": (f"```PYTHON\n{json.dumps(right)}\n```", None),
        "full-width commas": (fence(sample.answer.replace(",", "，")), None),
        "puzzle": (fence(str(meta["original_sudoku"])), None),
        "empty": ("", None),
    }
    for kind, (text, grid) in texts.items():
        truth = right_grid(meta, grid)
        assert TASK.verify(sample, text, "strict") is truth, kind
        assert TASK.verify(sample, text, "official") is truth, kind


def count_solutions(puzzle: list, limit: int = 2) -> int:
    """A plain solver: the first cell with the fewest digits, one after the other."""
    rows = [[0 if value == "X" else value for value in row] for row in puzzle]

    def digits(i: int, j: int) -> list[int]:
        taken = {*rows[i], *(row[j] for row in rows)}
        taken |= {rows[a][b] for a in range(i // 3 * 3, i // 3 * 3 + 3) for b in range(j // 3 * 3, j // 3 * 3 + 3)}
        return [value for value in range(1, 10) if value not in taken]

    def count(left: int) -> int:
        open_cells = [(len(digits(i, j)), i, j) for i in range(9) for j in range(9) if not rows[i][j]]
        if not open_cells:
            return 1
        _, i, j = min(open_cells)
        total = 0
        for value in digits(i, j):
            rows[i][j] = value
            total += count(left - total)
            rows[i][j] = 0
            if total >= left:
                break
        return total

    return count(limit)


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_every_puzzle_has_one_solution_and_the_clues_of_its_level(level):
    low, high = TASK.levels[level].clues
    for seed in range(3):
        sample = TASK.generate(seed, TASK.levels[level])
        puzzle = sample.meta["original_sudoku"]
        assert count_solutions(puzzle) == 1
        clues = sum(value != "X" for row in puzzle for value in row)
        assert low <= clues <= high
        assert TASK.verify(sample, sample.answer, "strict")
        assert TASK.verify(sample, sample.answer, "official")


def test_without_unique_there_may_be_several_solutions_and_each_is_right():
    sample = TASK.generate(0, SudokuParams(clues=(20, 20), unique=False))
    assert count_solutions(sample.meta["original_sudoku"]) == 2
    assert TASK.verify(sample, TASK.solve(sample))
    assert TASK.verify(sample, sample.answer)


def cycle_types(lines: list) -> list[tuple[int, ...]]:
    """For each pair of lines the cycle lengths of the map from one to the other: no relabelling or reordering changes them."""
    types = []
    for a, b in itertools.combinations(lines, 2):
        to, left, lengths = dict(zip(a, b, strict=True)), set(a), []
        while left:
            start = value = min(left)
            length = 0
            while length == 0 or value != start:
                left.discard(value)
                value, length = to[value], length + 1
            lengths.append(length)
        types.append(tuple(sorted(lengths)))
    return sorted(types)


def test_full_grids_are_not_disguised_copies_of_one_pattern():
    grids = [ast.literal_eval(TASK.generate(seed, TASK.levels["tiny"]).answer) for seed in range(40)]
    classes = {str(sorted([cycle_types(list(grid)), cycle_types(list(zip(*grid, strict=True)))])) for grid in grids}
    assert len(classes) == 40


def test_clues_without_a_solution_are_an_error_of_the_oracle():
    twice = [[1, 1, *["X"] * 7], *[["X"] * 9] * 8]
    with pytest.raises(ValueError, match="no grid"):
        TASK.solve(Sample(task="sudoku", question="", meta={"original_sudoku": twice}))
