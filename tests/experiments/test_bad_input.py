"""Mistakes get one clear message, and nothing that was there is lost."""

import dataclasses

import pytest

from data.questions import JsonLines, SynLogic
from framework.errors import UserError
from framework.mesh import MeshConfig
from rl.config import Arm, Evaluation
from rl.losses import KLCov, Unclipped


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
def test_a_wrong_field_is_named_and_no_run_folder_is_left(lab, tmp_path, words, said):
    done = lab.maypole("run", "entropy_mechanism:smoke", "--name", "bad", *words, cwd=tmp_path, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs/bad").exists()


def test_an_existing_run_is_refused_and_kept(lab, tmp_path):
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/notes.txt").write_text("precious")
    done = lab.maypole("run", "entropy_mechanism:smoke", "--name", "mine", cwd=tmp_path, code=2)
    assert "already exists" in done.stderr
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


@pytest.mark.parametrize("variant", ["raises", "hangs", "nan"])
def test_a_reward_that_never_works_stops_the_run_before_it_trains_on_zeros(lab, tmp_path, variant):
    from framework.config import load_experiment

    config = load_experiment(f"{lab.MICRO}:{variant}").config
    with pytest.raises(UserError, match="reward"):
        lab.train(config, tmp_path / "run")


def test_a_reward_that_fails_now_and_then_is_counted_and_the_run_goes_on(lab, tmp_path):
    from framework.config import load_experiment

    run = lab.train(load_experiment(f"{lab.MICRO}:flaky").config, tmp_path / "run")
    lines = lab.rows(run.path / "unclipped/metrics.jsonl")[1:]
    assert sum(line["reward/errors"] for line in lines) > 0
    assert sum(line["reward/nonfinite"] for line in lines) > 0
    assert run.stage("unclipped").done


def test_a_prompt_longer_than_the_budget_says_which_field_to_raise(lab, micro, tmp_path):
    short = dataclasses.replace(micro, rollout=dataclasses.replace(micro.rollout, max_prompt=4))
    with pytest.raises(UserError, match=r"max_prompt|prompt_buckets"):
        lab.train(short, tmp_path / "run")


def test_other_group_sizes_for_evaluation_than_for_rollouts_work(lab, micro, tmp_path):
    odd = dataclasses.replace(
        micro, steps=1, arms=micro.arms[:1], evaluation=Evaluation(questions=5, samples=3, every=1)
    )
    assert lab.train(odd, tmp_path / "run").stage("unclipped").done
