"""Survo (SynLogic, arXiv:2505.19641): verdicts, perturbations against a checker of its own, and the oracle."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.survo import Survo, SurvoParams
from framework.sample import Sample

TASK = Survo()
# The check value of the paper's card: cells (0,0) and (1,1) are hidden.
CARD = {"original_matrix": [[0, 2, 3], [4, 0, 9], [5, 7, 12]], "candidate_numbers": [1, 5], "n": 3}


def fence(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


RIGHT = "[[1,2,3],[4,5,9],[5,7,12]]"
CASES = [
    # answer, official, strict
    (RIGHT, True, True),  # card
    ("[[5,2,3],[4,1,9],[5,7,12]]", False, False),  # card
    (fence(RIGHT), True, True),
    (fence(RIGHT, ""), True, True),
    (fence(RIGHT, "json"), False, False),  # a fence that is not python's keeps its language, which is no JSON
    (f"```python {RIGHT}```", True, True),
    (f"so {RIGHT}.", True, True),
    (f"[[0,0]] then {RIGHT}", True, True),  # the last one counts
    (f"{RIGHT} then [[0,0]]", False, False),
    (f"{fence('[[0]]')}\n{fence(RIGHT)}", True, True),
    (f"{fence(RIGHT)}\n{fence('[[0]]')}", False, False),
    (f"{RIGHT}\n{fence('[[0]]')}", False, False),  # a fence goes before the text around it
    (f"{fence(RIGHT)}\n{fence('[[0]]', 'text')}", True, True),  # a python fence goes before another one
    ("[ [1, 2, 3],\n [4, 5, 9],\n [5, 7, 12] ]", True, True),
    ("((1,2,3),(4,5,9),(5,7,12))", False, False),  # tuples fail
    (fence("((1,2,3),(4,5,9),(5,7,12))"), False, False),
    ("[['1','2','3'],['4','5','9'],['5','7','12']]", False, False),
    ("[[1.0,2,3],[4,5.0,9],[5,7,12]]", True, False),  # whole numbers only in strict
    ("[[true,2,3],[4,5,9],[5,7,12]]", True, False),
    ("[[1,2,3],[4,5,9]]", False, False),
    ("[[1,2],[4,5]]", False, False),
    ("[[1,2,3],[4,5,9],[5,7,13]]", False, False),  # a visible cell changed
    ("[[null,2,3],[4,5,9],[5,7,12]]", False, False),
    (fence(f"x = {RIGHT}"), False, False),
    (f"{RIGHT}]", True, True),
    ("1,5", False, True),  # the widening of strict
    ("5,1", False, False),
    ("1", False, False),
    ("1,5,1", False, False),
    ("1, 5", False, True),  # a space after the comma does no harm
    ("1,  5", False, False),
    ("", False, False),
]


@pytest.mark.slow
def test_every_rule_holds_for_this_task():
    check_all(TASK, seeds=6)


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdict(answer, official, strict):
    sample = Sample(task="survo", question="", meta=CARD)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


def test_two_fillings_of_one_puzzle_are_both_right():
    meta = {
        "original_matrix": [[0, 0, 1, 4], [0, 0, 1, 4], [1, 1, 1, 3], [4, 4, 3, 11]],
        "candidate_numbers": [1, 2, 1, 2],
        "n": 4,
    }
    sample = Sample(task="survo", question="", meta=meta)
    for answer in ("1,2,2,1", "2,1,1,2"):
        assert TASK.verify(sample, answer)
    assert not TASK.verify(sample, "1,2,1,2")


def right_filling(meta: dict, matrix: object) -> bool:
    """The rules once more, read off the question: whole numbers, clues kept, numbers used once each, sums."""
    clues, n = meta["original_matrix"], len(meta["original_matrix"])
    if not isinstance(matrix, list) or [len(row) if isinstance(row, list) else -1 for row in matrix] != [n] * n:
        return False
    pool = list(meta["candidate_numbers"])
    for i, j in itertools.product(range(n), repeat=2):
        value = matrix[i][j]
        if type(value) is not int or (clues[i][j] and clues[i][j] != value):
            return False
        if not clues[i][j]:
            if value not in pool:
                return False
            pool.remove(value)
    lines = matrix[:-1] + [list(column) for column in zip(*matrix, strict=True)][:-1]
    return not pool and all(sum(line) == 2 * line[-1] for line in lines)


def perturbations(meta: dict, right: list[list[int]], pick: int) -> dict[str, tuple[str, object, bool | None]]:
    """kind -> (text, the value it states, the official verdict where it is not the truth of that value)."""
    n = len(right)
    hidden = [(i, j) for i, j in itertools.product(range(n), repeat=2) if meta["original_matrix"][i][j] == 0]
    (a, b), (c, d) = hidden[pick % len(hidden)], hidden[(pick // 7) % len(hidden)]
    seen = [(i, j) for i, j in itertools.product(range(n), repeat=2) if (i, j) not in hidden]
    e, f = seen[pick % len(seen)]

    def changed(*cells: tuple[int, int, object]) -> list:
        rows: list = [list(row) for row in right]
        for i, j, value in cells:
            rows[i][j] = value
        return rows

    values = {
        "same": right,
        "one more": changed((a, b, right[a][b] + 1)),
        "one less": changed((a, b, right[a][b] - 1)),
        "negative": changed((a, b, -right[a][b])),
        "zero": changed((a, b, 0)),
        "two swapped": changed((a, b, right[c][d]), (c, d, right[a][b])),
        "clue changed": changed((e, f, right[e][f] + 1)),
        "row dropped": right[:-1],
        "row doubled": [*right, right[-1]],
        "column dropped": [row[:-1] for row in right],
        "column doubled": [[*row, row[-1]] for row in right],
        "transposed": [list(column) for column in zip(*right, strict=True)],
        "rows reversed": right[::-1],
        "ragged": [right[0][:-1], *right[1:]],
        "nested": [right],
        "empty rows": [[] for _ in right],
        "null": changed((a, b, None)),
        "text in a cell": changed((a, b, str(right[a][b]))),
        "half": changed((a, b, right[a][b] + 0.5)),
        "puzzle": meta["original_matrix"],
    }
    texts: dict[str, tuple[str, object, bool | None]] = {
        kind: (fence(json.dumps(v)), v, None) for kind, v in values.items()
    }
    plain = json.dumps(right)
    floats = changed((a, b, float(right[a][b])))
    texts |= {
        "float": (fence(json.dumps(floats)), floats, True),
        "prose around": (f"The matrix is {plain}, I think.", right, None),
        "prose inside": (fence(f"{plain} done"), None, None),
        "double quotes": (f'"{plain}"', right, None),
        "quoted in a fence": (fence(f'"{plain}"'), None, None),
        "tuples": (fence(plain.replace("[", "(").replace("]", ")")), None, None),
        "upper-case fence": (f"```PYTHON\n{plain}\n```", None, None),
        "open fence": (f"```python\n{plain}", right, None),
        "no commas": (plain.replace(",", ""), None, None),
        "full-width commas": (plain.replace(",", "，"), None, None),
        "empty": ("", None, None),
        "white space": (f" \n\t{plain}\n ", right, None),
    }
    return texts


@settings(max_examples=examples(30), deadline=None)
@given(st.sampled_from(["tiny", "easy", "normal"]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_perturbed_answers_are_judged_by_the_rules(level, seed, pick):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    right = json.loads(TASK.solve(sample).removeprefix("```python\n").removesuffix("\n```"))
    for kind, (text, value, official) in perturbations(dict(sample.meta), right, pick).items():
        truth = right_filling(dict(sample.meta), value)
        assert TASK.verify(sample, text, "strict") is truth, kind
        assert TASK.verify(sample, text, "official") is (truth if official is None else official), kind


@pytest.mark.parametrize("seed", range(30))
def test_the_oracle_finds_a_filling_exactly_when_there_is_one(seed):
    sample = TASK.generate(seed, SurvoParams(sizes=((4, 4, 5),)))
    meta = dict(sample.meta)
    hidden = [(i, j) for i in range(4) for j in range(4) if meta["original_matrix"][i][j] == 0]
    fillings = set(itertools.permutations(meta["candidate_numbers"]))
    right = []
    for filling in fillings:
        matrix = [list(row) for row in meta["original_matrix"]]
        for (i, j), value in zip(hidden, filling, strict=True):
            matrix[i][j] = value
        assert TASK.verify(sample, ",".join(map(str, filling))) is right_filling(meta, matrix)
        if right_filling(meta, matrix):
            right.append(",".join(map(str, filling)))
    assert TASK.solve(sample) in right


def test_a_matrix_without_a_filling_is_an_error_of_the_oracle():
    sample = Sample(task="survo", question="", meta={**CARD, "candidate_numbers": [1, 6]})
    with pytest.raises(ValueError, match="no filling"):
        TASK.solve(sample)


def test_sums_and_hidden_cells_are_where_they_belong():
    for level, params in TASK.levels.items():
        for seed in range(20):
            meta = TASK.generate(seed, TASK.levels[level]).meta
            n = meta["n"]
            assert (n, meta["x"]) in {(s, x) for s, low, high in params.sizes for x in range(low, high + 1)}
            assert all(meta["original_matrix"][i][n - 1] and meta["original_matrix"][n - 1][i] for i in range(n))
            assert sum(row.count(0) for row in meta["original_matrix"]) == meta["x"] == len(meta["candidate_numbers"])
