"""`maypole data calibrate`: from verdicts of two models to the band a model can learn from."""

import json

import pytest

from data.synlogic.calibrate import Calibration
from framework.cli import main

TRIES = 4


def verdicts(path, right):
    """`right`: (task, level) -> right responses to each record, of `TRIES`."""
    lines, index = [], 0
    for (task, level), counts in right.items():
        for count in counts:
            for attempt in range(TRIES):
                lines.append({"index": index, "task": task, "level": level, "reward": float(attempt < count)})
            index += 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


WEAK = {
    ("kukurasu", "tiny"): (4, 3),  # too easy: 7 of 8
    ("kukurasu", "easy"): (1, 0),
    ("sudoku", "easy"): (0, 0),
    ("sudoku", "hard"): (0, 0),
}
STRONG = {
    ("kukurasu", "tiny"): (4, 4),
    ("kukurasu", "easy"): (2, 1),
    ("sudoku", "easy"): (0, 1),
    ("sudoku", "hard"): (0, 0),
}


def test_the_band_is_what_the_strong_model_reaches_and_the_weak_one_seldom_does(tmp_path, capsys):
    out = tmp_path / "out" / "calibration.json"
    words = ["--weak", verdicts(tmp_path / "w.jsonl", WEAK), "--strong", verdicts(tmp_path / "s.jsonl", STRONG)]
    assert main(["data", "calibrate", *words, "--out", str(out)]) == 0
    found = Calibration.load(out)
    assert {(cell.task, cell.level): found.kind(cell) for cell in found.cells} == {
        ("kukurasu", "tiny"): "too easy",
        ("kukurasu", "easy"): "learnable",
        ("sudoku", "easy"): "beyond the weak",
        ("sudoku", "hard"): "too hard",
    }
    assert found.k == TRIES
    said = capsys.readouterr().out
    assert "1 of 4 settings are learnable" in said
    assert "SynLogic(tasks=(('kukurasu', 'easy'),))" in said


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({("kukurasu", "easy"): (1, 0, 2)}, [], "do not judge the same records"),
        ({}, ["--k", "9"], "--k 9 cannot be estimated from 4 responses a record"),
        ({}, ["--max-weak", "0"], "--max-weak 0.0 is not a pass rate"),
    ],
)
def test_what_cannot_be_compared_is_an_error(tmp_path, capsys, change, words, message):
    weak = verdicts(tmp_path / "w.jsonl", WEAK | change)
    strong = verdicts(tmp_path / "s.jsonl", STRONG)
    assert main(["data", "calibrate", "--weak", weak, "--strong", strong, *words]) == 2
    assert message in capsys.readouterr().err


def test_as_many_other_records_are_not_the_same_ones(tmp_path, capsys):
    weak, strong = verdicts(tmp_path / "w.jsonl", WEAK), tmp_path / "s.jsonl"
    rows = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    strong.write_text("".join(json.dumps(row | {"index": row["index"] + 8}) + "\n" for row in rows))
    assert main(["data", "calibrate", "--weak", weak, "--strong", str(strong)]) == 2
    assert "do not judge the same records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"index": 0, "task": "sudoku"}\n', ":1 has no level, reward, so it is no verdict"),
        ("", "has no verdicts"),
        (
            '{"index": 0, "task": "a", "level": "b", "reward": 1}\n' * 2
            + '{"index": 1, "task": "a", "level": "b", "reward": 1}\n',
            "has 1 to 2 responses to a record",
        ),
    ],
)
def test_a_file_that_holds_no_verdicts_is_an_error_with_its_place(tmp_path, capsys, text, message):
    weak = tmp_path / "w.jsonl"
    weak.write_text(text)
    strong = verdicts(tmp_path / "s.jsonl", STRONG)
    assert main(["data", "calibrate", "--weak", str(weak), "--strong", strong]) == 2
    assert message in capsys.readouterr().err
