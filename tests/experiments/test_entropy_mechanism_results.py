"""Results and report sections on runs whose numbers are known."""

import dataclasses
import json
import math

import pytest

from experiments import entropy_mechanism
from experiments._entropy_mechanism_report import correlations, fit_law, sections
from experiments._entropy_mechanism_results import collect, page, reproduce_claims, update_page
from framework.errors import UserError
from framework.rundata import load_run
from framework.rundir import RunDir

ARMS = ("unclipped", "clip_cov", "kl_cov", "clipped", "clip_higher")


def write_run(path, *, gain, drop):
    """Five arms that follow R = -0.3 exp(H) + 0.9; the covariance arms keep `drop` times less entropy than the others lose."""
    for i, arm in enumerate(ARMS):
        lines = []
        for step in range(10):
            entropy = 0.6 - (drop if "cov" in arm else 1.0) * 0.05 * step
            accuracy = -0.3 * math.exp(entropy) + 0.9 + (gain * step / 9 if i == 0 else 0.0)
            line = {"step": step, "time_s": float(step), "eval/entropy": entropy, "eval/accuracy": accuracy}
            line |= {"eval/accuracy_greedy": accuracy, "eval/length": 20.0}
            if step:
                change = -0.01 * (1 + step % 3)
                line |= {
                    "policy/entropy_change": change,
                    "policy/cov_mean": -2 * change,
                    "policy/cov_group": 3 * change,
                }
                line |= {"sampler/logp_gap_max": 1e-6}
            lines.append(json.dumps(line))
        (path / arm).mkdir(parents=True)
        (path / arm / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return load_run(path)


def test_the_law_and_the_correlations_of_a_known_run_are_found(tmp_path):
    stage = write_run(tmp_path / "run", gain=0.0, drop=0.5).stage("kl_cov")
    fit = fit_law(stage)
    assert fit.law is not None
    assert (fit.law.a, fit.law.b, fit.law.r2) == pytest.approx((0.3, 0.9, 1.0))
    assert fit.forecast is not None
    assert fit.forecast.rmse == pytest.approx(0.0, abs=1e-9)
    assert correlations(stage) == pytest.approx({"policy/cov_mean": 1.0, "policy/cov_group": -1.0})


def test_claims_are_judged_seed_by_seed(tmp_path):
    runs = {0: write_run(tmp_path / "a", gain=0.5, drop=0.5), 1: write_run(tmp_path / "b", gain=0.0, drop=2.0)}
    results = collect(runs, entropy_mechanism.claims, ARMS)
    held = {claim["name"]: list(claim["holds_by_seed"].values()) for claim in results["claims"]}
    assert held == {
        name: [True, False] for name in ("rl_raises_accuracy", "clip_cov_keeps_entropy", "kl_cov_keeps_entropy")
    }
    assert not any(claim["holds"] for claim in results["claims"])
    json.dumps(results, allow_nan=False)


def test_the_page_shows_the_results_between_its_markers(tmp_path):
    results = collect({0: write_run(tmp_path / "a", gain=0.5, drop=0.5)}, entropy_mechanism.claims, ARMS)
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- results -->\nstale text\n<!-- end of results -->\nafter\n")
    update_page(file, results)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert page(results) in text
    assert "stale text" not in text
    assert all(f"| {arm} |" in text for arm in ARMS)


def test_sections_show_both_effects_and_are_left_out_without_data(tmp_path):
    run = write_run(tmp_path / "run", gain=0.1, drop=0.5)
    titles = [section.title for section in sections([run])]
    assert titles == ["Entropy change against covariance", "The law R = -a exp(H) + b"]
    assert all(section.table is not None and len(section.table.rows) == len(ARMS) for section in sections([run]))
    assert sections([]) == []


def test_a_folder_of_another_config_is_refused_before_anything_runs(tmp_path):
    smoke = entropy_mechanism.smoke
    RunDir.create(tmp_path / "seed-0", smoke, "entropy_mechanism:smoke")
    other = dataclasses.replace(smoke, steps=3)
    with pytest.raises(UserError, match=r"seed-0 was started with another config: steps: 2 -> 3"):
        reproduce_claims(other, entropy_mechanism.claims, out=tmp_path, results=tmp_path / "r.json", seeds=(0,))
    assert {path.name for path in (tmp_path / "seed-0").iterdir()} == {"config.json", "config.txt", "env.json"}


@pytest.mark.slow
def test_reproduce_measures_every_arm_and_seed_and_keeps_what_is_finished(tmp_path):
    config = dataclasses.replace(entropy_mechanism.smoke, arms=entropy_mechanism.ALL_ARMS)
    results = tmp_path / "experiments/results/entropy_mechanism.json"
    page_file = tmp_path / "docs/papers/entropy-mechanism.md"
    page_file.parent.mkdir(parents=True)
    page_file.write_text("<!-- results -->\n<!-- end of results -->\n")
    ask = {"out": tmp_path / "runs", "results": results, "seeds": (0, 1)}
    reproduce_claims(config, entropy_mechanism.claims, **ask)
    first = json.loads(results.read_text())
    assert set(first["arms"]) == {arm.name for arm in config.arms}
    assert all(set(arm["seeds"]) == {"0", "1"} for arm in first["arms"].values())
    assert (tmp_path / "runs/report.html").is_file()
    assert all(f"| {arm.name} |" in page_file.read_text() for arm in config.arms)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/metrics.jsonl")}
    assert len(stamps) == 2 * (1 + len(config.arms))
    reproduce_claims(config, entropy_mechanism.claims, **ask)  # nothing is trained again
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert json.loads(results.read_text())["arms"] == first["arms"]


def test_every_variant_is_valid_and_the_paper_variant_is_a_7b_model():
    for config in (
        entropy_mechanism.tiny,
        entropy_mechanism.smoke,
        entropy_mechanism.all_arms,
        entropy_mechanism.paper,
    ):
        config.validate()
    assert 7.5e9 < entropy_mechanism.paper.model.parameter_count() < 7.7e9
    assert 0.3e6 <= entropy_mechanism.tiny.model.parameter_count() <= 3e6
