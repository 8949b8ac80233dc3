"""Real processes on this machine that are one run: same numbers as one process, one writer, and a clean end when one dies."""

import json
import os
import re
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest
from hosts import TOY, Hosts, rows

from framework.checkpoint import Checkpoints
from framework.errors import UserError
from framework.rundir import RunDir, wait_for_run

STEPS = 6
# The order of a sum over devices differs with their number: float32 sums of 32 numbers near 1, and a few AdamW steps on top.
CLOSE = 1e-5


def assert_close(found, wanted):
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for row, want in zip(found, wanted, strict=True):
        for name, value in want.items():
            assert row[name] == pytest.approx(value, rel=CLOSE, abs=1e-6), (want["step"], name)


def bits(run, i=0):
    return (run / f"final-{i}.bits").read_bytes()


def checkpoints(run):
    return Checkpoints(run / "toy" / "checkpoints").steps()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run of a single process, of nine steps; what any number of processes must give."""
    folder = tmp_path_factory.mktemp("one")
    with Hosts(folder / "io", 1, ["run", TOY, "--dir", str(folder), "--name", "run", "--steps", "9"]) as hosts:
        hosts.finish()
    return folder / "run"


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The run of four processes, each with a quarter of the weights."""
    folder = tmp_path_factory.mktemp("four")
    with Hosts(folder / "io", 4, ["run", TOY, "--dir", str(folder), "--name", "run"]) as hosts:
        hosts.finish()
    return folder / "run"


def resumed(run, folder, count, steps):
    """The same run continued by another number of processes, in a copy of its folder."""
    shutil.copytree(run, folder / "run")
    words = ["resume", str(folder / "run"), "--accept-config-change", "--steps", str(steps)]
    with Hosts(folder / "io", count, words) as hosts:
        hosts.finish()
    return folder / "run"


def test_two_processes_give_the_losses_of_one_and_only_the_first_writes(tmp_path):
    """The two-process run also compares itself with a run of one process: what `one` does, in the same test."""
    words = ["run", TOY, "--dir", str(tmp_path), "--steps", "3"]
    with (
        Hosts(tmp_path / "io1", 1, [*words, "--name", "a"]) as single,
        Hosts(tmp_path / "io2", 2, [*words, "--name", "b"]) as hosts,
    ):
        single.finish()
        hosts.finish()
        out = hosts.out(0)
        assert "2 of 2 processes joined: 0 (" in out
        assert "2 processes, 2 devices" in out
        assert "toy 3/3" in out
        assert "report.html" in out
        # The second one says nothing, apart from a line that gloo prints from C++.
        assert [line for line in hosts.out(1).splitlines() if "[Gloo]" not in line] == []
        assert hosts.err(1) == hosts.err(0) == ""
    a, b = tmp_path / "a", tmp_path / "b"
    assert_close(rows(b / "toy" / "metrics.jsonl"), rows(a / "toy" / "metrics.jsonl"))
    assert [row["step"] for row in rows(b / "toy" / "metrics.jsonl")] == [0, 1, 2, 3]
    assert bits(b, 0) == bits(b, 1)
    assert json.loads((b / "toy" / "done.json").read_text()) == {"steps": 3}
    assert not (b / "lock").exists()


@pytest.mark.slow
def test_four_processes_give_the_losses_of_one(one, four):
    # The evaluation at the end of the shorter run has no line in the longer one.
    assert_close(
        [{k: v for k, v in row.items() if k != "eval/accuracy"} for row in rows(four / "toy" / "metrics.jsonl")],
        [{k: v for k, v in row.items() if k != "eval/accuracy"} for row in rows(one / "toy" / "metrics.jsonl")][
            : STEPS + 1
        ],
    )
    assert {bits(four, i) for i in range(4)} == {bits(four)}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_checkpoint_written_by_four_is_read_by_fewer(tmp_path, one, four, count):
    run = resumed(four, tmp_path, count, 9)
    assert_close(rows(run / "toy" / "metrics.jsonl")[STEPS + 1 :], rows(one / "toy" / "metrics.jsonl")[STEPS + 1 :])
    np.testing.assert_allclose(
        np.frombuffer(bits(run), np.float32), np.frombuffer(bits(one), np.float32), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_what_four_saved_is_bit_for_bit_what_they_had(four):
    code = f"""
import sys; sys.argv = ["x"]
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from framework.checkpoint import Checkpoints
from framework.optimizer import AdamW
from framework.state import TrainState
params = nnx.State({{"w": nnx.Param(jnp.zeros((8, 16))), "v": nnx.Param(jnp.zeros((16,)))}})
state = TrainState.create(params, AdamW(lr=1e-2, weight_decay=0.1).build())
step, state, _ = Checkpoints({str(four / "toy" / "checkpoints")!r}).restore_latest(state)
assert step == {STEPS}
sys.stdout.buffer.write(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)))
"""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == bits(four)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "killed"), [(4, 2), (2, 0)])
def test_when_one_is_killed_the_others_stop_with_its_name_and_a_restart_resumes(tmp_path, count, killed):
    """The restarted run ends with the bits of one that nobody touched."""
    words = ["run", TOY, "--dir", str(tmp_path), "--steps", "8"]
    run = tmp_path / "run"
    with Hosts(tmp_path / "io", count, [*words, "--name", "run", "--pause_s", "0.3"]) as hosts:
        hosts.wait_for_steps(run / "toy" / "metrics.jsonl", 4)
        began = time.monotonic()
        hosts.kill(killed)
        codes = hosts.codes_within(60)
        assert time.monotonic() - began < 60
        assert codes == {i: -9 if i == killed else 75 for i in range(count)}
        for i in set(range(count)) - {killed}:
            err = hosts.err(i)
            assert re.search(rf"error: process {killed}( \(|, which leads).* is gone: its connection closed", err)
            assert (
                f"maypole resume {run} --coordinator 127.0.0.1:{hosts.port} --processes {count} --process-id {i}" in err
            )
            assert "Traceback" not in err
            assert "***" not in err  # the stack dump of jax's own watch
    with Hosts(tmp_path / "io2", count, ["resume", str(run)]) as hosts:
        hosts.finish()
        assert "toy: continuing after step" in hosts.out(0)
    with Hosts(tmp_path / "io3", count, [*words, "--name", "whole"]) as hosts:
        hosts.finish()
    assert bits(run) == bits(tmp_path / "whole")
    assert rows(run / "toy" / "metrics.jsonl") == rows(tmp_path / "whole" / "toy" / "metrics.jsonl")


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_step_with_one_checkpoint(tmp_path):
    words = ["run", TOY, "--dir", str(tmp_path), "--name", "run", "--steps", "500", "--pause_s", "0.2"]
    run = tmp_path / "run"
    with Hosts(tmp_path / "io", 2, words) as hosts:
        hosts.wait_for_steps(run / "toy" / "metrics.jsonl", 3)
        hosts.kill(1, signal.SIGTERM)
        assert hosts.codes_within(60) == {0: 143, 1: 143}
        last = rows(run / "toy" / "metrics.jsonl")[-1]["step"]
        assert checkpoints(run)[-1] == last
        assert f"SIGTERM stopped stage 'toy' after step {last} of 500; saved in" in hosts.err(0)
    # The same command, typed again by a scheduler, continues; other words under that name are refused.
    more = ["--or-resume", "--accept-config-change"]
    with Hosts(tmp_path / "io2", 2, [*words[:-4], more[0], "--steps", "3"]) as hosts:
        assert hosts.codes_within(100) == {0: 2, 1: 2}
        assert "was started with" in hosts.err(0)
    with Hosts(tmp_path / "io3", 2, [*words, more[0]]) as hosts:
        hosts.wait_for_steps(run / "toy" / "metrics.jsonl", last + 2)
        assert f"toy: continuing after step {last} of 500" in hosts.out(0)


@pytest.mark.slow
def test_an_error_on_one_host_ends_all_and_the_others_say_which(tmp_path):
    words = ["run", TOY, "--dir", str(tmp_path), "--name", "run", "--crash", "1"]
    with Hosts(tmp_path / "io", 2, words) as hosts:
        assert hosts.codes_within(90) == {0: 1, 1: 1}
        assert "RuntimeError: a bug on one host" in hosts.err(1)
        assert "Traceback" in hosts.err(1)
        assert f"process 1 ({socket.gethostname()}) has stopped: RuntimeError: a bug on one host." in hosts.err(0)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_in_the_same_way_and_is_said_once(tmp_path):
    words = ["run", TOY, "--dir", str(tmp_path), "--name", "run", "--nan_at", "2"]
    with Hosts(tmp_path / "io", 2, words) as hosts:
        assert hosts.codes_within(90) == {0: 1, 1: 1}
        assert "loss/total is nan at step 3" in hosts.err(0)
        assert hosts.err(1) == ""
    assert checkpoints(tmp_path / "run")[-1] == 2


@pytest.mark.slow
def test_hosts_with_another_config_are_told_the_difference(tmp_path):
    words = ["run", TOY, "--dir", str(tmp_path), "--name", "run"]
    with Hosts(tmp_path / "io", 2, words, own={1: ["--seed", "5"]}) as hosts:
        codes = hosts.codes_within(60)
        assert codes[1] == 2
        assert "Type the same on every host" in hosts.err(1)


def test_who_does_not_come_is_named_with_the_command_to_type(tmp_path):
    words = ["run", TOY, "--dir", str(tmp_path), "--name", "run", "--join-timeout", "1", "--seed", "3"]
    with Hosts(tmp_path / "io", 2, words, start=[0]) as hosts:
        assert hosts.codes_within(60) == {0: 75}
        host = socket.gethostname()
        assert f"1 of 2 processes joined: 0 ({host}); missing after 1 s: 1. On each missing host type:" in hosts.err(0)
        typed = (
            f"maypole run {TOY} --dir {tmp_path} --name run --seed 3 --coordinator 127.0.0.1:{hosts.port} --processes 2"
        )
        assert f"{typed} --process-id 1" in hosts.err(0)
    assert not (tmp_path / "run").exists()  # nothing was begun


@pytest.mark.slow
def test_grpo_on_two_processes_gives_the_numbers_of_one(tmp_path):
    words = ["run", "tests/framework/fixtures/many_hosts_grpo.py:config", "--dir", str(tmp_path)]
    with Hosts(tmp_path / "io1", 1, [*words, "--name", "a"]) as hosts:
        hosts.finish()
    with Hosts(tmp_path / "io2", 2, [*words, "--name", "b"]) as hosts:
        hosts.finish()
    for stage in ("warm_start", "clip_cov"):
        a, b = (rows(tmp_path / run / stage / "metrics.jsonl") for run in "ab")
        assert [row.keys() for row in a] == [row.keys() for row in b]
        for row, want in zip(b, a, strict=True):
            for name, value in want.items():
                # Differences of nearly equal numbers keep few digits: float32 carries 1e-7 of entropies near 5.
                assert row[name] == pytest.approx(value, rel=1e-3, abs=5e-6), (stage, want["step"], name)
        texts = [[row["response"] for row in rows(tmp_path / run / stage / "samples.jsonl")] for run in "ab"]
        assert texts[0] == texts[1]
    last = rows(tmp_path / "b" / "clip_cov" / "metrics.jsonl")[-1]
    assert last["reward/mean"] > 0
    assert last["grad/norm"] > 0


def test_a_run_folder_that_a_host_does_not_see_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="one shared file system"):
        wait_for_run(tmp_path / "mine", "of another", timeout_s=0.3)


def test_a_lock_of_another_machine_holds_while_it_is_touched_and_is_taken_over_after(tmp_path, monkeypatch):
    monkeypatch.setattr("framework.runlock.STALE_S", 1.2)
    run = RunDir(tmp_path, "x", ())
    lock = tmp_path / "lock"
    content = json.dumps({"pid": os.getpid(), "start": 1, "host": "another-machine"})
    lock.write_text(content)
    stop = threading.Event()

    def touch():
        while not stop.wait(0.2):
            os.utime(lock)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(UserError, match="on another-machine, which works on it now"), run.lock():
            pass
    finally:
        stop.set()
        thread.join()
    assert lock.read_text() == content
    with run.lock():
        assert json.loads(lock.read_text())["host"] == socket.gethostname()
    assert not lock.exists()
