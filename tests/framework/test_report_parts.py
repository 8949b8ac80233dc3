"""The pieces behind the page: smoothing, choice of samples, seeds, summary."""

import json

import numpy as np
import pytest
from test_report_synthetic import make_run

from framework.report_arms import are_seeds, arms_of, mean_curve, smooth
from framework.report_samples import choose_evenly, json_for_html, samples_payload
from framework.report_summary import duration, held_out_count, page_facts, summary_table
from framework.rundata import Metrics, RunData, StageData, load_run


def stage(tmp_path, samples=(), lines=()):
    return StageData("r", "a", tmp_path, Metrics(list(lines)), list(samples), True)


@pytest.mark.parametrize("n", [1, 23, 24, 60, 1000])
def test_smoothing_keeps_a_straight_line(n):
    line = 2.0 + 0.5 * np.arange(n)
    smoothed, width = smooth(line)
    np.testing.assert_allclose(smoothed, line, rtol=1e-9)
    assert width % 2 == 1
    assert (width > 1) == (n >= 24)


def test_smoothing_on_a_log_axis_keeps_an_exponential():
    curve = np.exp(-0.1 * np.arange(60))
    np.testing.assert_allclose(smooth(curve, log=True)[0], curve, rtol=1e-9)


def test_the_mean_over_seeds_uses_the_steps_all_seeds_have():
    curves = [(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])), (np.array([2.0, 3, 4]), np.array([4.0, 5, 6]))]
    steps, values = mean_curve(curves)
    np.testing.assert_array_equal(steps, [2, 3])
    np.testing.assert_array_equal(values, [3, 4])


@pytest.mark.parametrize(
    ("sizes", "limit", "want"), [([5, 5, 5], 9, [3, 3, 3]), ([1, 10, 10], 9, [1, 4, 4]), ([2, 3], 99, [2, 3])]
)
def test_samples_are_chosen_evenly_over_the_steps(sizes, limit, want):
    buckets = [[(i, j) for j in range(size)] for i, size in enumerate(sizes)]
    chosen = choose_evenly(buckets, limit)
    assert [sum(i == b for i, _ in chosen) for b in range(len(sizes))] == want


def test_more_steps_than_samples_keep_the_first_and_the_last_step():
    chosen = choose_evenly([[i] for i in range(100)], 5)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 99, 5)


def test_samples_stay_within_their_size(tmp_path):
    rows = [
        {"step": i, "split": "train", "task": "t", "question": "q", "response": "x" * 20_000, "reward": 1}
        for i in range(99)
    ]
    payload = samples_payload([("a", stage(tmp_path, rows))], max_bytes=300_000)
    assert payload is not None
    assert len(json_for_html(payload["rows"])) <= 300_000
    assert payload["total"] == 99
    assert payload["clipped"] == len(payload["rows"])
    assert payload["rows"][0][5].endswith("[8000 characters not shown]")


def test_json_for_html_survives_tags_separators_and_lone_surrogates():
    value = {"a": "</script><!-- & \u2028 \ud800 猫 \U0001f600", "b": [1, None, 0.5]}
    text = json_for_html(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    text.encode("utf-8")


def test_seeds_are_runs_whose_configs_differ_in_a_seed_only(tmp_path):
    def run(name, seed, lr=1.0):
        config = {"name": name, "seed": seed, "optimizer": {"lr": lr}}
        return RunData(name, tmp_path, config, {}, (stage(tmp_path),))

    assert are_seeds([run("a", 0), run("b", 1)])
    assert not are_seeds([run("a", 0), run("b", 1, lr=2.0)])
    assert not are_seeds([run("a", 0), run("a", 0)])
    assert not are_seeds([run("a", 0)])


def test_summary_gives_change_interval_and_time(tmp_path):
    run = load_run(make_run(tmp_path / "demo"))
    table = summary_table(arms_of([run]), [run])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    final = run.stage("clip_cov").metrics.last("eval/accuracy")
    assert row["Arm"] == "clip_cov"
    assert row["Warm-start accuracy (%)"] == "30.0"
    assert row["Held-out accuracy (%)"].startswith(f"{100 * final:.1f} ± ")
    assert row["Change (points)"] == f"{100 * (final - 0.30):+.1f}".replace("-", "−")
    assert (row["Steps"], row["Wall time"]) == ("60", "5 min")
    assert "12 held-out questions" in table.caption


def test_samples_that_do_not_reproduce_the_accuracy_give_no_interval(tmp_path):
    samples = [{"step": 1, "split": "eval", "task": "t", "question": str(i), "reward": float(i < 2)} for i in range(4)]
    assert held_out_count(stage(tmp_path, samples, [{"step": 1, "eval/accuracy": 0.5}])) == 4
    assert held_out_count(stage(tmp_path, samples, [{"step": 1, "eval/accuracy": 0.6}])) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, ""), (4.26, "4.3 s"), (75, "75 s"), (600, "10 min"), (5025, "84 min"), (9000, "2 h 30 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_accelerators_are_named_with_their_number(tmp_path):
    env = {"devices": ["gpu: NVIDIA H200"] * 2, "cpu": "Example CPU"}
    (tmp_path / "metrics.jsonl").touch()
    assert ("hardware", "2 × NVIDIA H200") in page_facts([RunData("a", tmp_path, {}, env, (stage(tmp_path),))])
