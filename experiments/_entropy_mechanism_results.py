"""From the runs of `maypole reproduce entropy_mechanism` to the results file and the page that shows it."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._entropy_mechanism_report import correlations, fit_law
from experiments._results import (
    claim_rows,
    first_value,
    follow,
    judge,
    mean_cell,
    means,
    measured_with,
    open_run,
    replace_results,
    run_to_end,
    seeds_option,
    tail_value,
    write_results,
)
from framework.experiment import Claim
from framework.report import write_report
from framework.rundata import RunData, StageData
from rl.grpo import GRPO

__all__ = ["collect", "judge", "page", "reproduce_claims", "update_page"]

# The page shows what these seeds measured, and nothing else.
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "entropy_mechanism.json"
PAGE = Path(__file__).parents[1] / "docs" / "papers" / "entropy-mechanism.md"

_TAIL = 3  # evaluations averaged for a final value: one evaluation is a noisy sample


def reproduce_claims(config: GRPO, claims: Sequence[Claim], *, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """Run `config` for every seed under `out` and write the results file.

    The docs page follows if this is the file it shows, measured with the seeds it names.
    """
    runs: dict[int, RunData] = {}
    for seed in seeds:
        path = out / f"seed-{seed}"
        seeded = dataclasses.replace(config, seed=seed)
        run = open_run(path, seeded, "entropy_mechanism:all_arms", (f"--seed={seed}",))
        runs[seed] = run_to_end(run, seeded)
    measured = collect(runs, claims, [arm.name for arm in config.arms])
    write_results(results, measured)
    follow(PAGE, page(measured), results=results, published=RESULTS, seeds=seeds, published_seeds=SEEDS)
    shown = list(runs.values())  # last: a mistake in a plot must not cost the numbers
    print(write_report(shown, out / "report.html", sections=config.sections(shown)))


def collect(runs: Mapping[int, RunData], claims: Sequence[Claim], arms: Sequence[str]) -> dict[str, Any]:
    """Everything measured, as JSON types: by arm and seed, intervals over seeds, and each claim judged seed by seed."""
    measured = {arm: {str(seed): _measure(run, run.stage(arm)) for seed, run in runs.items()} for arm in arms}
    any_run = next(iter(runs.values()))
    return {
        "paper": "The Entropy Mechanism of RL for Reasoning Language Models (arXiv:2505.22617)",
        "command": "maypole reproduce entropy_mechanism" + seeds_option(sorted(runs), SEEDS),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": any_run.env,
        "seeds": sorted(runs),
        "wall_time_s": sum(stage.metrics.elapsed_s for run in runs.values() for stage in run.stages),
        "arms": {arm: {"seeds": by_seed, "mean": means(by_seed)} for arm, by_seed in measured.items()},
        "claims": [judge(claim, measured) for claim in claims],
    }


def _measure(run: RunData, stage: StageData) -> dict[str, float | None]:
    fit, r = fit_law(stage), correlations(stage)
    values = {
        "warm_start_accuracy": first_value(stage, "eval/accuracy"),
        "final_accuracy": tail_value(stage, "eval/accuracy", _TAIL),
        "accuracy_gain": tail_value(stage, "eval/accuracy", _TAIL) - first_value(stage, "eval/accuracy"),
        "final_accuracy_greedy": tail_value(stage, "eval/accuracy_greedy", _TAIL),
        "warm_start_entropy": first_value(stage, "eval/entropy"),
        "final_entropy": tail_value(stage, "eval/entropy", _TAIL),
        "final_length": tail_value(stage, "eval/length", _TAIL),
        "logp_gap_max": float(stage.metrics.series("sampler/logp_gap_max")[1].max(initial=-math.inf)),
        "pearson_token_covariance": r["policy/cov_mean"],
        "pearson_group_covariance": r["policy/cov_group"],
        "positive_token_covariance": _positive(stage, "policy/cov_mean"),
        "positive_group_covariance": _positive(stage, "policy/cov_group"),
        "law_a": fit.law.a if fit.law else math.nan,
        "law_b": fit.law.b if fit.law else math.nan,
        "law_r2": fit.law.r2 if fit.law else math.nan,
        "forecast_rmse": fit.forecast.rmse if fit.forecast else math.nan,
        "forecast_naive_rmse": fit.forecast.naive_rmse if fit.forecast else math.nan,
        "wall_time_s": stage.metrics.elapsed_s,
    }
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _positive(stage: StageData, name: str) -> float:
    """Share of the steps in which a covariance is positive: the theory then says that entropy falls."""
    values = stage.metrics.series(name)[1]
    return float(np.mean(values > 0)) if len(values) else math.nan


_SHOWN = {
    "final_accuracy": ("Held-out accuracy (%)", 100),
    "accuracy_gain": ("Gain (points)", 100),
    "final_accuracy_greedy": ("Greedy accuracy (%)", 100),
    "final_entropy": ("Entropy (nats/token)", 1),
    "pearson_token_covariance": ("Pearson r, token cov.", 1),
    "pearson_group_covariance": ("Pearson r, group cov.", 1),
    "positive_token_covariance": ("Steps with token cov. > 0 (%)", 100),
    "law_r2": ("R² of the law", 1),
    "forecast_rmse": ("Forecast RMSE (points)", 100),
    "forecast_naive_rmse": ("Last-value RMSE (points)", 100),
}


def page(results: Mapping[str, Any]) -> str:
    """Markdown of a results file: what the docs show, never typed by hand."""
    lines = [
        measured_with(results),
        "",
        "| Arm | " + " | ".join(label for label, _ in _SHOWN.values()) + " |",
        "| --- |" + " ---: |" * len(_SHOWN),
    ]
    for arm, entry in results["arms"].items():
        cells = [mean_cell(entry["mean"][name], scale) for name, (_, scale) in _SHOWN.items()]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Mean over seeds ± half of the 95 % interval (Student t).",
        "",
        *claim_rows(results["claims"]),
    ]
    return "\n".join(lines) + "\n"


def update_page(path: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the markers of a docs page with `page(results)`."""
    replace_results(path, page(results))
