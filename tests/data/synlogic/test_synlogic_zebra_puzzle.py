"""Zebra puzzles: verdicts by hand, systematic changes, unique and minimal clues by brute force, and the public records."""

import dataclasses
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.zebra_puzzle import ZebraPuzzle, read_zebra
from data.synlogic.zebra_puzzle_logic import random_clues, solve
from framework.errors import UserError
from framework.sample import Sample

TASK = ZebraPuzzle()
TABLE = {"header": ["House", "Name", "Pet"], "rows": [["1", "Ann", "cat"], ["2", "Bob", "dog"]]}
TEXT = json.dumps(TABLE)
MIXED = '{"a": 1, "b": [1.0, true, null], "c": {"d": "x"}}'
CASES = [
    # reference, answer, official, strict; the rules are those of card section 35
    (TEXT, TEXT, True, True),
    (TEXT, f"```json\n{TEXT}\n```", True, True),
    (TEXT, f"The table:\n```json\n{json.dumps(TABLE, indent=2)}\n```\nDone.", True, True),
    (TEXT, json.dumps({"rows": TABLE["rows"], "header": TABLE["header"]}), True, True),
    (TEXT, str(TABLE), True, True),  # a Python literal
    (TEXT, f"```json\n{{}}\n``` no: ```json\n{TEXT}\n```", True, True),  # the last json block counts
    (TEXT, f"```json\n{TEXT}", True, True),
    (TEXT, "Ann cat/Bob dog", False, True),  # the widening of strict
    (TEXT, " Ann cat/Bob dog\n", False, True),
    (TEXT, "Bob dog/Ann cat", False, False),
    (TEXT, "ann cat/bob dog", False, False),
    (TEXT, TEXT.replace('"1"', "1"), False, False),  # types are compared
    (TEXT, TEXT.replace("Ann", "ann"), False, False),
    (TEXT, TEXT.replace("cat", "cat "), False, False),
    (TEXT, json.dumps({**TABLE, "note": ""}), False, False),
    (TEXT, json.dumps({"rows": TABLE["rows"]}), False, False),
    (TEXT, json.dumps({**TABLE, "rows": TABLE["rows"][::-1]}), False, False),
    (TEXT, str({**TABLE, "rows": tuple(TABLE["rows"])}), False, False),
    (TEXT, f"[{TEXT}]", False, False),
    (TEXT, json.dumps(TEXT), False, False),
    (TEXT, f"```\n{TEXT}\n```", False, False),
    (TEXT, f"```JSON\n{TEXT}\n```", False, False),
    (TEXT, f"The answer is {TEXT}", False, False),
    (TEXT, f"{TEXT} # all", True, True),
    (TEXT, "", False, False),
    (TEXT, TEXT + " " * 20_000, False, False),  # too long to be an answer
    (MIXED, MIXED, True, True),
    (MIXED, "{'c': {'d': 'x'}, 'a': 1, 'b': [1.0, True, None]}", True, True),
    (MIXED, MIXED.replace("1.0", "1"), False, False),
    (MIXED, MIXED.replace("true", "1"), False, False),
    (MIXED, MIXED.replace('"a": 1', '"a": true'), False, False),
    (MIXED, MIXED.replace("null", "false"), False, False),
    ("Paris", "Paris", True, True),  # no JSON: compared as text
    ("Paris", " ```json\nParis\n``` ", True, True),
    ("Paris", "paris", False, False),
    ("5", "5", True, True),  # no object: compared as text
    ("5", "5.0", False, False),
    ("[1, 2]", "[1,2]", False, False),
    ("[1, 2]", "[1, 2]", True, True),
]


@pytest.mark.parametrize(("reference", "answer", "official", "strict"), CASES)
def test_verdicts(reference: str, answer: str, official: bool, strict: bool):
    sample = Sample(task="zebra_puzzle", question="", answer=reference)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 3)


Table = dict
CHANGES: dict[str, Callable[[Table, int, int], Table]] = {
    "itself": lambda t, i, j: t,
    "keys in another order": lambda t, i, j: dict(reversed(t.items())),
    "rows exchanged": lambda t, i, j: {**t, "rows": [t["rows"][1], t["rows"][0], *t["rows"][2:]]},
    "rows reversed": lambda t, i, j: {**t, "rows": t["rows"][::-1]},
    "a row missing": lambda t, i, j: {**t, "rows": t["rows"][:-1]},
    "a row twice": lambda t, i, j: {**t, "rows": [*t["rows"], t["rows"][-1]]},
    "a value changed": lambda t, i, j: put(t, i, j, "zebu"),
    "a value from above": lambda t, i, j: put(t, i, j, t["rows"][0][j % len(t["header"])]),
    "a number": lambda t, i, j: put(t, i, j, 1),
    "nothing": lambda t, i, j: put(t, i, j, None),
    "upper case": lambda t, i, j: put(t, i, j, t["rows"][i % len(t["rows"])][j % len(t["header"])].upper()),
    "whole numbers": lambda t, i, j: {**t, "rows": [[int(row[0]), *row[1:]] for row in t["rows"]]},
    "transposed": lambda t, i, j: {**t, "rows": [list(column) for column in zip(*t["rows"], strict=True)]},
    "a column missing": lambda t, i, j: {**t, "rows": [row[:-1] for row in t["rows"]]},
    "no header": lambda t, i, j: {"rows": t["rows"]},
    "another header": lambda t, i, j: {**t, "header": t["header"][::-1]},
    "a key more": lambda t, i, j: {**t, "note": "done"},
    "objects": lambda t, i, j: {**t, "rows": [dict(zip(t["header"], row, strict=True)) for row in t["rows"]]},
}
# Ways to write it: (text, does official read it, does strict).
TEXTS: dict[str, tuple[Callable[[Table], str], bool, bool]] = {
    "json": (json.dumps, True, True),
    "indented": (lambda t: json.dumps(t, indent=2), True, True),
    "fence": (lambda t: f"```json\n{json.dumps(t)}\n```", True, True),
    "prose and fence": (lambda t: f"So: ```json {json.dumps(t)}``` {{}}", True, True),
    "python": (str, True, True),
    "prose": (lambda t: f"The answer is {json.dumps(t)}", False, False),
    "plain fence": (lambda t: f"```\n{json.dumps(t)}\n```", False, False),
    "text in json": (lambda t: json.dumps(json.dumps(t)), False, False),
    "list": (lambda t: json.dumps([t]), False, False),
    "unclosed": (lambda t: json.dumps(t)[:-1], False, False),
    "no quotes": (lambda t: json.dumps(t).replace('"', ""), False, False),
    "empty": (lambda t: "", False, False),
}


def put(table: Table, i: int, j: int, value: object) -> Table:
    lines = [list(row) for row in table["rows"]]
    lines[i % len(lines)][j % len(table["header"])] = value
    return {**table, "rows": lines}


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 100),
    change=st.sampled_from(sorted(CHANGES)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 5),
    j=st.integers(0, 5),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels["easy" if seed % 3 else "tiny"], "english")
    right = json.loads(sample.answer)
    table = CHANGES[change](right, i, j)
    write, official, strict = TEXTS[text]
    good = json.dumps(table, sort_keys=True) == json.dumps(right, sort_keys=True)  # text shows the types
    assert TASK.verify(sample, write(table), "official") is (good and official)
    assert TASK.verify(sample, write(table), "strict") is (good and strict)


def holds(clue: list, house: dict[int, int]) -> bool:
    kind, x, y = clue
    if kind in ("at", "not at"):
        return (house[x] == y) == (kind == "at")
    gap = house[y] - house[x]
    return {
        "same": gap == 0,
        "different": gap != 0,
        "left": gap > 0,
        "just left": gap == 1,
        "beside": abs(gap) == 1,
        "one between": abs(gap) == 2,
    }[kind]


def solutions(n: int, attributes: int, clues: list[list]) -> list[dict[int, int]]:
    """All orders of all attributes are tried."""
    found = []
    for orders in itertools.product(itertools.permutations(range(n)), repeat=attributes):
        house = {a * n + v: h for a, order in enumerate(orders) for v, h in enumerate(order)}
        if all(holds(clue, house) for clue in clues):
            found.append(house)
    return found


@pytest.mark.parametrize("level", ["tiny", "easy"])
def test_one_solution_by_brute_force(level: str):
    for seed in range(8):
        sample = TASK.generate(seed, dataclasses.replace(TASK.levels[level], attributes=(2, 3)))
        n, attributes, clues = sample.meta["houses"], sample.meta["attributes"], sample.meta["clues"]
        (house,) = solutions(n, len(attributes), clues)
        values = [value for kind in attributes.values() for value in kind]
        for k, value in enumerate(values):
            assert value in json.loads(sample.answer)["rows"][house[k]]


@pytest.mark.parametrize("level", ["tiny", "hard"])
def test_no_clue_can_be_left_out(level: str):
    for seed in range(3):
        sample = TASK.generate(seed, TASK.levels[level])
        clues = [tuple(clue) for clue in sample.meta["clues"]]
        n, count = sample.meta["houses"], len(sample.meta["attributes"])
        assert len(solve(n, count, clues).solutions) == 1
        for k in range(len(clues)):
            assert len(solve(n, count, clues[:k] + clues[k + 1 :]).solutions) == 2


@pytest.mark.parametrize("seed", range(12))
def test_the_solver_finds_what_brute_force_finds(seed: int):

    rng = random.Random(seed)
    houses = [house for _ in range(2) for house in rng.sample(range(3), 3)]
    kinds = ("at", "not at", "same", "different", "left", "just left", "beside", "one between")
    clues = random_clues(rng, 3, houses, kinds, 4)
    expected = [[house[k] for k in range(6)] for house in solutions(3, 2, [list(clue) for clue in clues])]
    assert houses in expected  # the clues are true
    assert sorted(solve(3, 2, clues, limit=1_000).solutions) == sorted(expected)


def test_clues_that_contradict_each_other_have_no_solution():
    assert solve(2, 1, [("at", 0, 0), ("at", 0, 1)]).solutions == []
    assert solve(2, 1, [("one between", 0, 1)]).solutions == []
    sample = Sample(
        task="", question="", meta={"houses": 2, "attributes": {"Name": ["A", "B"]}, "clues": [["left", 0, 0]]}
    )
    with pytest.raises(ValueError, match="contradict"):
        TASK.solve(sample)
    with pytest.raises(ValueError, match="words only"):
        TASK.solve(Sample(task="zebra_puzzle", question="", answer=TEXT, meta={"id": "x"}))


def test_puzzles_differ_and_have_the_sizes_of_their_level():
    for level in LEVELS[:3]:
        params = TASK.levels[level]
        samples = [TASK.generate(seed, params, "english") for seed in range(20)]
        assert len({sample.question for sample in samples}) == 20
        for sample in samples:
            assert sample.meta["houses"] in params.houses
            assert len(sample.meta["attributes"]) in params.attributes
            assert all(value in sample.question for values in sample.meta["attributes"].values() for value in values)


PUBLIC = {"id": "lgp-2x2-1", "size": "2*2", "puzzle": "There are 2 houses ...", "solution": TABLE}


def test_public_records_become_samples(tmp_path: Path):
    lines = [PUBLIC, {**PUBLIC, "id": "lgp-2x2-2", "solution": TEXT}]
    (tmp_path / "zebra.jsonl").write_text("\n".join(map(json.dumps, lines)))
    samples = read_zebra(str(tmp_path / "zebra.jsonl"))
    assert [sample.meta["id"] for sample in samples] == ["lgp-2x2-1", "lgp-2x2-2"]
    for sample in samples:
        assert sample.question.startswith("There are 2 houses ...\n\nAnswer with a JSON object")
        assert '"header": ["House", "Name", "Pet"]' in sample.question
        assert json.loads(sample.answer) == TABLE
        assert TASK.verify(sample, TEXT, "official")
        assert TASK.verify(sample, "Ann cat/Bob dog", "strict")


def test_public_records_in_parquet_become_samples(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([PUBLIC]), tmp_path / "zebra.parquet")
    (sample,) = read_zebra(str(tmp_path / "zebra.parquet"))
    assert json.loads(sample.answer) == TABLE


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"solution": TABLE}, 'no text "puzzle"'),
        ({"puzzle": " ", "solution": TABLE}, 'no text "puzzle"'),
        ({"puzzle": "x"}, '"solution" is not'),
        ({"puzzle": "x", "solution": "{"}, "not JSON"),
        ({"puzzle": "x", "solution": [1]}, '"solution" is not'),
        ({"puzzle": "x", "solution": {"header": ["House", "Name"], "rows": [["1"]]}}, '"solution" is not'),
        ({"puzzle": "x", "solution": {"header": ["House", "Name"], "rows": [[1, "Ann"]]}}, '"solution" is not'),
        ({"puzzle": "x", "solution": {"header": ["House", "Name"], "rows": [["1", "___"]]}}, "blank"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path: Path, record: dict, message: str):
    (tmp_path / "odd.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"odd\.jsonl:1.*" + message):
        read_zebra(str(tmp_path / "odd.jsonl"))
