"""A run that was killed, stopped or found a broken checkpoint ends with the bits of one that nobody disturbed."""

import os
import shutil
import signal

import pytest

from framework.rundir import RunDir


def kill_and_resume(lab, folder, stage, lines, signum):
    """Start the micro run in a real process, hit it when `stage` has so many lines, and resume it to the end."""
    process = lab.start("run", f"{lab.MICRO}:micro", "--name", "r", cwd=folder)
    lab.wait_for_lines(process, folder / "runs/r" / stage / "metrics.jsonl", lines)
    os.killpg(process.pid, signum) if signum == signal.SIGKILL else process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    resumed = lab.maypole("resume", "runs/r", cwd=folder)
    return process.returncode, out + err, resumed, RunDir.open(folder / "runs/r")


def test_kill_9_in_an_arm_then_resume_gives_the_same_bits(lab, micro, whole, tmp_path):
    code, _, resumed, run = kill_and_resume(lab, tmp_path, "clip_cov", 3, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert resumed.stdout.splitlines()[-1].endswith("report.html")
    lab.assert_same_run(micro, run, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "lines"), [("warm_start", 2), ("warm_start", 7), ("unclipped", 1), ("kl_cov", 5)])
def test_kill_9_anywhere_then_resume_gives_the_same_bits(lab, micro, whole, tmp_path, stage, lines):
    *_, run = kill_and_resume(lab, tmp_path, stage, lines, signal.SIGKILL)
    lab.assert_same_run(micro, run, whole)


def test_ctrl_c_saves_and_says_how_to_go_on(lab, micro, whole, tmp_path):
    code, said, _, run = kill_and_resume(lab, tmp_path, "unclipped", 3, signal.SIGINT)
    assert code == 130
    assert "maypole resume runs/r" in said
    assert "Traceback" not in said
    lab.assert_same_run(micro, run, whole)


def test_a_half_written_checkpoint_is_never_loaded(lab, micro, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunDir.open(tmp_path / "run")
    stage = run.stage("kl_cov")
    (stage.path / "done.json").unlink()
    newest = max((p for p in stage.checkpoints_path.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    (newest / "commit_success.txt").unlink()  # the last thing a save writes
    micro.run(run)
    lab.assert_same_run(micro, run, whole)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lab, micro, whole, tmp_path):
    import dataclasses

    same = lab.train(micro, tmp_path / "same")
    lab.assert_same_run(micro, same, whole)
    other = lab.train(dataclasses.replace(micro, seed=1), tmp_path / "other")
    file = "unclipped/samples.jsonl"
    assert lab.rows(other.path / file) != lab.rows(whole.path / file)


def test_each_arm_compiles_its_update_once(micro, whole):
    assert [whole.stage(arm.name).summary["traces"] for arm in micro.arms] == [1, 1, 1]
