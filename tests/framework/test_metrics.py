"""Metric lines survive kills and are cut to the restored step."""

import json
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from framework.metrics import MetricLogger, cut_lines


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def logger(folder, **kwargs):
    return MetricLogger(folder, tensorboard=False, **kwargs)


def test_each_line_is_on_disk_when_log_returns(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"reward/mean": jnp.float32(0.5), "n": np.int64(3), "flag": True, "loss/total": jnp.bfloat16(2.0)})
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line.pop("time_s") >= 0
    assert line == {"step": 1, "reward/mean": 0.5, "n": 3, "flag": True, "loss/total": 2.0}


def test_floats_are_written_exactly_and_arrays_as_lists(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"x": 0.1 + 0.2, "hist": np.array([1.0, np.inf]), "one": np.ones((1, 1))})
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert (line["x"], line["hist"], line["one"]) == (0.1 + 0.2, [1.0, None], 1.0)


def test_numbers_json_cannot_hold_become_null_and_are_counted(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"a": math.nan, "b": -math.inf, "c": 1.0})
    log.log(2, {"a": 1.0})
    first, second = lines(tmp_path / "metrics.jsonl")
    assert (first["a"], first["b"], first["c"], first["metrics/nonfinite"]) == (None, None, 1.0, 2)
    assert "metrics/nonfinite" not in second
    assert log.nonfinite == 2


def test_resuming_cuts_both_files_behind_the_restored_step(tmp_path):
    with logger(tmp_path) as log:
        for step in range(5):
            log.log(step, {"x": float(step)})
            log.samples(step, [{"split": "train", "response": "a\u2028é\n", "reward": math.nan}] * 2)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 2, "x": 0.')  # killed in the middle of a line
    with logger(tmp_path, resume_step=2) as log:
        log.log(3, {"x": 30.0})
        log.samples(3, [{"split": "train"}])
    assert [(line["step"], line["x"]) for line in lines(tmp_path / "metrics.jsonl")] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 30),
    ]
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [row["step"] for row in samples] == [0, 0, 1, 1, 2, 2, 3]
    assert samples[0] == {"step": 0, "split": "train", "response": "a\u2028é\n", "reward": None}


def test_starting_anew_cuts_everything_and_appending_repairs_a_broken_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "time_s": 1.0}\n{"step": 2, "ti')
    with logger(tmp_path) as log:
        log.log(2, {})
    assert [line["step"] for line in lines(path)] == [1, 2]
    with logger(tmp_path) as log:
        log.resume(None)
    assert path.read_text() == ""


def test_cutting_leaves_a_file_that_needs_no_cut_untouched(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    inode = path.stat().st_ino
    cut_lines(path, 1)
    assert path.stat().st_ino == inode
    cut_lines(path, 0)
    assert path.read_text() == ""


def test_time_goes_on_where_the_kept_lines_end(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time_s": 100.0}\n{"step": 2, "time_s": 500.0}\n')
    with logger(tmp_path, resume_step=1) as log:
        log.log(2, {})
    assert 100.0 <= lines(tmp_path / "metrics.jsonl")[-1]["time_s"] < 130.0


def test_an_object_with_paths_says_where_files_go(tmp_path):
    class Stage:
        metrics_path = tmp_path / "m.jsonl"
        samples_path = tmp_path / "s.jsonl"
        tensorboard_path = tmp_path / "tb"

    with MetricLogger(Stage(), tensorboard=False) as log:
        log.log(0, {"x": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_tensorboard_gets_the_finite_numbers_and_purges_on_resume(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricLogger(tmp_path, resume_step=4) as log:
        log.log(5, {"reward/mean": 0.25, "bad": math.nan})
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"reward/mean" in content
    assert b"bad" not in content


def test_tensorboard_is_imported_only_when_something_is_logged(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # importing it now fails
    MetricLogger(tmp_path).close()
    with pytest.raises(ImportError):
        MetricLogger(tmp_path).log(0, {"x": 1.0})
