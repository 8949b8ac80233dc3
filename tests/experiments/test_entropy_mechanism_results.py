"""Results and report sections on runs whose numbers are known."""

import dataclasses
import json
import math

import pytest

from experiments import _entropy_mechanism_results, entropy_mechanism
from experiments._entropy_mechanism_report import correlations, fit_law, sections
from experiments._entropy_mechanism_results import RESULTS, collect, judge, page, reproduce_claims, update_page
from framework.errors import UserError
from framework.experiment import Claim
from framework.rundata import load_run
from framework.rundir import RunDir
from rl.grpo import GRPO

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


def test_the_stored_claims_are_judged_the_same_again():
    stored = json.loads(RESULTS.read_text())
    measured = {arm: entry["seeds"] for arm, entry in stored["arms"].items()}
    assert [judge(claim, measured) for claim in entropy_mechanism.claims] == stored["claims"]


def claim_of(direction, threshold, arms=("a", "b")):
    return Claim(name="c", arms=arms, measure="m", direction=direction, threshold=threshold, text="A claim")


@pytest.mark.parametrize(
    ("direction", "threshold", "first", "holds"),
    [
        ("higher", 0.5, 1.5, True),
        ("higher", 0.5, 1.25, False),
        ("lower", 0.5, 0.5, True),
        ("lower", 0.5, 0.75, False),  # lower, but by less than the threshold
        ("lower", 0.5, 1.25, False),  # higher
        ("equal", 0.5, 1.25, True),
        ("equal", 0.5, 0.75, True),
        ("equal", 0.5, 1.75, False),
        ("equal", 0.5, 0.0, False),  # much lower is not equal
    ],
)
def test_each_direction_asks_what_its_claim_says(direction, threshold, first, holds):
    judged = judge(claim_of(direction, threshold), {"a": {"0": {"m": first}}, "b": {"0": {"m": 1.0}}})
    assert judged["holds_by_seed"] == {"0": holds}
    assert judged["holds"] is holds
    assert judged["values"] == {"0": first - 1.0}


@pytest.mark.parametrize(("other", "holds"), [(2.0, None), (0.0, False)])
def test_a_number_that_was_not_measured_is_never_a_claim_that_held(tmp_path, other, holds):
    measured = {"a": {"0": {"m": 1.0}, "1": {"m": other}}, "b": {"0": {"m": None}, "1": {"m": 1.0}}}
    judged = judge(claim_of("higher", 0.0), measured)
    assert judged["values"] == {"0": None, "1": other - 1.0}
    assert judged["holds_by_seed"] == {"0": None, "1": other > 1}
    assert judged["holds"] is holds
    best = judge(claim_of("higher", 0.0, arms=("a", "b", "a")), measured)
    assert best["values"] == {"0": None, "1": max(1.0, other)}
    results = collect({0: write_run(tmp_path / "a", gain=0.5, drop=0.5)}, entropy_mechanism.claims, ARMS)
    line = page(results | {"claims": [json.loads(json.dumps(judged, allow_nan=False))]}).splitlines()[-1]
    assert line == f"| A claim | not measured, {other - 1:+.3f} | {'no' if holds is False else 'not measured'} |"


def test_a_run_without_evaluations_is_collected_as_not_measured(tmp_path):
    write_run(tmp_path / "a", gain=0.5, drop=0.5)
    (tmp_path / "a/clip_cov/metrics.jsonl").write_text('{"step": 1, "time_s": 1.0, "loss/total": 1.0}\n')
    results = collect({0: load_run(tmp_path / "a")}, entropy_mechanism.claims, ARMS)
    held = {claim["name"]: claim["holds"] for claim in results["claims"]}
    assert held == {"rl_raises_accuracy": True, "clip_cov_keeps_entropy": None, "kl_cov_keeps_entropy": True}
    assert results["arms"]["clip_cov"]["mean"]["final_entropy"] == {"mean": None, "interval_95": None}


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


def test_steps_that_lack_a_value_are_left_out_of_the_law_and_of_the_correlation(tmp_path):
    run = write_run(tmp_path / "run", gain=0.0, drop=0.5)
    file = tmp_path / "run/kl_cov/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    del lines[3]["eval/entropy"], lines[5]["policy/cov_mean"]
    lines[3]["eval/accuracy"] = 0.0  # would spoil the fit
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = load_run(tmp_path / "run").stage("kl_cov")
    fit = fit_law(stage)
    assert len(fit.entropy) == len(fit.accuracy) == 9
    assert fit.law is not None
    assert fit.law.r2 == pytest.approx(1.0)
    assert correlations(stage)["policy/cov_mean"] == pytest.approx(1.0)
    assert len(sections([run, load_run(tmp_path / "run")])) == 2


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
    with pytest.raises(UserError, match=r"seed-0 was started with another config: steps: 2 -> 3.*: --dir DIR\.$"):
        reproduce_claims(other, entropy_mechanism.claims, out=tmp_path, results=tmp_path / "r.json", seeds=(0,))
    assert {path.name for path in (tmp_path / "seed-0").iterdir()} == {"config.json", "config.txt", "env.json"}


@pytest.mark.parametrize(
    ("file", "seeds", "written"),
    [
        ("results/r.json", (0, 1, 2), True),
        ("results/r.json", (2, 0, 1), True),
        ("results/r.json", (0,), False),
        ("results/other.json", (0, 1, 2), False),
    ],
)
def test_the_docs_page_follows_only_the_default_file_and_seeds(tmp_path, monkeypatch, file, seeds, written):
    docs = tmp_path / "page.md"
    docs.write_text("<!-- results -->\n<!-- end of results -->\n")
    monkeypatch.setattr(_entropy_mechanism_results, "RESULTS", tmp_path / "results/r.json")
    monkeypatch.setattr(_entropy_mechanism_results, "PAGE", docs)
    monkeypatch.setattr(GRPO, "run", lambda self, run: write_run(run.path, gain=0.5, drop=0.5))
    config = dataclasses.replace(
        entropy_mechanism.smoke, arms=tuple(arm for arm in entropy_mechanism.ALL_ARMS if arm.name in ARMS)
    )
    results = tmp_path / file
    reproduce_claims(config, entropy_mechanism.claims, out=tmp_path / "runs", results=results, seeds=seeds)
    measured = json.loads(results.read_text())
    assert (page(measured) in docs.read_text()) == written
    assert (docs.read_text() == "<!-- results -->\n<!-- end of results -->\n") == (not written)
    assert measured["command"].endswith("--seeds 0") == (seeds == (0,))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.md", "results", "runs"]


def test_a_mistake_in_the_report_does_not_cost_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(GRPO, "run", lambda self, run: write_run(run.path, gain=0.5, drop=0.5))
    config = dataclasses.replace(entropy_mechanism.smoke, analysis=lambda runs: 1 / 0)
    config = dataclasses.replace(config, arms=tuple(arm for arm in entropy_mechanism.ALL_ARMS if arm.name in ARMS))
    results = tmp_path / "r.json"
    with pytest.raises(ZeroDivisionError):
        reproduce_claims(config, entropy_mechanism.claims, out=tmp_path / "runs", results=results, seeds=(0,))
    assert json.loads(results.read_text())["seeds"] == [0]


@pytest.mark.slow
def test_reproduce_measures_every_arm_and_seed_and_keeps_what_is_finished(tmp_path, monkeypatch):
    config = dataclasses.replace(entropy_mechanism.smoke, arms=entropy_mechanism.ALL_ARMS)
    results = tmp_path / "experiments/results/entropy_mechanism.json"
    page_file = tmp_path / "docs/papers/entropy-mechanism.md"
    page_file.parent.mkdir(parents=True)
    page_file.write_text("<!-- results -->\n<!-- end of results -->\n")
    for name, value in {"RESULTS": results, "PAGE": page_file, "SEEDS": (0, 1)}.items():
        monkeypatch.setattr(_entropy_mechanism_results, name, value)
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
