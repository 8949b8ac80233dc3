"""Unusual but valid sizes train as well, compile what they declare, and do not change what a step computes."""

import dataclasses
import math

import numpy as np
import pytest

from framework.mesh import MeshConfig
from framework.optimizer import SGD
from rl.config import Arm, Evaluation, WarmStart
from rl.losses import Unclipped
from rl.setup import Setup


def small(micro, **changes):
    """One arm, one step, and no evaluation but the first and the last."""
    arms, evaluation = micro.arms[:1], dataclasses.replace(micro.evaluation, every=100)
    return dataclasses.replace(
        micro,
        **({"arms": arms, "steps": 1, "evaluation": evaluation, "warm_start": WarmStart(steps=1, batch=8)} | changes),
    )


def test_three_arms_of_five_steps_compile_each_program_once(lab, micro, tmp_path, monkeypatch):
    engines, make = [], Setup.engine
    monkeypatch.setattr(Setup, "engine", lambda *words: engines.append(make(*words)) or engines[-1])
    run = lab.train(micro, tmp_path / "run")
    (engine,) = engines
    assert engine.budget.traces("decode") == len(micro.engine_config().cache_lengths) == 1
    assert [run.stage(arm.name).summary["traces"] for arm in micro.arms] == [1, 1, 1]


def test_one_step_one_update_one_arm_and_other_groups_for_evaluation(lab, micro, tmp_path):
    rollout = dataclasses.replace(micro.rollout, prompts=1, samples=2, updates=1)
    odd = small(micro, rollout=rollout, evaluation=Evaluation(questions=5, samples=3, every=1))
    run = lab.train(odd, tmp_path / "run")
    before, after = lab.rows(run.stage("unclipped").metrics_path)
    assert run.stage("unclipped").done
    assert after["eval/count"] == before["eval/count"] == 5
    assert after["param/norm"] > 0


def test_an_arm_with_one_update_a_rollout_is_on_policy_and_moves_by_its_own_optimizer(lab, micro, tmp_path):
    arm = Arm(name="on_policy", loss=Unclipped(), updates=1, optimizer=SGD(lr=0.5))
    run = lab.train(small(micro, arms=(arm,)), tmp_path / "run")
    line = lab.rows(run.stage("on_policy").metrics_path)[-1]
    assert line["policy/abs_log_ratio"] < 1e-5
    assert math.isclose(line["update/norm"], 0.5 * line["grad/norm"], rel_tol=1e-5)
    policy = small(micro, arms=(arm,)).policy(run.stage("on_policy"))  # its checkpoint holds the state of SGD
    assert len(policy.generate(["dyck (["], samples=1, temperature=1.0, max_tokens=5, seed=0)) == 1


def test_a_finished_arm_goes_on_when_its_config_asks_for_more_steps(lab, micro, tmp_path):
    run = lab.train(small(micro), tmp_path / "run")
    longer = small(micro, steps=3)
    longer.run(run)
    assert run.stage("unclipped").summary["steps"] == 3
    assert [line["step"] for line in lab.rows(run.stage("unclipped").metrics_path)] == [0, 1, 2, 3]
    whole = lab.train(longer, tmp_path / "whole")
    (_, got), (_, want) = (lab.final_state(longer, r.stage("unclipped")) for r in (run, whole))
    assert all(np.array_equal(got[name], want[name]) for name in want)


def test_scores_that_fail_are_counted_in_the_evaluation(lab, micro, tmp_path):
    config = small(micro, evaluation=dataclasses.replace(micro.evaluation, score=_fails_on_one_task))
    run = lab.train(config, tmp_path / "run")
    last = lab.rows(run.stage("unclipped").metrics_path)[-1]
    asked = sum(sample.task == "dyck_language" for sample in config.build().heldout)
    assert last["eval/failed"] == asked * (config.evaluation.samples + 1) > 0  # each sample, and the greedy answer


def _fails_on_one_task(sample, response):
    return float("nan") if sample.task == "dyck_language" else 1.0


def test_a_run_without_a_warm_start_can_be_resumed_and_asked(lab, micro, tmp_path):
    config = small(micro, warm_start=WarmStart(steps=0))
    run = lab.train(config, tmp_path / "run")
    step, _ = lab.final_state(config, run.stage("warm_start"))
    assert step == 0
    want = lab.final_state(config, run.stage("unclipped"))[1]
    for name in ("done.json", "metrics.jsonl", "samples.jsonl"):
        (run.stage("unclipped").path / name).unlink()
    for folder in run.stage("unclipped").checkpoints_path.iterdir():
        (folder / "commit_success.txt").unlink()
    config.run(run)  # the warm start is done: its weights are loaded
    got = lab.final_state(config, run.stage("unclipped"))[1]
    assert all(np.array_equal(got[name], want[name]) for name in want)
    (answers,) = config.policy(run.stage("warm_start")).generate(
        ["dyck (["], samples=2, temperature=1.0, max_tokens=5, seed=0
    )
    assert len(answers) == 2


def test_micro_batches_do_not_change_the_update(lab, micro, tmp_path):
    one = small(micro, arms=micro.arms[1:2])  # Clip-Cov: what is picked depends on the whole batch
    two = dataclasses.replace(one, rollout=dataclasses.replace(one.rollout, microbatches=2))
    runs = [lab.train(config, tmp_path / name) for config, name in ((one, "one"), (two, "two"))]
    (_, want), (_, got) = (lab.final_state(one, run.stage("clip_cov")) for run in runs)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)  # sums in another order


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=1)], ids=["data", "data+fsdp"])
def test_a_mesh_gives_the_first_step_of_one_device(lab, micro, tmp_path, mesh):
    one = small(micro, rollout=dataclasses.replace(micro.rollout, prompts=8))
    many = dataclasses.replace(one, mesh=mesh)
    want, got = (
        lab.rows(lab.train(config, tmp_path / name).stage("unclipped").metrics_path)[1]
        for config, name in ((one, "one"), (many, "many"))
    )
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert math.isclose(got[name], value, rel_tol=1e-4, abs_tol=1e-4), name


@pytest.mark.slow
def test_fewer_prompts_than_devices_still_run(lab, micro, tmp_path):
    config = small(micro, mesh=MeshConfig(data=8))  # 4 prompts of 4 samples in 2 updates: 8 rows each
    run = lab.train(config, tmp_path / "run")
    assert run.stage("unclipped").done
    (answers,) = config.policy(run.stage("unclipped")).generate(["a"], samples=1, temperature=1.0, max_tokens=5, seed=0)
    assert len(answers) == 1
