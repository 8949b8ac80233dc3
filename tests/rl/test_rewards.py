"""The reward pool: whatever a reward function does, the run goes on and the right sample pays."""

import contextlib
import functools
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from framework.sample import Sample
from rl.rewards import RewardError, RewardPool

SAMPLE = Sample(task="t", question="q", answer="7")


def misbehave(sample: Sample, response: str):
    """Does what the response says; otherwise the reward is the response as a number."""
    match response:
        case "raise":
            raise ValueError("a mistake in the verifier")
        case "exit":
            sys.exit(0)
        case "sleep":
            time.sleep(60)
        case "loop":
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0)
        case "regex":
            __import__("re").match(r"(a+)+$", "a" * 40 + "b")
        case "stuck in C":
            sum(itertools.repeat(0))  # never looks at a signal
        case "die":
            os._exit(3)
        case "die quietly":
            os._exit(0)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "own alarm":
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(0)
        case "none":
            return None
        case "text":
            return "1.0"
        case "pair":
            return (1.0, 2.0)
        case "numpy":
            return np.array(4, np.int64)
        case "true":
            return True
    return float(response)


@pytest.fixture(scope="module")
def pool():
    with RewardPool(misbehave, workers=2, timeout_s=0.3) as pool:
        assert pool([SAMPLE], ["1"]).rewards == [1.0]
        yield pool


@pytest.mark.parametrize(
    ("response", "metric", "message"),
    [
        ("raise", "reward/errors", "a mistake in the verifier"),
        ("exit", "reward/errors", "SystemExit"),
        ("none", "reward/errors", "must return one number"),
        ("text", "reward/errors", "must return one number"),
        ("pair", "reward/errors", "must return one number"),
        ("sleep", "reward/timeouts", "within 0.3 s"),
        ("loop", "reward/timeouts", "within 0.3 s"),
        ("regex", "reward/timeouts", "within 0.3 s"),
        ("stuck in C", "reward/timeouts", "signal was ignored"),
        ("die", "reward/errors", "exit code 3"),
        ("die quietly", "reward/errors", "ended its worker"),
        ("segfault", "reward/errors", "exit code -11"),
        ("nan", "reward/nonfinite", "nan"),
        ("-inf", "reward/nonfinite", "-inf"),
        ("1e300", "reward/nonfinite", "1e+300"),
    ],
)
def test_only_the_guilty_sample_gets_zero(pool, response, metric, message):
    responses = [str(i) for i in range(1, 21)]
    responses[11] = response
    out = pool([SAMPLE] * 20, responses)
    np.testing.assert_array_equal(out.rewards, [0 if i == 11 else i + 1 for i in range(20)])
    assert out.rewards.dtype == np.float32
    assert out.metrics == {"reward/errors": 0, "reward/timeouts": 0, "reward/nonfinite": 0} | {metric: 1}
    assert message in out.last_error
    assert pool.last_error == out.last_error


def test_numbers_of_all_kinds_are_rewards(pool):
    out = pool([SAMPLE] * 3, ["numpy", "true", "0.5"])
    np.testing.assert_array_equal(out.rewards, [4.0, 1.0, 0.5])
    assert out.last_error == ""


def test_a_verifier_with_its_own_alarm_does_not_disarm_the_next_sample(pool):
    out = pool([SAMPLE] * 4, ["own alarm", "sleep", "own alarm", "sleep"])
    assert out.metrics["reward/timeouts"] == 2


def test_a_worker_killed_while_idle_is_replaced(pool):
    for pid in list(pool._pool._pool_manager.worker_manager.workers):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    np.testing.assert_array_equal(pool([SAMPLE] * 40, ["2"] * 40).rewards, [2.0] * 40)


def test_order_is_kept_and_a_warm_batch_is_fast(pool):
    responses = [str(i) for i in range(256)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.testing.assert_array_equal(pool([SAMPLE] * 256, responses).rewards, range(256))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2  # about 20 ms on an idle machine


def test_no_samples_and_uneven_samples(pool):
    assert pool([], []).rewards.shape == (0,)
    with pytest.raises(ValueError, match="2 samples but 1 responses"):
        pool([SAMPLE] * 2, ["1"])


def test_lambdas_closures_partials_and_objects_travel():
    class Judge:
        def __call__(self, sample, response):
            return float(response == sample.answer)

    bonus = 2.0
    for reward in (
        lambda s, r: float(r == s.answer) * bonus,
        functools.partial(lambda scale, s, r: scale * (r == s.answer), 2.0),
        Judge(),
    ):
        with RewardPool(reward, workers=1) as pool:
            out = pool([SAMPLE] * 2, ["7", "8"]).rewards
        assert out[0] > 0 == out[1]


def test_a_function_of_a_file_run_by_path_travels(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "GOOD = '7'\ndef helper(r): return r == GOOD\ndef reward(sample, response): return helper(response)\n"
    )
    spec = importlib.util.spec_from_file_location("maypole_user_mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        with RewardPool(module.reward, workers=1) as pool:
            np.testing.assert_array_equal(pool([SAMPLE] * 2, ["7", "8"]).rewards, [1, 0])
    finally:
        del sys.modules[spec.name]


def test_a_function_that_never_works_is_an_error_with_its_traceback():
    with (
        pytest.raises(RewardError, match=r"(?s)any of the first 3 samples.*KeyError: 'truth'"),
        RewardPool(lambda s, r: s.meta["truth"], workers=1) as pool,
    ):
        pool([SAMPLE] * 3, ["1", "2", "3"])


def test_a_wrong_signature_is_refused_before_any_process_starts():
    with pytest.raises(RewardError, match=r"called as reward_fn\(sample, response\)"):
        RewardPool(lambda response: 1.0)  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_sent_to_a_process_is_refused(tmp_path):
    with open(tmp_path / "log", "w") as file, pytest.raises(RewardError, match="open files"):
        RewardPool(lambda s, r: float(file.write(r)))


@pytest.mark.parametrize(("kwargs", "match"), [({"workers": 0}, "workers=0"), ({"timeout_s": 0.0}, "timeout_s=0.0")])
def test_settings_that_cannot_work_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        RewardPool(lambda s, r: 1.0, **kwargs)


def test_a_closed_pool_says_so():
    pool = RewardPool(lambda s, r: 1.0)
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool([SAMPLE], ["1"])


SCRIPT = """
import sys, time
from framework.sample import Sample
from rl.rewards import RewardPool
assert "jax" not in sys.modules
print("main runs", flush=True)

def reward(sample, response):
    time.sleep(float(response))
    return 1.0

pool = RewardPool(reward, workers=2, timeout_s=30)
with pool:
    print(pool([Sample(task="t", question="q")] * 2, [sys.argv[1]] * 2).rewards.sum(), flush=True)
"""


def test_a_script_without_a_main_guard_runs_once_and_needs_no_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    for args in ([str(script)], ["-c", SCRIPT]):
        out = subprocess.run([sys.executable, *args, "0"], capture_output=True, text=True, timeout=30)
        assert out.stdout.split("\n")[:2] == ["main runs", "2.0"], out.stderr
        assert out.stderr == ""
        assert out.returncode == 0


LATE_SCRIPT = """
import multiprocessing, sys, time
import pebble.pool.process
from rl.rewards import RewardPool

stop = pebble.pool.process.stop_process

def stop_late(process):
    time.sleep(float(sys.argv[1]))
    stop(process)

pebble.pool.process.stop_process = stop_late  # a busy machine: the workers get to their closed pipe before they are ended
pool = RewardPool(lambda sample, response: 1.0, workers=2)
pool.warm()
pool.close()
print(multiprocessing.active_children())
"""


@pytest.mark.parametrize("late_s", ["0", "1"])
def test_closing_a_pool_that_is_still_starting_prints_nothing_and_leaves_no_worker(late_s):
    # A worker that outlived the script would hold stderr open, and run() would wait for it.
    out = subprocess.run([sys.executable, "-c", LATE_SCRIPT, late_s], capture_output=True, text=True, timeout=20)
    assert (out.stdout, out.stderr, out.returncode) == ("[]\n", "", 0)


def test_ctrl_c_ends_the_run_at_once_without_noise_from_the_workers():
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, which gets the signal as a terminal would send it
    )
    assert run.stdout is not None
    run.stdout.readline()
    time.sleep(0.5)
    start = time.perf_counter()
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=15)
    assert time.perf_counter() - start < 10
    assert err.count("KeyboardInterrupt") == 1
