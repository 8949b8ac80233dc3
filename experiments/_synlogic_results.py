"""From the runs of `maypole reproduce synlogic` to the results file and the page that shows it.

python -m experiments._synlogic_results        writes the page again from the results file
"""

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _synlogic_report as report
from experiments._results import (
    NOT_MEASURED,
    claim_rows,
    first_value,
    follow,
    judge,
    mean_cell,
    means,
    measured_with,
    replace_results,
    seeds_option,
    tail_value,
    write_results,
)
from experiments._synlogic_runs import SeedRuns, Study, count_verdicts, run_seed
from framework.experiment import Claim
from framework.report import write_report
from framework.rundata import StageData

__all__ = ["collect", "page", "reproduce_claims", "update_page"]

SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "synlogic.json"
PAGE = Path(__file__).parents[1] / "docs" / "papers" / "synlogic.md"

_TAIL = 2  # evaluations averaged for a final value
_TASK = "eval/accuracy/"


def reproduce_claims(study: Study, claims: Sequence[Claim], *, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """Run everything for every seed under `out` and write the results file; what is there already is kept.

    The docs page follows if this is the file it shows, measured with the seeds it names.
    """
    runs = {seed: run_seed(study, seed, out / f"seed-{seed}") for seed in seeds}
    measured = collect(runs, count_verdicts(study.verdicts, out / "verdicts.json"), claims)
    write_results(results, measured)
    follow(PAGE, page(measured), results=results, published=RESULTS, seeds=seeds, published_seeds=SEEDS)
    shown = list(runs.values())  # last: a mistake in a plot must not cost the numbers
    main = [seed_runs.main for seed_runs in shown]
    sections = [
        *report.sections(main),
        report.calibration_section({seed: seed_runs.calibration for seed, seed_runs in runs.items()}),
        report.band_section([seed_runs.band for seed_runs in shown]),
        *report.hacking_sections([seed_runs.hacking for seed_runs in shown]),
    ]
    # Seeds that run side by side in processes of their own share `out`, and each writes its own page.
    name = (
        "report.html"
        if tuple(sorted(seeds)) == SEEDS
        else f"report{''.join(f'-{seed}' for seed in sorted(seeds))}.html"
    )
    print(write_report(main, out / name, sections=sections))


def collect(runs: Mapping[int, SeedRuns], verdicts: Mapping[str, Any], claims: Sequence[Claim]) -> dict[str, Any]:
    """Everything measured, as JSON types: by arm and seed, mean and error over seeds, and each claim judged seed by seed."""
    measured: dict[str, dict[str, dict[str, float | None]]] = {}
    for seed, seed_runs in runs.items():
        for run in (seed_runs.main, seed_runs.band, seed_runs.hacking):
            for stage in run.arms:
                measured.setdefault(stage.name, {})[str(seed)] = _measure(stage)
        measured.setdefault("verifiers", {})[str(seed)] = _shares(verdicts)
    any_run = next(iter(runs.values())).main
    stages = [
        stage
        for seed_runs in runs.values()
        for stage in (*seed_runs.main.stages, *seed_runs.band.arms, *seed_runs.hacking.stages)
    ]
    return {
        "paper": "SynLogic: Synthesizing Verifiable Reasoning Data at Scale (arXiv:2505.19641)",
        "command": "maypole reproduce synlogic" + seeds_option(sorted(runs), SEEDS),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": any_run.env,
        "seeds": sorted(runs),
        "wall_time_s": sum(stage.metrics.elapsed_s for stage in stages),
        "arms": {
            arm: {"seeds": by_seed, "mean": _means(by_seed)} for arm, by_seed in measured.items() if arm != "verifiers"
        },
        "calibration": {str(seed): seed_runs.calibration.to_json() for seed, seed_runs in runs.items()},
        "verdicts": dict(verdicts),
        "claims": [judge(claim, measured) for claim in claims],
    }


def _measure(stage: StageData) -> dict[str, float | None]:
    names = stage.metrics.names()
    steps, wrong = report.accepted_wrong(stage)
    has_wrong = len(steps) > 0
    values = {
        "warm_start_accuracy": first_value(stage, "eval/accuracy"),
        "final_accuracy": tail_value(stage, "eval/accuracy", _TAIL),
        "accuracy_gain": tail_value(stage, "eval/accuracy", _TAIL) - first_value(stage, "eval/accuracy"),
        "final_accuracy_greedy": tail_value(stage, "eval/accuracy_greedy", _TAIL),
        "warm_start_format": first_value(stage, "eval/score/format_reward"),
        "final_format": tail_value(stage, "eval/score/format_reward", _TAIL),
        "final_entropy": tail_value(stage, "eval/entropy", _TAIL),
        "training_reward": tail_value(stage, "reward/mean", 10),
        "warm_start_accepted_wrong": float(wrong[0]) if has_wrong else math.nan,
        "final_accepted_wrong": float(np.mean(wrong[-_TAIL:])) if has_wrong else math.nan,
        "accepted_wrong_gain": float(np.mean(wrong[-_TAIL:]) - wrong[0]) if has_wrong else math.nan,
        "logp_gap_max": float(stage.metrics.series("sampler/logp_gap_max")[1].max(initial=-math.inf)),
        "wall_time_s": stage.metrics.elapsed_s,
    }
    for name in names:
        if name.startswith(_TASK):
            values[f"accuracy_{name.removeprefix(_TASK)}"] = tail_value(stage, name, _TAIL)
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _shares(verdicts: Mapping[str, Any]) -> dict[str, float | None]:
    """Of all tasks the lowest share: one bad verifier must not hide behind the others."""
    wanted = ("oracle_strict", "oracle_official", "perturbed_rejected")
    return {name: min(task[name] / task["instances"] for task in verdicts.values()) for name in wanted}


def _means(by_seed: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """As `means`, with the standard error beside the interval."""
    result = means(by_seed)
    for name, entry in result.items():
        found = [value for values in by_seed.values() if (value := values[name]) is not None]
        entry["sem"] = float(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else None
    return result


_SHOWN = {
    "warm_start_accuracy": "Before (%)",
    "final_accuracy": "Held-out accuracy (%)",
    "accuracy_gain": "Gain (points)",
    "accuracy_sums": "Sums (%)",
    "final_format": "Format rate (%)",
    "training_reward": "Training reward (%)",
    "final_accepted_wrong": "Accepted but wrong (%)",
}


def page(results: Mapping[str, Any]) -> str:
    """Markdown of a results file: what the docs show, never typed by hand."""
    lines = [
        measured_with(results),
        "",
        "| Arm | " + " | ".join(_SHOWN.values()) + " |",
        "| --- |" + " ---: |" * len(_SHOWN),
    ]
    for arm, entry in results["arms"].items():
        nothing = {"mean": None, "sem": None}
        cells = [mean_cell(entry["mean"].get(name, nothing), 100, spread="sem") for name in _SHOWN]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", "Mean over seeds ± standard error.", "", *claim_rows(results["claims"]), ""]
    lines += _calibration_rows(results["calibration"])
    lines += _verdict_rows(results["verdicts"])
    return "\n".join(lines) + "\n"


def _calibration_rows(calibration: Mapping[str, Any]) -> list[str]:
    lines = [
        "Calibration: pass rates in per cent, weak (warm start) and strong (after training), and the kind found, seed by seed.",
        "",
        "| Task | Level | Weak | Strong | Kind |",
        "| --- | --- | --- | --- | --- |",
    ]
    cells = [{(cell["task"], cell["level"]): cell for cell in seed["cells"]} for seed in calibration.values()]
    for pair in cells[0]:
        own = [seed[pair] for seed in cells if pair in seed]
        rates = [", ".join(f"{100 * cell[name]:.1f}" for cell in own) for name in ("weak_rate", "strong_rate")]
        lines.append(f"| {' | '.join(pair)} | {' | '.join(rates)} | {', '.join(cell['kind'] for cell in own)} |")
    return [*lines, ""]


def _verdict_rows(verdicts: Mapping[str, Any]) -> list[str]:
    """One line, and the tasks that are not perfect or whose official verifier accepts a wrong answer."""
    total = {name: sum(task[name] for task in verdicts.values()) for name in next(iter(verdicts.values()))}
    lines = [
        f"Verifiers: {len(verdicts)} tasks, {total['instances']} instances. Oracle accepted by the strict verifier: "
        f"{total['oracle_strict']}, by the official one: {total['oracle_official']}. Wrong answers rejected by the strict "
        f"verifier: {total['perturbed_rejected']}; accepted by the official one: {total['perturbed_official']}"
    ]
    fooled = [f"{name} {task['perturbed_official']}" for name, task in verdicts.items() if task["perturbed_official"]]
    lines[0] += f" ({', '.join(fooled)})." if fooled else "."
    return lines


def update_page(path: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the markers of a docs page with `page(results)`."""
    replace_results(path, page(results))


if __name__ == "__main__":
    if RESULTS.is_file():
        update_page(PAGE, json.loads(RESULTS.read_text(encoding="utf-8")))
    else:
        replace_results(PAGE, f"{NOT_MEASURED}: run `maypole reproduce synlogic`\n")
    print(PAGE)
