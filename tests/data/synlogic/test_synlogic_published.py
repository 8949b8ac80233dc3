"""The published layouts: Data records and verl rows, read and written."""

import json
import subprocess
import sys

import pytest

from data import synlogic
from data.synlogic import published
from data.synlogic.published import (
    INSTRUCTION,
    compute_score,
    data_of,
    judge,
    row_of,
    sample_of,
    sample_of_row,
    task_of,
    verdict,
)
from framework.errors import UserError
from framework.sample import Sample

KUKURASU = {
    "question": "Fill the grid.",
    "answer": "",
    "difficulty": 3,
    "metadata": {"trace_id": "x", "row_sums": [2, 1], "col_sums": [2, 1], "n": 2, "m": 2},
    "gpt_response": "",
}
RIGHT = '[["X","1"],["1","X"]]'


def respond(answer):
    return f"<think>so</think><answer>{answer}</answer>"


@pytest.mark.parametrize("name", list(synlogic.TASKS))
def test_a_sample_comes_back_from_a_row_and_its_answer_is_judged_right(name):
    task = synlogic.TASKS[name]
    sample = task.generate(5, task.levels["normal"], "english")
    row = json.loads(json.dumps(row_of(sample, index=7, split="train")))
    assert sample_of_row(row) == sample
    assert row["extra_info"]["index"] == 7
    assert row["prompt"] == [{"role": "user", "content": f"{INSTRUCTION}\n\n{sample.question}"}]
    data = json.loads(row["extra_info"]["game_data_str"])
    assert list(data) == ["question", "answer", "difficulty", "metadata", "gpt_response"]
    assert data["difficulty"] == 3
    assert judge(name, data, task.solve(sample), "official")
    assert not judge(name, data, task.perturb(sample, 1), "strict")


def test_a_published_record_is_judged_as_it_is():
    assert judge("kukurasu", KUKURASU, RIGHT)
    assert not judge("kukurasu", KUKURASU, RIGHT.replace("X", "1"))
    assert not judge("synlogic/kukurasu", KUKURASU, "")


@pytest.mark.parametrize("as_text", [True, False])
def test_a_published_row_is_read_whatever_its_extra_info_is(as_text):
    extra = {"game_data_str": json.dumps(KUKURASU), "index": 3}
    row = {
        "data_source": "val/synlogic/kukurasu",
        "prompt": [],
        "reward_model": None,
        "extra_info": json.dumps(extra) if as_text else extra,
    }
    sample = sample_of_row(row)
    assert sample == Sample(task="kukurasu", question="Fill the grid.", meta=KUKURASU["metadata"])
    assert verdict(sample, RIGHT, "official")


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ("kukurasu", "kukurasu"),
        ("synlogic/kukurasu", "kukurasu"),
        ("SynLogic-Hard/Kukurasu", "kukurasu"),
        ("synlogic_dyck_language_errors", "dyck_language_errors"),
        ("synlogic:math path", "math_path"),
        ("game_of_24", "mathador"),
        ("synlogic_game_of_24", "mathador"),
        ("bbeh_boolean_expressions", "bbeh_boolean_expressions"),
        ("bbh/bbh_word_sorting", "bbh_word_sorting"),
        ("synlogic/arc_agi_2", "arc_agi_2"),
        ("gpqa-diamond", "gpqa_diamond"),
    ],
)
def test_a_data_source_is_brought_to_its_task(given, task):
    assert task_of(given) == task


@pytest.mark.parametrize(
    "given",
    ["kukurazu", "synlogic/kukurazu", "bbh/word_sorting", "kor/cipher", "kor_cipher", ""],
)
def test_an_unknown_task_is_an_error_that_names_the_nearest(given):
    with pytest.raises(UserError, match=r"no SynLogic task .* Did you mean") as caught:
        task_of(given, "rows.parquet:3")
    assert "rows.parquet:3" in str(caught.value)
    if "kuku" in given:
        assert "'kukurasu'" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"), [("7", "7"), (7, "7"), ([["a"]], '[["a"]]'), (None, ""), ({"a": "é"}, '{"a": "é"}'), ("", "")]
)
def test_an_answer_that_is_no_text_becomes_json(answer, text):
    sample = sample_of("kukurasu", {**KUKURASU, "answer": answer, "metadata": None})
    assert (sample.answer, sample.meta) == (text, {})


def test_the_answer_of_a_task_with_json_answers_is_written_as_a_value(monkeypatch):
    class Grids:
        name, json_answer, levels = "grids", True, {"easy": 0}

    monkeypatch.setitem(synlogic.TASKS, "grids", Grids())
    sample = Sample(task="grids", question="?", answer="[[1, 2]]", meta={}, level="custom")
    assert data_of(sample) == {"question": "?", "answer": [[1, 2]], "difficulty": 1, "metadata": {}, "gpt_response": ""}
    assert sample_of("grids", data_of(sample), level="custom") == sample


def test_what_only_judges_is_used_where_it_is_registered(monkeypatch):
    class Judge:
        name = "arc_agi_2"

        def verify(self, sample, answer, mode="strict"):
            return answer == sample.answer

    monkeypatch.setattr(synlogic, "VERIFIERS", {"arc_agi_2": Judge()}, raising=False)
    assert task_of("synlogic/arc_agi_2") == "arc_agi_2"
    assert judge("arc_agi_2", {"question": "?", "answer": [[1]], "metadata": None}, "[[1]]")


def test_metadata_without_a_field_is_an_error_that_names_it():
    data = {**KUKURASU, "metadata": {"row_sums": [1], "trace_id": "x"}}
    with pytest.raises(
        UserError, match=r"no field 'col_sums', which the verifier of kukurasu reads.*row_sums, trace_id"
    ):
        judge("kukurasu", data, RIGHT)


def test_a_field_is_named_also_where_the_verifier_catches_every_error(monkeypatch):
    class Careful:
        name = "careful"

        def verify(self, sample, answer, mode="strict"):
            try:
                return answer == sample.meta["truth"] or answer == sample.meta.get("other")
            except Exception:
                return False

    monkeypatch.setattr(synlogic, "VERIFIERS", {"careful": Careful()}, raising=False)
    assert judge("careful", {"question": "?", "answer": "", "metadata": {"truth": "1"}}, "1")
    assert not judge("careful", {"question": "?", "answer": "", "metadata": {"truth": "1"}}, "2")
    with pytest.raises(UserError, match=r"no field 'truth', which the verifier of careful reads. Found: nothing"):
        judge("careful", {"question": "?", "answer": "", "metadata": None}, "1")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": []}, "no field 'data_source'. Found: prompt"),
        ({"data_source": "kukurasu"}, "no field 'extra_info'"),
        ({"data_source": "kukurasu", "extra_info": {"index": 1}}, "no field 'game_data_str'. Found: index"),
        ({"data_source": "kukurasu", "extra_info": None}, "no field 'game_data_str'"),
        ({"data_source": "kukurasu", "extra_info": {"game_data_str": "{"}}, "game_data_str is not JSON"),
        ({"data_source": "kukurasu", "extra_info": {"game_data_str": "[]"}}, "game_data_str is a list"),
        ({"data_source": "kukurasu", "extra_info": {"game_data_str": "{}"}}, "no text 'question'"),
        (
            {"data_source": "kukurasu", "extra_info": {"game_data_str": '{"question": "?", "metadata": 3}'}},
            "metadata is a int",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_place(row, said):
    with pytest.raises(UserError, match=r"^data\.parquet:9.*") as caught:
        sample_of_row(row, "data.parquet:9")
    assert said in str(caught.value)


def test_the_reward_for_verl_wants_format_and_verdict():
    task = synlogic.TASKS["kukurasu"]
    sample = task.generate(1, task.levels["easy"], "english")
    row = row_of(sample, index=0, split="train")
    columns = {"data_source": row["data_source"], "ground_truth": "", "extra_info": row["extra_info"]}
    assert compute_score(solution_str=respond(task.solve(sample)), **columns) == 1.0
    assert compute_score(solution_str=task.solve(sample), **columns) == 0.0
    assert compute_score(solution_str=respond(task.perturb(sample, 0)), **columns) == 0.0


def test_the_reward_of_a_broken_record_is_zero_and_said_but_an_unknown_task_is_an_error():
    broken = {"game_data_str": json.dumps({**KUKURASU, "metadata": {}})}
    with pytest.warns(UserWarning, match=r"reward 0\.0: this record: the metadata has no field 'row_sums'"):
        assert compute_score("synlogic/kukurasu", respond(RIGHT), "", broken) == 0.0
    with pytest.raises(UserError, match="no SynLogic task 'openai/gsm8k'"):
        compute_score("openai/gsm8k", "", "", {})


def test_nothing_of_it_imports_jax():
    code = (
        "import sys, data.cli, data.cli_build, data.cli_verify, data.synlogic.build, data.synlogic.build.engines, "
        + (
            f"{published.__name__}; print([m for m in ('jax', 'grain', 'numpy', 'ray', 'datasets') if m in sys.modules])"
        )
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("metadata", [{"row_sums": 3.5}, {"row_sums": None}])
def test_metadata_of_another_kind_is_an_error_that_says_so_and_a_reward_of_zero(metadata):
    data = {**KUKURASU, "metadata": {**KUKURASU["metadata"], **metadata}}
    with pytest.raises(UserError, match="cannot read the metadata"):
        judge("kukurasu", data, RIGHT)
    with pytest.warns(UserWarning, match=r"reward 0\.0: .*cannot read the metadata"):
        assert compute_score("synlogic/kukurasu", respond(RIGHT), "", {"game_data_str": json.dumps(data)}) == 0.0


@pytest.mark.filterwarnings("ignore:reward 0.0")
@pytest.mark.parametrize("name", list(synlogic.TASKS))
@pytest.mark.parametrize("junk", [None, [], {}, -1, 3.5, "abc", [None], [[1]], {"a": 1}], ids=str)
def test_no_broken_metadata_ends_a_run(name, junk):
    task = synlogic.TASKS[name]
    data = data_of(task.generate(3, task.levels["tiny"], "english"))
    answer = respond(task.solve(sample_of(name, data)))
    for field in data["metadata"]:
        broken = {**data, "metadata": {**data["metadata"], field: junk}}
        for mode in ("strict", "official"):
            score = compute_score(f"synlogic/{name}", answer, "", {"game_data_str": json.dumps(broken)}, mode)
            assert score in (0.0, 1.0)
