"""Real processes, really killed: the resumed run ends with the bits of the one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from framework.checkpoint import Checkpoints

STEPS = 24

# A regression with AdamW through the whole stack: sharded state, donated step, batches that depend on the step alone.
TOY = f"""
import sys, time
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from framework.checkpoint import Checkpoints
from framework.console import Console
from framework.loop import Interrupted, fit
from framework.mesh import MeshConfig, put_batch, shard_tree
from framework.metrics import MetricLogger
from framework.optimizer import AdamW
from framework.retrace import TraceBudget
from framework.state import TrainState

folder, pause = Path(sys.argv[1]), float(sys.argv[2])
mesh, tx, budget = MeshConfig(data=2, fsdp=2).build(), AdamW(lr=1e-2, weight_decay=0.1).build(), TraceBudget()

def create():
    a, b = jax.random.split(jax.random.key(0))
    w = nnx.Param(jax.random.normal(a, (8, 16)), logical=("embed", "mlp"))
    return TrainState.create(nnx.State({{"w": w, "v": nnx.Param(jax.random.normal(b, (16,)))}}), tx)

def train(state, x):
    def loss_fn(p):
        return jnp.mean((jnp.tanh(x @ p["w"][...]) @ p["v"][...] - x.sum(-1)) ** 2)
    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    state, metrics = state.apply(grads, tx)
    return state, metrics | {{"loss/total": loss}}

shardings = shard_tree(mesh, jax.eval_shape(create))
train = jax.jit(budget.counted(train, "train"), donate_argnums=0, out_shardings=(shardings, None))

def step_fn(state, index):
    time.sleep(pause)
    x = np.random.default_rng(index).standard_normal((32, 8), np.float32)
    state, metrics = train(state, put_batch(mesh, x))
    logger.samples(index + 1, [{{"split": "train", "response": str(index)}}])
    return state, {{k: float(v) for k, v in metrics.items()}}

def evaluate(state, finished):
    return {{"eval/accuracy": float(state.params["v"][...].sum())}}

with MetricLogger(folder) as logger, Console(stages=[("toy", {STEPS})]) as console:
    try:
        state = fit(state=jax.jit(create, out_shardings=shardings)(), steps={STEPS}, step_fn=step_fn, stage="toy",
                    checkpoints=Checkpoints(folder / "checkpoints"), logger=logger, console=console,
                    evaluate=evaluate, evaluate_every=5, checkpoint_every=2)
    except Interrupted as stopped:
        print(stopped)
        sys.exit(128 + stopped.signum)
leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
(folder / "final.bits").write_bytes(b"".join(leaf.tobytes() for leaf in leaves))
"""


def start(folder, pause=0.0):
    folder.mkdir(exist_ok=True)
    (folder / "toy.py").write_text(TOY)
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(folder / "toy.py"), str(folder), str(pause)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(folder):
    process = start(folder)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


def wait_for_lines(process, folder, count):
    """Until the run has written so many metric lines."""
    path = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)


def rows(path):
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in parsed]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run nobody touched: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(folder)


def assert_same(folder, whole):
    assert (folder / "final.bits").read_bytes() == (whole / "final.bits").read_bytes()
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(folder / name) == rows(whole / name)


def test_a_run_prints_progress_and_nothing_on_the_error_stream(whole):
    out, err = whole[1]
    assert out.splitlines()[0] == f"toy: {STEPS} steps"
    assert f"toy {STEPS}/{STEPS}" in out
    assert err == ""


@pytest.mark.slow
def test_kill_nine_at_random_moments_then_resume_gives_the_same_bits(tmp_path, whole):
    rng = random.Random(os.environ.get("MAYPOLE_KILL_SEED", "5"))
    for attempt in range(3):
        process = start(tmp_path, pause=0.005)
        wait_for_lines(process, tmp_path, 2 + attempt * 6 + rng.randrange(6))
        time.sleep(rng.random() * 0.02)  # anywhere in a step, a save or a deletion
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(tmp_path)
    assert_same(tmp_path, whole[0])
    assert all(p.name.isdecimal() for p in (tmp_path / "checkpoints").iterdir())


def test_ctrl_c_stops_cleanly_with_a_checkpoint_and_its_exit_code(tmp_path):
    process = start(tmp_path, pause=0.05)
    wait_for_lines(process, tmp_path, 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    last = rows(tmp_path / "metrics.jsonl")[-1]["step"]
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == last
    assert f"SIGINT stopped stage 'toy' after step {last} of {STEPS}; saved in" in out
    assert err.strip() == "SIGINT: finishing this step, then saving. Press Ctrl-C again to stop at once."
