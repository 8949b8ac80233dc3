"""Whole runs: in this process where the claim is about numbers, in a real one where it is about the command."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MICRO = Path(__file__).parent / "fixtures" / "micro_experiment.py"
TIMING = ("time", "throughput/")


@pytest.fixture(scope="session")
def micro():
    from framework.config import load_experiment

    return load_experiment(f"{MICRO}:micro").config


def train(config, path, source=f"{MICRO}:micro", overrides=()):
    """Run the experiment in this process, in the folder `path`."""
    from framework.rundir import RunDir

    run = RunDir.create(path, config, source, overrides)
    config.run(run)
    return run


@pytest.fixture(scope="session")
def whole(micro, tmp_path_factory):
    """A run that nobody disturbed."""
    return train(micro, tmp_path_factory.mktemp("whole") / "run")


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def start(*words, cwd):
    """The command in a process and a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "framework.cli", *map(str, words)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def maypole(*words, cwd, code=0):
    """Run a command to its end."""
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return SimpleNamespace(stdout=out, stderr=err)


def command(*words):
    """A command in this process, in the current folder: its exit code. Quick, for mistakes that are found before a run."""
    from framework.cli import main

    with pytest.MonkeyPatch.context() as patch:
        for name in ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL"):  # the command sets them
            patch.setenv(name, os.environ.get(name, ""))
        return main([*map(str, words)])


def wait_for_lines(process, path, count):
    """Until a file of the run has so many lines."""
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def rows(path):
    """The lines of a JSONL file without what a clock wrote."""
    lines = [json.loads(line) for line in path.open(encoding="utf-8")]  # a model says line separators too
    return [{k: v for k, v in line.items() if not k.startswith(TIMING)} for line in lines]


def final_state(config, stage):
    """The newest checkpoint of a stage as (step, {name: array})."""
    from framework.checkpoint import Checkpoints
    from framework.state import leaves

    tx = config.optimizer_of(stage.name)
    restored = Checkpoints(stage.checkpoints_path).restore_latest(config.build().model.abstract_state(tx))
    assert restored is not None
    return restored[0], {leaf.name: np.asarray(leaf.value) for leaf in leaves(restored[1])}


def assert_same_run(config, got, want):
    """Every stage: parameters and optimizer bit for bit, metrics and samples line for line."""
    for name in ("warm_start", *(arm.name for arm in config.arms)):
        (step, state), (want_step, want_state) = (final_state(config, run.stage(name)) for run in (got, want))
        assert step == want_step
        assert state.keys() == want_state.keys()
        for leaf, value in state.items():
            np.testing.assert_array_equal(value, want_state[leaf], err_msg=f"{name}: {leaf}", strict=True)
        assert rows(got.stage(name).metrics_path) == rows(want.stage(name).metrics_path)
        assert rows(got.stage(name).samples_path) == rows(want.stage(name).samples_path)


@pytest.fixture(scope="session")
def lab():
    """The helpers above; tests of other folders have a conftest of the same name, so that it cannot be imported."""
    names = (train, start, maypole, command, wait_for_lines, rows, final_state, assert_same_run)
    return SimpleNamespace(MICRO=MICRO, **{function.__name__: function for function in names})
