"""`fit`: what is evaluated, logged and saved when, and how it stops."""

import contextlib
import io
import json
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from framework.checkpoint import Checkpoints
from framework.console import Console
from framework.loop import Interrupted, NonFiniteLoss, fit
from framework.metrics import MetricLogger

INITIAL = {"w": jnp.zeros(3), "n": jnp.zeros((), jnp.int32)}


@jax.jit
def update(state, index):
    return {
        "w": state["w"] * 0.9 + jax.random.normal(jax.random.fold_in(jax.random.key(0), index), 3),
        "n": state["n"] + 1,
    }


def step_fn(state, index):
    state = update(state, index)
    return state, {"loss/total": float(state["w"].sum())}


def evaluate(state, finished):
    return {"eval/accuracy": float(state["w"][0]) + finished}


def run(folder, steps=10, step_fn=step_fn, evaluate=evaluate, **kwargs):
    kwargs = {"evaluate_every": 4, "checkpoint_every": 3} | kwargs
    with MetricLogger(folder, tensorboard=False) as logger, Console(file=io.StringIO(), live=False) as console:
        return fit(
            state=INITIAL,
            steps=steps,
            step_fn=step_fn,
            stage="toy",
            checkpoints=Checkpoints(folder / "checkpoints"),
            logger=logger,
            console=console,
            evaluate=evaluate,
            **kwargs,
        )


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


def saved(folder):
    return Checkpoints(folder / "checkpoints").steps()


def test_a_run_evaluates_at_zero_at_each_interval_and_at_the_end_in_the_line_of_the_step(tmp_path):
    state = run(tmp_path)
    assert int(state["n"]) == 10
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == list(range(11))
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 4, 8, 10]
    assert all("loss/total" in row for row in rows[1:])
    assert saved(tmp_path) == [6, 9, 10]


def test_a_finished_run_does_nothing_more_and_a_longer_one_goes_on(tmp_path):
    first = run(tmp_path, steps=4)
    calls = []

    def counting(state, index):
        calls.append(index)
        return step_fn(state, index)

    again = run(tmp_path, steps=4, step_fn=counting)
    np.testing.assert_array_equal(first["w"], again["w"])
    assert calls == []
    run(tmp_path, steps=6, step_fn=counting)
    assert calls == [4, 5]
    assert [row["step"] for row in lines(tmp_path)] == list(range(7))


@pytest.mark.parametrize("dies_at", [0, 2, 3, 4, 5, 9])
def test_a_run_that_dies_anywhere_and_is_resumed_has_the_bits_and_the_lines_of_one_that_did_not(tmp_path, dies_at):
    want = run(tmp_path / "whole")

    def dying(state, index):
        if index == dies_at:
            raise OSError("the machine is gone")
        return step_fn(state, index)

    with pytest.raises(OSError, match="gone"):
        run(tmp_path / "killed", step_fn=dying)
    got = run(tmp_path / "killed")
    np.testing.assert_array_equal(got["w"], want["w"])
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_dying_in_an_evaluation_repeats_it(tmp_path):
    run(tmp_path / "whole")

    def dying(state, finished):
        if finished == 8:
            raise OSError
        return evaluate(state, finished)

    with pytest.raises(OSError):
        run(tmp_path / "killed", evaluate=dying)
    run(tmp_path / "killed")
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_it_and_gives_the_handlers_back(tmp_path, signum):
    before = signal.getsignal(signum)

    def signalled(state, index):
        if index == 4:
            os.kill(os.getpid(), signum)
        return step_fn(state, index)

    with pytest.raises(Interrupted, match=r"stopped stage 'toy' after step 5 of 10; saved in .*/5\.") as error:
        run(tmp_path, step_fn=signalled)
    assert (error.value.step, error.value.signum) == (5, signum)
    assert saved(tmp_path) == [3, 5]
    assert signal.getsignal(signum) is before
    assert lines(tmp_path)[-1]["step"] == 5
    run(tmp_path / "whole")
    run(tmp_path)
    assert lines(tmp_path) == lines(tmp_path / "whole")


def test_a_second_signal_stops_at_once(tmp_path):
    def twice(state, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on after the second signal")
        return step_fn(state, index)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, step_fn=twice)
    assert saved(tmp_path) == [3]


def test_a_signal_in_the_last_step_is_no_interruption(tmp_path):
    def signalled(state, index):
        if index == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_fn(state, index)

    assert int(run(tmp_path, step_fn=signalled)["n"]) == 10


def test_a_signal_in_the_last_step_stops_before_the_stage_that_would_follow(tmp_path):
    def signalled(state, index):
        if index == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return step_fn(state, index)

    with pytest.raises(Interrupted, match=r"after step 10 of 10; saved in .*/10\."):
        run(tmp_path, step_fn=signalled, more_follows=True)
    run(tmp_path / "whole")
    assert int(run(tmp_path, more_follows=True)["n"]) == 10  # resumed: nothing is left to do
    assert lines(tmp_path) == lines(tmp_path / "whole")


def test_a_signal_before_the_first_step_saves_nothing(tmp_path):
    def signalled(state, finished):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(state, finished)

    with pytest.raises(Interrupted, match="after step 0 of 10; nothing to save yet"):
        run(tmp_path, evaluate=signalled)
    assert saved(tmp_path) == []


def test_other_threads_train_without_signal_handlers(tmp_path):
    result = []
    thread = threading.Thread(target=lambda: result.append(run(tmp_path, steps=3)))
    thread.start()
    thread.join()
    assert int(result[0]["n"]) == 3


@pytest.mark.parametrize("key", ["loss/total", "grad/norm"])
def test_a_non_finite_step_is_logged_not_saved_and_names_the_last_good_checkpoint(tmp_path, key):
    def broken(state, index):
        state, metrics = step_fn(state, index)
        return state, metrics | ({key: float("nan")} if index == 5 else {})

    with pytest.raises(
        NonFiniteLoss, match=rf"{key} is nan at step 6.*last good checkpoint is .*checkpoints/3"
    ) as error:
        run(tmp_path, step_fn=broken)
    assert error.value.step == 6
    assert "The same config would give the same numbers again: lower the learning rate" in str(error.value)
    assert saved(tmp_path) == [3], "step 6 was due, but its state is broken"
    assert lines(tmp_path)[-1][key] is None
    assert int(run(tmp_path)["n"]) == 10


def test_without_a_checkpoint_the_non_finite_error_says_there_is_none(tmp_path):
    with pytest.raises(NonFiniteLoss, match="There is no checkpoint yet"):
        run(tmp_path, step_fn=lambda state, index: (state, {"loss/total": float("inf")}))


def test_lines_without_a_checkpoint_behind_them_are_started_anew(tmp_path):
    def dying(state, index):
        if index == 2:
            raise OSError
        return step_fn(state, index)

    for _ in range(2):
        with contextlib.suppress(OSError):
            run(tmp_path, step_fn=dying)
    assert [row["step"] for row in lines(tmp_path)] == [0, 1, 2]
