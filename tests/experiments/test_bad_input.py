"""Mistakes get one clear message, and nothing that was there is lost."""

import dataclasses
import json

import pytest

from data.questions import JsonLines, SynLogic
from framework.errors import UserError
from framework.mesh import MeshConfig
from rl.config import Arm
from rl.losses import KLCov, Unclipped
from rl.rewards import RewardError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rollout.group_size", "4"), "rollout.group_size"),
        (("--steps", "many"), "steps"),
        (("--rollout.samples", "1"), "at least 2"),
        (("--rollout.updates", "3"), "rollout.prompts="),
        (("--mesh.data", "64"), "mesh"),
        (("--model.kv_heads", "3"), "kv_heads"),
    ],
)
def test_a_wrong_field_is_named_and_no_run_folder_is_left(lab, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert lab.command("run", "entropy_mechanism:smoke", "--name", "bad", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs/bad").exists()


def test_a_mistake_is_one_message_without_a_traceback(lab, tmp_path):
    done = lab.maypole("run", "entropy_mechanism:smoke", "--optimizer.lr", "-1", cwd=tmp_path, code=2)
    assert done.stderr == "error: lr=-1.0 trains nothing. Use a positive learning rate, such as lr=1e-3.\n"
    assert not list((tmp_path / "runs").glob("*"))


MINE = """import dataclasses
from data.questions import JsonLines
from experiments.entropy_mechanism import smoke
from rl.config import Arm, WarmStart
config = dataclasses.replace(smoke, {change})
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data=JsonLines(path='no.jsonl')", "data.path='no.jsonl': there is no such file"),
        ("data=JsonLines(path='empty.jsonl')", "empty.jsonl holds no records"),
        ("data=JsonLines(path='mine.jsonl', question='prompt')", "mine.jsonl:1 has no field 'prompt'"),
        ("data=JsonLines(path='mine.jsonl', heldout=9)", "set warm_start.steps=0"),
        ("data=JsonLines(path='mine.jsonl', heldout=2), warm_start=WarmStart(steps=0)", "Use data.heldout=12"),
        ("arms=(Arm(name='a/b', loss=smoke.arms[0].loss),)", "arm 'a/b' cannot be a folder"),
        ("reward=lambda sample: 1.0", "A reward function is called as reward_fn(sample, response)"),
        ("reward_workers=0", "reward_workers=0"),
    ],
)
def test_a_file_of_ones_own_is_told_what_is_wrong_with_it(lab, tmp_path, monkeypatch, capsys, change, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE.format(change=change))
    (tmp_path / "empty.jsonl").write_text("")
    lines = [json.dumps({"question": f"1 + {i} =", "answer": 1 + i}) + "\n" for i in range(20)]
    (tmp_path / "mine.jsonl").write_text("".join(lines))
    assert lab.command("run", "mine.py", "--name", "bad") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs/bad").exists()


def test_an_existing_run_is_refused_and_kept(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/notes.txt").write_text("precious")
    assert lab.command("run", "entropy_mechanism:smoke", "--name", "mine") == 2
    assert "already exists" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "runs/mine").iterdir()] == ["notes.txt"]


CHANGES = {
    "rows on three devices": ({"mesh": MeshConfig(data=3)}, "mesh.data=1"),
    "twice the same arm": ({"arms": (Arm(name="a", loss=Unclipped()),) * 2}, "different names"),
    "no arm": ({"arms": ()}, "at least one"),
    "percent for fraction": ({"arms": (Arm(name="a", loss=KLCov(frac=20)),)}, "from_percent"),
    "no task": ({"data": SynLogic(tasks=())}, "empty"),
    "unknown task": ({"data": SynLogic(tasks=(("dyk_language", "tiny"),))}, "Did you mean 'dyck_language'"),
    "no steps": ({"steps": 0}, "at least 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_that_cannot_work_says_what_to_type(micro, name):
    change, advice = CHANGES[name]
    with pytest.raises(ValueError, match=advice):
        dataclasses.replace(micro, **change).build()


@pytest.mark.parametrize(("text", "advice"), [("", "no records"), ('{"prompt": "a"}\n', "Found: 'prompt'")])
def test_a_data_set_without_questions_says_what_was_found(micro, tmp_path, text, advice):
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=advice):
        dataclasses.replace(micro, data=JsonLines(path=str(file))).build()


@pytest.mark.parametrize(
    ("variant", "said"),
    [("raises", "(?s:.*)KeyError: 'no such column'"), ("hangs", "no reward within 0.1 s"), ("nan", "returned nan")],
)
def test_a_reward_that_never_works_stops_the_run_before_it_trains_on_zeros(lab, tmp_path, variant, said):
    from framework.config import load_experiment

    config = load_experiment(f"{lab.MICRO}:{variant}").config
    with pytest.raises(RewardError, match=f"The first failure:\\n\\n.*{said}"):
        lab.train(config, tmp_path / "run")


def test_a_reward_that_fails_now_and_then_is_counted_and_the_run_goes_on(lab, tmp_path):
    from framework.config import load_experiment

    run = lab.train(load_experiment(f"{lab.MICRO}:flaky").config, tmp_path / "run")
    lines = lab.rows(run.path / "unclipped/metrics.jsonl")[1:]
    assert sum(line["reward/errors"] for line in lines) > 0
    assert sum(line["reward/nonfinite"] for line in lines) > 0
    assert sum(line["reward/timeouts"] for line in lines) > 0
    assert run.stage("unclipped").done


def test_a_prompt_longer_than_the_budget_says_which_field_to_raise(lab, micro, tmp_path):
    short = dataclasses.replace(micro, rollout=dataclasses.replace(micro.rollout, max_prompt=4))
    with pytest.raises(UserError, match=r"rollout\.max_prompt=4\. Use rollout\.max_prompt="):
        lab.train(short, tmp_path / "run")
