"""From the runs of `maypole reproduce entropy_mechanism` to the results file and the page that shows it."""

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._entropy_mechanism_report import correlations, fit_law
from framework.config_text import diff_json, to_json
from framework.errors import UserError
from framework.experiment import Claim
from framework.report import write_report
from framework.rundata import RunData, StageData, load_run
from framework.rundir import RunDir, write_atomic
from rl.grpo import GRPO

__all__ = ["collect", "judge", "page", "reproduce_claims", "update_page"]

# The page shows what these seeds measured, and nothing else.
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "entropy_mechanism.json"
PAGE = Path(__file__).parents[1] / "docs" / "papers" / "entropy-mechanism.md"

_NOT_MEASURED = "not measured"
_TAIL = 3  # evaluations averaged for a final value: one evaluation is a noisy sample
_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # two-sided 95 % Student t for n seeds


def reproduce_claims(config: GRPO, claims: Sequence[Claim], *, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """Run `config` for every seed under `out` and write the results file.

    The docs page follows if this is the file it shows, measured with the seeds it names.
    """
    runs: dict[int, RunData] = {}
    for seed in seeds:
        path = out / f"seed-{seed}"
        seeded = dataclasses.replace(config, seed=seed)
        overrides = (f"--seed={seed}",)
        started = (path / "config.json").is_file()
        run = RunDir.open(path) if started else RunDir.create(path, seeded, "entropy_mechanism:all_arms", overrides)
        changes = diff_json(run.stored_config, json.loads(json.dumps(to_json(seeded))))
        if changes:
            raise UserError(
                f"{path} was started with another config: {'; '.join(changes)}. Move it away, or give another folder: --dir DIR."
            )
        with run.lock():
            seeded.run(run)
        runs[seed] = load_run(path, order=[arm.name for arm in config.arms])
    measured = collect(runs, claims, [arm.name for arm in config.arms])
    results.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(results, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    if PAGE.is_file():
        if results.resolve() == RESULTS.resolve() and tuple(sorted(seeds)) == SEEDS:
            update_page(PAGE, measured)
        else:
            print(f"{PAGE} stays as it is: it shows {RESULTS.name} of seeds {SEEDS}.")
    shown = list(runs.values())  # last: a mistake in a plot must not cost the numbers
    print(write_report(shown, out / "report.html", sections=config.sections(shown)))


def collect(runs: Mapping[int, RunData], claims: Sequence[Claim], arms: Sequence[str]) -> dict[str, Any]:
    """Everything measured, as JSON types: by arm and seed, intervals over seeds, and each claim judged seed by seed."""
    measured = {arm: {str(seed): _measure(run, run.stage(arm)) for seed, run in runs.items()} for arm in arms}
    any_run = next(iter(runs.values()))
    return {
        "paper": "The Entropy Mechanism of RL for Reasoning Language Models (arXiv:2505.22617)",
        "command": "maypole reproduce entropy_mechanism" + _seeds_option(sorted(runs)),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": any_run.env,
        "seeds": sorted(runs),
        "wall_time_s": sum(stage.metrics.elapsed_s for run in runs.values() for stage in run.stages),
        "arms": {arm: {"seeds": by_seed, "mean": _means(by_seed)} for arm, by_seed in measured.items()},
        "claims": [judge(claim, measured) for claim in claims],
    }


def _seeds_option(seeds: Sequence[int]) -> str:
    return "" if tuple(seeds) == SEEDS else f" --seeds {' '.join(map(str, seeds))}"


def _measure(run: RunData, stage: StageData) -> dict[str, float | None]:
    def tail(name: str) -> float:
        values = stage.metrics.tail_mean(name, _TAIL)
        return math.nan if values is None else values

    def first(name: str) -> float:
        values = stage.metrics.series(name)[1]
        return float(values[0]) if len(values) else math.nan

    fit, r = fit_law(stage), correlations(stage)
    values = {
        "warm_start_accuracy": first("eval/accuracy"),
        "final_accuracy": tail("eval/accuracy"),
        "accuracy_gain": tail("eval/accuracy") - first("eval/accuracy"),
        "final_accuracy_greedy": tail("eval/accuracy_greedy"),
        "warm_start_entropy": first("eval/entropy"),
        "final_entropy": tail("eval/entropy"),
        "final_length": tail("eval/length"),
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


def _means(by_seed: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    result = {}
    for name in next(iter(by_seed.values())):
        found = [value for values in by_seed.values() if (value := values[name]) is not None]
        half = _T95.get(len(found), 1.96) * np.std(found, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else None
        result[name] = {
            "mean": float(np.mean(found)) if found else None,
            "interval_95": None if half is None else float(half),
        }
    return result


def judge(claim: Claim, measured: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, Any]:
    """A claim holds if it holds for every seed; None where a number was not measured: arm -> seed -> measure -> number.

    Value: the first of two arms minus the second. With another number of arms, that of the best of them: nobody to compare with.
    """
    seeds = next(iter(measured.values()))
    values = {seed: _value(claim, [measured[arm][seed][claim.measure] for arm in claim.arms]) for seed in seeds}
    holds = {seed: None if value is None else _holds(claim, value) for seed, value in values.items()}
    known = False if False in holds.values() else None if None in holds.values() else True
    return {
        "name": claim.name,
        "text": claim.text,
        "arms": list(claim.arms),
        "measure": claim.measure,
        "direction": claim.direction,
        "threshold": claim.threshold,
        "values": values,
        "holds_by_seed": holds,
        "holds": known,
    }


def _value(claim: Claim, own: Sequence[float | None]) -> float | None:
    numbers = [float(number) for number in own if number is not None]
    if len(numbers) < len(own):
        return None
    if len(numbers) == 2:
        return numbers[0] - numbers[1]
    return {"higher": max, "lower": min, "equal": lambda n: min(n, key=abs)}[claim.direction](numbers)


def _holds(claim: Claim, value: float) -> bool:
    if claim.direction == "equal":
        return abs(value) <= claim.threshold
    if claim.direction == "lower" and len(claim.arms) == 2:
        return value <= -claim.threshold
    return value <= claim.threshold if claim.direction == "lower" else value >= claim.threshold


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
    env = results["environment"]
    lines = [
        f"Measured {results['date']} with `{results['command']}`, seeds {results['seeds']}, "
        f"{results['wall_time_s'] / 60:.0f} min in all, commit {str(_find(env, 'commit'))[:10]}.",
        "",
        "| Arm | " + " | ".join(label for label, _ in _SHOWN.values()) + " |",
        "| --- |" + " ---: |" * len(_SHOWN),
    ]
    for arm, entry in results["arms"].items():
        cells = [_cell(entry["mean"][name], scale) for name, (_, scale) in _SHOWN.items()]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Mean over seeds ± half of the 95 % interval (Student t).",
        "",
        "| Claim | Values by seed | Holds |",
        "| --- | --- | --- |",
    ]
    for claim in results["claims"]:
        values = ", ".join(_NOT_MEASURED if value is None else f"{value:+.3f}" for value in claim["values"].values())
        held = {True: "yes", False: "no", None: _NOT_MEASURED}[claim["holds"]]
        lines.append(f"| {claim['text']} | {values} | {held} |")
    return "\n".join(lines) + "\n"


def _cell(value: Mapping[str, float | None], scale: float) -> str:
    if value["mean"] is None:
        return "–"
    digits = 1 if scale == 100 else 3
    half = "" if value["interval_95"] is None else f" ± {value['interval_95'] * scale:.{digits}f}"
    return f"{value['mean'] * scale:.{digits}f}{half}"


def _find(tree: Any, key: str) -> Any:
    """The first value of `key` anywhere in nested dictionaries."""
    if isinstance(tree, Mapping):
        if key in tree:
            return tree[key]
        for value in tree.values():
            if (found := _find(value, key)) is not None:
                return found
    return None


def update_page(path: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the markers of a docs page with `page(results)`."""
    start, end = "<!-- results -->\n", "<!-- end of results -->"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(start, 1)
    write_atomic(path, head + start + page(results) + end + rest.split(end, 1)[1])
