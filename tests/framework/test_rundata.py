"""Reading run directories: what is tolerated, what is an error, and what the error says."""

import json
import subprocess
import sys

import numpy as np
import pytest

from framework.rundata import Metrics, RunDataError, load_run


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def stage(path, *lines):
    write(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_series_skips_lines_without_the_metric_and_null():
    metrics = Metrics([{"step": 1, "a": 1.0}, {"step": 2, "b": 5}, {"step": 3, "a": None}, {"step": 4, "a": 4}])
    steps, values = metrics.series("a")
    np.testing.assert_array_equal(steps, [1, 4])
    np.testing.assert_array_equal(values, [1.0, 4.0])
    assert metrics.names() == ("a", "b")
    assert metrics.last("b") == 5
    assert metrics.last("missing") is None
    assert len(metrics.series("missing")[0]) == 0
    assert metrics.nonfinite == {"a": 1}


def test_a_step_written_twice_counts_once_and_the_later_line_wins():
    metrics = Metrics([{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}, {"step": 2, "a": 9.0}, {"step": 3, "a": 3.0}])
    np.testing.assert_array_equal(metrics.series("a")[1], [1.0, 9.0, 3.0])


def test_a_resumed_run_may_replace_a_value_by_nan():
    metrics = Metrics([{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}, {"step": 2, "a": float("nan")}])
    assert metrics.last("a") == 1.0
    assert metrics.steps == 2


def test_wall_time_adds_up_over_restarts():
    assert Metrics([{"step": i, "time_s": t} for i, t in enumerate([5.0, 10.0, 2.0, 8.0])]).elapsed_s == 18.0
    assert Metrics([{"step": i, "time_s": t} for i, t in enumerate([5.0, 10.0, 12.0])]).elapsed_s == 12.0


def test_nan_tokens_are_read(tmp_path):
    write(tmp_path / "r/a/metrics.jsonl", '{"step": 1, "x": NaN, "y": -Infinity}\n{"step": 2, "x": 2.0}\n')
    metrics = load_run(tmp_path / "r").stage("a").metrics
    assert metrics.names() == ("x",)
    assert metrics.nonfinite == {"x": 1, "y": 1}


@pytest.mark.parametrize(
    "tail", ['{"step": 3, "x": 1', '{"step": 3, "x": 1.0, "y": "\u00e9'.encode()[:-1].decode("latin-1")]
)
def test_a_half_written_last_line_is_left_out_and_counted(tmp_path, tail):
    path = write(tmp_path / "r/a/metrics.jsonl", '{"step": 1, "x": 1.0}\n')
    with open(path, "a", encoding="latin-1") as file:
        file.write(tail)
    data = load_run(tmp_path / "r").stage("a")
    assert data.metrics.last("x") == 1.0
    assert data.dropped_lines == 1


def test_a_broken_line_in_the_middle_is_an_error_with_file_and_line(tmp_path):
    path = write(tmp_path / "r/a/metrics.jsonl", '{"step": 1}\n\n{"step": 2, "re{"step": 2}\n{"step": 3}\n')
    with pytest.raises(RunDataError, match=f"{path}:3 is not a JSON object"):
        load_run(tmp_path / "r")


def test_a_line_without_step_is_an_error(tmp_path):
    path = write(tmp_path / "r/a/metrics.jsonl", '{"loss": 2}\n')
    with pytest.raises(RunDataError, match='no number "step"') as error:
        load_run(tmp_path / "r")
    assert str(path) in str(error.value)


def test_a_missing_run_says_which_runs_are_there(tmp_path):
    stage(tmp_path / "good" / "grpo", {"step": 1})
    with pytest.raises(RunDataError, match=f"does not exist.*maypole report {tmp_path / 'good'}"):
        load_run(tmp_path / "goood")


def test_a_folder_without_metrics_says_what_was_looked_for(tmp_path):
    with pytest.raises(RunDataError, match=r"looked for .*metrics\.jsonl.*maypole run"):
        load_run(tmp_path)


def test_a_run_before_its_first_step_is_an_error_of_its_own(tmp_path):
    write(tmp_path / "r/a/metrics.jsonl", '{"st')
    with pytest.raises(RunDataError, match="first step"):
        load_run(tmp_path / "r")


def test_stages_are_warm_start_then_the_given_order_then_the_alphabet(tmp_path):
    for name in ("b", "warm_start", "a", "baseline"):
        stage(tmp_path / "r" / name, {"step": 1, "x": 1})
    run = load_run(tmp_path / "r", order=("baseline",))
    assert [s.name for s in run.stages] == ["warm_start", "baseline", "a", "b"]
    assert [s.name for s in run.arms] == ["baseline", "a", "b"]
    assert run.warm_start is run.stages[0]
    with pytest.raises(KeyError, match="It has: warm_start, baseline"):
        run.stage("c")


def test_one_stage_folder_loads_with_the_config_of_its_run(tmp_path):
    stage(tmp_path / "r" / "a", {"step": 1, "x": 1})
    write(tmp_path / "r/config.json", '{"name": "paper"}')
    write(tmp_path / "r/a/done.json", "{}")
    run = load_run(tmp_path / "r" / "a")
    assert (run.name, run.config["name"], [s.name for s in run.stages]) == ("r", "paper", ["a"])
    assert run.stages[0].done


def test_reading_a_run_and_reporting_import_no_jax():
    code = "import sys, framework.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
