"""ARC-like grids: verdicts by hand, systematic changes, rules worked by hand, unambiguous examples, and the public files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.arc_agi import ArcAgi, ArcAgiParams, read_arc
from data.synlogic.arc_agi_rules import library, rules_that_agree
from framework.errors import UserError
from framework.sample import Sample

TASK = ArcAgi()
TWO = Sample(task="arc_agi", question="", answer="[[7, 0], [1, 2]]")
CASES = [
    # answer, official, strict; the rules are those of card section 1
    ("```json\n[[7, 0], [1, 2]]\n```", True, True),
    ("[[7,0],[1,2]]", True, True),
    ("Here it is:\n```json\n[[7,0],\n[1,2]]\n``` as asked", True, True),
    ("```json\n[[1]]\n``` no, ```json\n[[7,0],[1,2]]\n```", True, True),  # the last json block counts
    ("```json\n[[7,0],[1,2]]\n``` or ```json\n[[1]]\n```", False, False),
    ("```JSON\n[[7,0],[1,2]]\n```", True, True),
    ("```json\n[[7,0],[1,2]]", True, True),
    ("[[7,0],[1,2],]", True, True),  # a Python literal
    ("[[7,0],[1,2]] # the output", True, True),
    ("[[7.0,0],[1,2]]", True, False),  # equal as Python compares
    ("[[7,0],[true,2]]", True, False),
    ("[[7,False],[1,2]]", True, False),  # lower-cased before it is read as JSON
    ("[[7,0],[1,2.0]]", True, False),
    ("70/12", False, True),  # the widening of strict
    (" 70/12\n", False, True),
    ("70/21", False, False),
    ("([7,0],[1,2])", False, False),
    ("[(7,0),(1,2)]", False, False),
    ('[["7","0"],["1","2"]]', False, False),
    ("```python\n[[7,0],[1,2]]\n```", False, False),
    ("```\n[[7,0],[1,2]]\n```", False, False),
    ("The output is [[7,0],[1,2]]", False, False),
    ("[[7,0],[1,3]]", False, False),
    ("[[7,0]]", False, False),
    ("[7,0,1,2]", False, False),
    ("[[[7,0],[1,2]]]", False, False),
    ("null", False, False),
    ("", False, False),
    ("[[7,0],[1,2]]" + " " * 20_000, False, False),  # too long to be an answer
]


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdicts(answer: str, official: bool, strict: bool):
    assert TASK.verify(TWO, answer, "official") is official
    assert TASK.verify(TWO, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 4)


Rows = list[list[int]]


def put(rows: Rows, i: int, j: int, cell: object) -> Rows:
    new: list = [list(row) for row in rows]
    new[i % len(new)][j % len(new[0])] = cell
    return new


CHANGES: dict[str, Callable[[Rows, int, int], Rows]] = {
    "itself": lambda r, i, j: r,
    "a cell more by one": lambda r, i, j: put(r, i, j, r[i % len(r)][j % len(r[0])] + 1),
    "a cell empty": lambda r, i, j: put(r, i, j, 0),
    "two cells exchanged": lambda r, i, j: put(put(r, i, j, r[0][0]), 0, 0, r[i % len(r)][j % len(r[0])]),
    "a row missing": lambda r, i, j: r[:-1],
    "a row twice": lambda r, i, j: [*r, r[-1]],
    "rows reversed": lambda r, i, j: r[::-1],
    "mirrored": lambda r, i, j: [row[::-1] for row in r],
    "transposed": lambda r, i, j: [list(column) for column in zip(*r, strict=True)],
    "a column missing": lambda r, i, j: [row[:-1] for row in r],
    "a column more": lambda r, i, j: [[*row, 0] for row in r],
    "one row too long": lambda r, i, j: [[*r[0], 0], *r[1:]],
    "flat": lambda r, i, j: [[cell for row in r for cell in row]],
    "negative": lambda r, i, j: [[-cell for cell in row] for row in r],
    "all empty": lambda r, i, j: [[0 for _ in row] for row in r],
}
# Ways to write it: (text, does official read it, does strict).
TEXTS: dict[str, tuple[Callable[[Rows], str], bool, bool]] = {
    "json": (json.dumps, True, True),
    "fence": (lambda r: f"```json\n{json.dumps(r)}\n```", True, True),
    "no spaces": (lambda r: json.dumps(r).replace(" ", ""), True, True),
    "lines": (lambda r: json.dumps(r).replace("], ", "],\n"), True, True),
    "prose and fence": (lambda r: f"So: ```json {json.dumps(r)} ``` [[1]]", True, True),
    "short": (lambda r: "/".join("".join(map(str, row)) for row in r), False, True),
    "floats": (lambda r: str([[float(cell) for cell in row] for row in r]), True, False),
    "texts": (lambda r: str([[str(cell) for cell in row] for row in r]), False, False),
    "tuples": (lambda r: str([tuple(row) for row in r]), False, False),
    "prose": (lambda r: f"The output is {r}", False, False),
    "python fence": (lambda r: f"```python\n{r}\n```", False, False),
    "unclosed": (lambda r: str(r)[:-1], False, False),
    "object": (lambda r: json.dumps({"output": r}), False, False),
    "empty": (lambda r: "", False, False),
}


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 100),
    change=st.sampled_from(sorted(CHANGES)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 11),
    j=st.integers(0, 11),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels["tiny"], "english")
    right = json.loads(sample.answer)
    rows = CHANGES[change](right, i, j)
    write, official, strict = TEXTS[text]
    good = [list(row) for row in rows] == right
    if text == "short":  # "-1" and "10" are no digits of a grid
        good = good and all(0 <= cell <= 9 for row in rows for cell in row)
    assert TASK.verify(sample, write(rows), "official") is (good and official)
    assert TASK.verify(sample, write(rows), "strict") is (good and strict)


STEPS = [
    # step, input, output worked by hand
    ("mirror left-right", "12/30", "21/03"),
    ("mirror top-bottom", "12/30", "30/12"),
    ("turn right", "12/30", "31/02"),
    ("turn left", "12/30", "20/13"),
    ("turn around", "12/30", "03/21"),
    ("transpose", "123/000", "10/20/30"),
    ("transpose the other way", "12/30", "02/31"),
    ("fall left", "010/203", "100/230"),
    ("fall right", "010/203", "001/023"),
    ("fall down", "12/00/30", "00/10/32"),
    ("fall up", "00/10/32", "12/30/00"),
    ("crop", "000/010/020", "1/2"),
    ("crop", "0000/0102/0000", "102"),
    ("double the size", "12", "1122/1122"),
    ("repeat to the right", "12/30", "1212/3030"),
    ("repeat below", "12", "12/12"),
    ("mirror image to the right", "12", "1221"),
    ("mirror image below", "1/2", "1/2/2/1"),
    ("left half", "123/456", "1/4"),
    ("top half", "12/30/45", "12"),
    ("remove 1", "121", "020"),
    ("recolour 1 to 2", "121", "222"),
    ("exchange 1 and 2", "121", "212"),
    ("fill holes with 3", "0111/0101/0111", "0111/0131/0111"),
    ("fill holes with 3", "0111/0101/0110", "0111/0131/0110"),  # no way out over a corner
    ("frame of 4", "12", "4444/4124/4444"),
    ("count objects in 5", "101/100/011", "555"),
]


def grid(text: str) -> tuple[bytes, ...]:
    return tuple(bytes(map(int, row)) for row in text.split("/"))


@pytest.mark.parametrize(("name", "before", "after"), STEPS)
def test_steps_do_what_their_names_say(name: str, before: str, after: str):
    (step,) = (step for step in library((1, 2, 3, 4, 5)) if step.name == name)
    assert step.apply(grid(before)) == grid(after)


def test_every_plain_step_is_tested():
    assert {step.name for step in library(())} <= {name for name, _, _ in STEPS}


def test_all_rules_that_agree_give_the_same_output():
    for level in LEVELS[:3]:
        for seed in range(6):
            sample = TASK.generate(seed, TASK.levels[level])
            train = sample.meta["train"]
            pairs = [(tuple(map(bytes, pair["input"])), tuple(map(bytes, pair["output"]))) for pair in train]
            test = tuple(map(bytes, sample.meta["test"][0]["input"]))
            outputs = {output for _, output, _ in rules_that_agree(pairs, test, max(TASK.levels[level].steps))}
            assert [[list(row) for row in output] for output in outputs] == [json.loads(sample.answer)]


def test_rules_have_no_shorter_equivalent_and_few_are_alike():
    samples = [TASK.generate(seed, TASK.levels["normal"]) for seed in range(20)]
    assert all(TASK.worked(sample).count(", then ") == 1 for sample in samples)
    assert len({TASK.worked(sample) for sample in samples}) >= 15
    with pytest.raises(ValueError, match="up to 2 steps"):
        TASK.generate(0, ArcAgiParams(steps=(3,), sides=(3, 4)))


PUBLIC = {
    "train": [{"input": [[1, 0], [0, 0]], "output": [[0, 1], [0, 0]]}, {"input": [[0, 0, 5]], "output": [[5, 0, 0]]}],
    "test": [{"input": [[2, 0]], "output": [[0, 2]]}, {"input": [[0, 0, 3]], "output": [[3, 0, 0]]}],
}


def test_public_files_become_samples(tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps(PUBLIC))
    (tmp_path / "a.json").write_text(json.dumps({**PUBLIC, "test": PUBLIC["test"][:1]}))
    samples = read_arc(str(tmp_path), "arc_agi_2")
    assert [(sample.meta["id"], sample.seed) for sample in samples] == [("a", 0), ("b", 0), ("b", 1)]
    second = ArcAgi("arc_agi_2")
    for sample in samples:
        assert sample.task == second.name == "arc_agi_2"
        assert "Example 2\nInput:\n0 0 5\nOutput:\n5 0 0" in sample.question
        assert second.verify(sample, sample.answer, "official")
        assert second.solve(sample) == f"```json\n{sample.answer}\n```"
        assert second.worked(sample) == "mirror left-right"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", 'no list "train"'),
        ('{"train": []}', 'no list "train"'),
        (json.dumps({"train": PUBLIC["train"]}), 'no list "test"'),
        (json.dumps({**PUBLIC, "test": [{"input": [[1]]}]}), '"output" of pair 1 of "test" is not a grid'),
        (json.dumps({**PUBLIC, "test": [[[1]]]}), '"input" of pair 1 of "test" is not a grid'),
        (json.dumps({**PUBLIC, "test": [{"input": [[1], [1, 2]], "output": [[1]]}]}), '"input" of pair 1'),
        (json.dumps({**PUBLIC, "test": [{"input": [[]], "output": [[1]]}]}), '"input" of pair 1'),
        (json.dumps({**PUBLIC, "test": [{"input": [[10]], "output": [[1]]}]}), '"input" of pair 1'),
        (json.dumps({**PUBLIC, "test": [{"input": [[True]], "output": [[1]]}]}), '"input" of pair 1'),
        (json.dumps({**PUBLIC, "test": [{"input": "12", "output": [[1]]}]}), '"input" of pair 1'),
    ],
)
def test_a_file_that_is_no_task_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UserError, match=r"odd\.json.*" + message):
        read_arc(str(tmp_path / "odd.json"))


def test_a_place_without_tasks_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no \.json file"):
        read_arc(str(tmp_path))
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        read_arc(str(tmp_path / "none.json"))
