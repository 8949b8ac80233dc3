"""`maypole data`: what it prints, what it writes, and what it says of a mistake."""

import io
import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data import synlogic
from data.cli_progress import RecordProgress
from data.synlogic.published import data_of, sample_of_row
from framework.cli import main

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/synlogic.md").read_text()
MAKE = "data synlogic --tasks kukurasu,dyck_language --n 12 --validation 3 --workers 1 --format jsonl --out made"


def maypole(line):
    return main(shlex.split(line))


def respond(answer):
    return f"<think>so</think><answer>{answer}</answer>"


def solved(sample):
    return synlogic.TASKS[sample.task].solve(sample)


def write(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def table(text):
    """The rows of a printed table by their first cell."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(desk, capsys):
    """A small data set in the current folder; its validation samples."""
    assert maypole(MAKE) == 0
    capsys.readouterr()
    return [sample_of_row(row) for row in read("made/validation-00000-of-00001.jsonl")]


def test_synlogic_says_what_was_made(desk, capsys):
    assert maypole(MAKE) == 0
    out, _ = capsys.readouterr()
    assert "made: 12 training and 6 validation records of 2 task(s)" in out
    assert "train-00000-of-00001.jsonl  12 rows" in out
    before = {path: path.read_bytes() for path in Path("made").iterdir()}
    assert maypole(MAKE) == 0
    assert {path: path.read_bytes() for path in Path("made").iterdir()} == before


def test_names_may_stand_with_commas_or_spaces(desk):
    words = "--n 8 --workers 1 --weights kukurasu=3"
    assert maypole(f"data synlogic --tasks kukurasu dyck_language --level tiny,easy --out a {words}") == 0
    assert maypole(f"data synlogic --tasks kukurasu,dyck_language --level tiny easy --out b {words}") == 0
    assert (desk / "a/manifest.json").read_bytes() == (desk / "b/manifest.json").read_bytes()
    manifest = json.loads((desk / "a/manifest.json").read_text())
    assert [group["train"] for group in manifest["groups"]] == [3, 3, 1, 1]


def test_verify_counts_by_task(made, capsys):
    texts = [respond(solved(sample)) for sample in made]
    first = next(place for place, sample in enumerate(made) if sample.task == "kukurasu")
    texts[first] = solved(made[first])  # right, but without tags
    write("answers.jsonl", [{"index": index, "response": text} for index, text in enumerate(texts)])
    command = "data verify made --split validation --responses answers.jsonl --out verdicts.jsonl"
    assert maypole(command) == 0
    out, err = capsys.readouterr()
    assert table(out) == {
        "dyck_language": ["3", "1.000", "1.000", "0.000"],
        "kukurasu": ["3", "0.667", "0.667", "0.333"],
        "all": ["6", "0.833", "0.833", "0.167"],
    }
    assert "mean of the 2 tasks' accuracies: 0.833" in out
    assert err == ""
    verdicts = read("verdicts.jsonl")
    assert [verdict["reward"] for verdict in verdicts] == [float(place != first) for place in range(6)]
    assert verdicts[first]["format"] is verdicts[first]["correct"] is False
    other = (first + 1) % 6
    assert verdicts[other]["answer"] == solved(made[other])


def test_several_tries_at_a_record_give_pass_at_k(made, capsys):
    tasks = synlogic.TASKS
    lines = [
        {"responses": [respond(solved(sample)), respond(tasks[sample.task].perturb(sample, 0)), ""]} for sample in made
    ]
    write("answers.jsonl", lines)
    assert maypole("data verify made/validation-00000-of-00001.jsonl --responses answers.jsonl") == 0
    assert table(capsys.readouterr().out)["all"] == ["6", "18", "0.333", "1.000", "0.667", "0.333"]


def test_bare_answers_line_by_line_and_records_of_the_official_code(made, capsys):
    chosen = [sample for sample in made if sample.task == "kukurasu"]
    write("data.jsonl", [data_of(sample) for sample in chosen])
    Path("answers.txt").write_text("\n".join([*map(solved, chosen[:2]), "no idea"]) + "\n")
    words = "data verify data.jsonl --responses answers.txt --answers --mode official"
    assert maypole(f"{words} --task kukurasu") == 0
    out, _ = capsys.readouterr()
    assert table(out) == {"kukurasu": ["3", "0.667", "0.000"]}
    assert "data.jsonl, official verifiers" in out
    assert maypole(words) == 2
    assert "data.jsonl:1 does not say which task it is of" in capsys.readouterr().err
    write(
        "data.jsonl",
        [{**data_of(sample), "task": "synlogic/kukurasu", "id": f"k{i}"} for i, sample in enumerate(chosen)],
    )
    write("named.jsonl", [{"id": "k2", "response": solved(chosen[2])}])
    assert maypole("data verify data.jsonl --responses named.jsonl --answers") == 0
    out, err = capsys.readouterr()
    assert table(out) == {"kukurasu": ["1", "1.000", "0.000"]}
    assert "2 of 3 records have no response" in err


def test_mode_official_accepts_what_strict_does_not(desk, capsys):
    task = synlogic.TASKS["mathador"]
    sample = task.generate(0, task.levels["easy"], "english")
    wrong = next(w for w in (task.perturb(sample, s) for s in range(99)) if task.verify(sample, w, "official"))
    write("data.jsonl", [{**data_of(sample), "task": "mathador"}])
    write("answers.jsonl", [{"response": respond(wrong)}])
    for mode, accuracy in (("official", "1.000"), ("strict", "0.000")):
        assert main(["data", "verify", "data.jsonl", "--responses", "answers.jsonl", "--mode", mode]) == 0
        assert table(capsys.readouterr().out)["mathador"][1] == accuracy


def test_a_record_without_a_field_counts_as_wrong_and_is_named(made, capsys):
    rows = [{**data_of(sample), "task": sample.task} for sample in made]
    broken = next(i for i, sample in enumerate(made) if sample.task == "kukurasu")
    del rows[broken]["metadata"]["row_sums"]
    write("data.jsonl", rows)
    write("answers.jsonl", [{"response": respond(solved(sample))} for sample in made])
    assert maypole("data verify data.jsonl --responses answers.jsonl --out verdicts.jsonl") == 2
    out, err = capsys.readouterr()
    assert table(out)["all"][1] == "0.833"
    assert (
        f"1 responses could not be judged and count as wrong. The first: data.jsonl:{broken + 1}: the metadata" in err
    )
    assert "no field 'row_sums'" in read("verdicts.jsonl")[broken]["problem"]


def test_parquet_and_rows_with_null_fields_are_read(desk, capsys):
    assert maypole("data synlogic --tasks kukurasu --n 3 --workers 1 --out made") == 0
    rows = pq.read_table("made/train-00000-of-00001.parquet").to_pylist()
    samples = [sample_of_row(row) for row in rows]
    published = [{**row, "data_source": "kukurasu", "reward_model": None} for row in rows]
    write("synlogic_hard.jsonl", published)
    write("answers.jsonl", [{"response": respond(solved(sample))} for sample in samples])
    capsys.readouterr()
    for records in ("made", "made/train-00000-of-00001.parquet", "synlogic_hard.jsonl"):
        assert main(["data", "verify", records, "--responses", "answers.jsonl"]) == 0
        assert table(capsys.readouterr().out) == {"kukurasu": ["3", "1.000", "1.000", "0.000"]}


def test_show_prints_the_question_the_drawing_and_the_answer(capsys):
    assert maypole("data show kukurasu --seed 3") == 0
    plain = capsys.readouterr().out
    assert maypole("data show kukurasu --seed 3 --solved") == 0
    with_answer = capsys.readouterr().out
    sample = synlogic.TASKS["kukurasu"].generate(3, synlogic.TASKS["kukurasu"].levels["easy"], "english")
    assert sample.question in plain
    assert "┌" in plain
    assert "```" not in plain
    assert solved(sample) not in plain
    assert with_answer.endswith(f"Answer:\n{solved(sample)}\n")
    again = re.search(r"again: maypole (.+)", plain)[1]
    assert maypole(again) == 0
    assert capsys.readouterr().out == plain


def test_tasks_lists_all_of_them_with_levels_and_measure(capsys):
    assert main(["data", "tasks"]) == 0
    listed = table(capsys.readouterr().out)
    for name, task in synlogic.TASKS.items():
        assert listed[name] == [", ".join(task.levels), task.measure]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("synlogik", "no command `maypole data synlogik`. Did you mean synlogic?"),
        ("show kukurazu", "no task 'kukurazu' that can be generated. Did you mean kukurasu?"),
        ("show kukurasu --level esay", "--level 'esay' is not one of kukurasu. It has: tiny"),
        ("synlogic --out a --tasks kukurazu", "--tasks: there is no task 'kukurazu'"),
        ("synlogic --out a --level esay", "--level 'esay' is not one of"),
        ("synlogic --out a --format csv", "--format 'csv' is not a format. Use parquet, jsonl, or both"),
        ("synlogic --out a --weights kukurasu", "'kukurasu' is not TASK=NUMBER"),
        ("synlogic --out a --workers 0", "--workers 0 makes nothing"),
        ("synlogic --out made/manifest.json", "cannot be a folder"),
        ("synlogic --out made --n 9", "made with other settings"),
        ("verify nothing.jsonl --responses r.jsonl", "no file, folder or hub data set 'nothing.jsonl'"),
        ("verify made --responses r.jsonl", "made has train and validation records. Say which: --split"),
        ("verify made --split test --responses r.jsonl", "no split 'test'. It has: train, validation"),
        ("verify . --responses r.jsonl", "holds no train or validation files"),
        ("verify text.csv --responses r.jsonl", "is not a .parquet, .jsonl or .json file"),
        ("verify made --split train --responses none.jsonl", "there is no such file"),
        ("verify made --split train --responses r.jsonl", "r.jsonl has 1 lines for 12 records"),
        (
            "verify made --split train --responses far.jsonl",
            "far.jsonl:1: index 12 is not the number of a record. They go from 0 to 11",
        ),
        ("verify made --split train --responses id.jsonl", "no record, or more than one, has the id 'x'"),
        ("verify made --split train --responses half.jsonl", "1 of 2 lines have 'index' or 'id'"),
        (
            "verify made --split train --responses none_given.jsonl",
            "no text 'response' and no list 'responses'. Found: index, text",
        ),
        ("verify made --split train --responses broken.jsonl", "broken.jsonl:1 is not a JSON object"),
        ("verify odd.jsonl --responses r.jsonl", "odd.jsonl:1 does not say which task it is of. Found: a"),
        ("verify bad.parquet --responses r.jsonl", "not a Parquet file that can be read"),
    ],
)
def test_a_mistake_is_one_message_that_says_what_to_type(made, capsys, command, said):
    write("r.jsonl", [{"response": "x"}])
    write("far.jsonl", [{"index": 12, "response": "x"}])
    write("id.jsonl", [{"id": "x", "response": "x"}])
    write("half.jsonl", [{"index": 1, "response": "x"}, {"response": "x"}])
    write("none_given.jsonl", [{"index": 1, "text": "x"}])
    Path("broken.jsonl").write_text('{"index"\n{}\n')
    write("odd.jsonl", [{"a": 1}])
    Path("text.csv").write_text("a")
    Path("bad.parquet").write_bytes(b"PAR1")
    assert maypole(f"data {command}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_a_hub_data_set_that_cannot_be_reached_says_what_was_tried(desk, capsys, monkeypatch):
    def load_dataset(name, config, split):
        if config != "easy":
            raise ConnectionError(f"no network for {name}, {config}, {split}")
        row = {"question": "?", "answer": "", "metadata": {"row_sums": [2, 1], "col_sums": [2, 1]}}
        extra = {"game_data_str": json.dumps(row), "index": 0}
        return [{"data_source": "synlogic/kukurasu", "prompt": [], "extra_info": extra}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    write("r.jsonl", [{"response": respond('[["X","1"],["1","X"]]')}])
    assert maypole("data verify MiniMaxAI/SynLogic --responses r.jsonl --config easy --mode official") == 0
    assert table(capsys.readouterr().out)["kukurasu"][1] == "1.000"
    assert maypole("data verify MiniMaxAI/SynLogic --responses r.jsonl --config hard") == 2
    assert "no network for MiniMaxAI/SynLogic, hard, validation" in capsys.readouterr().err


def test_help_names_defaults_and_units(capsys):
    assert main(["data", "--help"]) == 0
    assert main(["data"]) == 2
    for command in ("synlogic", "verify", "show", "tasks"):
        with pytest.raises(SystemExit):
            main(["data", command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("(default: 1000)", "in characters (default: 8000)", "one a core", "from 0", "(default: strict)"):
        assert text in said


def test_progress_prints_a_line_now_and_then_or_draws_a_bar():
    now = [0.0]
    file = io.StringIO()
    with RecordProgress("records", file=file, clock=lambda: now[0]) as progress:
        for second in range(26):
            now[0] = float(second)
            progress(100 + 10 * second, 1000, "making kukurasu")
    assert file.getvalue().splitlines() == [
        "making kukurasu  200/1,000 records  10/s  1 min 20 s left",
        "making kukurasu  300/1,000 records  10/s  1 min 10 s left",
    ]
    file = io.StringIO()
    with RecordProgress("records", file=file, bar=True) as progress:
        progress(5, 10, "making kukurasu")
    assert "5/10 records" in file.getvalue()


def test_the_commands_and_the_code_of_the_page_work_in_order(desk, capsys, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", desk / "cache")
    steps = re.findall(r"^    (maypole data [^\n]+)$|^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    scope = {}
    commands = 0
    for command, block in steps:
        if block:
            exec(block, scope)
        elif "ray" not in command and "MiniMaxAI" not in command:
            small = re.sub(r"--n \d+", "--n 14 --workers 1", command).replace("--validation 10", "--validation 1")
            small = small.replace("--tasks all", "--tasks kukurasu,dyck_language")
            assert maypole(small.removeprefix("maypole ")) == 0, command
            commands += 1
    assert commands == 10
    said = capsys.readouterr().out
    assert table(said)["all"][:3] == ["14", "56", "1.000"]  # of the strong model
    assert "4 of 4 settings are learnable" in said
    assert scope["reward"]([[{"content": "x"}]], [scope["row"]["data_source"]], [scope["row"]["extra_info"]]) == [0.0]
