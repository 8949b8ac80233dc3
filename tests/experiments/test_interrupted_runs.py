"""A run that was killed, stopped or found a broken checkpoint ends with the bits of one that nobody disturbed."""

import dataclasses
import os
import random
import shutil
import signal
import time

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
def test_kill_9_again_and_again_at_random_moments_gives_the_same_bits(lab, micro, whole, tmp_path):
    rng = random.Random(os.environ.get("MAYPOLE_KILL_SEED", "3"))
    words, ended = ("run", f"{lab.MICRO}:micro", "--name", "r"), False
    for _ in range(6):
        process = lab.start(*words, cwd=tmp_path)
        _wait_for_work(process, tmp_path / "runs/r", lines=rng.randrange(1, 6))
        time.sleep(rng.random() * 0.4)  # anywhere: in a save, a deletion, an evaluation, between two stages
        os.killpg(process.pid, signal.SIGKILL)
        ended = process.communicate()[0].rstrip().endswith("report.html") or ended
        words = ("resume", "runs/r")
    assert not ended, "every kill came after the end: give the run more steps"
    lab.maypole("resume", "runs/r", cwd=tmp_path)
    lab.assert_same_run(micro, RunDir.open(tmp_path / "runs/r"), whole)


def _wait_for_work(process, run, lines):
    """Until this attempt has written so many metric lines, in whatever stage, or has ended."""
    began, deadline = time.time(), time.monotonic() + 240
    seen: set[tuple[str, float]] = set()
    while len(seen) < lines and process.poll() is None:
        assert time.monotonic() < deadline
        for file in run.glob("*/metrics.jsonl"):
            changed = file.stat().st_mtime
            if changed > began:
                seen.add((file.parent.name, changed))
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "lines"), [("warm_start", 2), ("warm_start", 7), ("unclipped", 1), ("kl_cov", 5)])
def test_kill_9_anywhere_then_resume_gives_the_same_bits(lab, micro, whole, tmp_path, stage, lines):
    *_, run = kill_and_resume(lab, tmp_path, stage, lines, signal.SIGKILL)
    lab.assert_same_run(micro, run, whole)


def test_ctrl_c_saves_and_says_how_to_go_on(lab, micro, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    process = lab.start("run", f"{lab.MICRO}:micro", "--name", "r", cwd=tmp_path)
    run = tmp_path / "runs/r"
    lab.wait_for_lines(process, run / "unclipped/metrics.jsonl", 3)
    # Somebody else tries meanwhile, in vain; in this process, for a new one would start when the run is nearly over.
    assert lab.command("resume", "runs/r") == 2
    assert f"in use by process {process.pid}" in capsys.readouterr().err
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the reward workers as well
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 30
    assert process.returncode == 130, out + err
    assert err.splitlines()[-1] == "To continue: maypole resume runs/r"
    assert "Traceback" not in out + err
    stage = next(s for s in reversed(RunDir.open(run).stages()) if not s.done)
    last = lab.rows(stage.metrics_path)[-1]["step"]
    assert (stage.checkpoints_path / str(last) / "commit_success.txt").is_file()
    lab.maypole("resume", "runs/r", cwd=tmp_path)
    lab.assert_same_run(micro, RunDir.open(run), whole)


def test_a_half_written_checkpoint_is_never_loaded(lab, micro, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunDir.open(tmp_path / "run")
    stage = run.stage("kl_cov")
    (stage.path / "done.json").unlink()
    newest = max((p for p in stage.checkpoints_path.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    (newest / "commit_success.txt").unlink()  # the last thing a save writes
    shutil.copytree(newest, newest.with_name("900"))  # and one that claims to be further than the run ever gets
    micro.run(run)
    lab.assert_same_run(micro, run, whole)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lab, micro, whole, tmp_path):
    same = lab.train(micro, tmp_path / "same")
    lab.assert_same_run(micro, same, whole)
    other = lab.train(dataclasses.replace(micro, seed=1), tmp_path / "other")
    file = "unclipped/samples.jsonl"
    assert lab.rows(other.path / file) != lab.rows(whole.path / file)


def test_each_arm_compiles_its_update_once(micro, whole):
    assert [whole.stage(arm.name).summary["traces"] for arm in micro.arms] == [1, 1, 1]
