"""From the runs of `maypole reproduce quartet` to the results file and the page that shows it.

python -m experiments._quartet_results        writes the page again from the results file
"""

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._quartet_grid import (
    ALL_BF16,
    BF16,
    EXTRAPOLATION,
    PUBLISHED_EFFICIENCY,
    PUBLISHED_QUANTISERS,
    QUARTET_SR_30M,
    QUARTET_TABLE,
    QUEST_FORWARD,
    RTN_BACKWARD,
    SR_BACKWARD,
)
from experiments._quartet_law import (
    PUBLISHED,
    Efficiency,
    data_ratio,
    fit_efficiency,
    huber,
    parameter_saving,
    published_fits,
)
from experiments._quartet_page import page
from experiments._quartet_ptq import losses_after_training
from experiments._quartet_quantisers import measure_gradients, measure_quantisers
from experiments._quartet_report import fit_grid, gap, grid_points, grid_section
from experiments._quartet_training import QuartetTraining
from experiments._results import (
    follow,
    judge,
    means,
    open_run,
    replace_results,
    run_to_end,
    seeds_option,
    write_results,
)
from framework.experiment import Claim
from framework.report import write_report
from framework.rundata import RunData, StageData
from framework.rundir import RunDir

__all__ = ["collect", "law_measures", "reproduce_claims", "update_page"]

SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results" / "quartet.json"
PAGE = Path(__file__).parents[1] / "docs" / "papers" / "quartet.md"


def reproduce_claims(
    config: QuartetTraining,
    grid: QuartetTraining,
    claims: Sequence[Claim],
    *,
    out: Path,
    results: Path,
    seeds: Sequence[int],
) -> None:
    """Run `config` for every seed and `grid` once under `out`, and write the results file; what is finished is kept.

    The docs page follows if this is the file it shows, measured with the seeds it names.
    """
    runs: dict[int, RunData] = {}
    for seed in seeds:
        seeded = dataclasses.replace(config, seed=seed)
        run = open_run(out / f"seed-{seed}", seeded, "quartet:tiny", (f"--seed={seed}",))
        runs[seed] = run_to_end(run, seeded)
    grid_run = run_to_end(open_run(out / "grid", grid, "quartet:grid"), grid)
    after = {
        seed: losses_after_training(dataclasses.replace(config, seed=seed), RunDir.open(run.path))
        for seed, run in runs.items()
    }
    measured = collect(runs, grid_run, claims, [arm.name for arm in config.arms], after)
    write_results(results, measured)
    follow(PAGE, page(measured), results=results, published=RESULTS, seeds=seeds, published_seeds=SEEDS)
    shown = list(runs.values())  # last: a mistake in a plot must not cost the numbers
    own_grid = grid_section(grid_run)
    sections = [*config.sections(shown), *([own_grid] if own_grid else [])]
    print(write_report(shown, out / "report.html", sections=sections))


def collect(
    runs: Mapping[int, RunData],
    grid_run: RunData,
    claims: Sequence[Claim],
    arms: Sequence[str],
    after: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """Everything measured, as JSON types: by arm and seed, intervals over seeds, and each claim about the arms that were run.

    `after`: by seed, what `losses_after_training` found.
    """
    trained = {
        arm: {str(seed): _measure(run.stage(arm), run.stage(arms[0])) for seed, run in runs.items()} for arm in arms
    }
    law = law_measures()
    errors = {seed: measure_quantisers(seed) for seed in runs}
    quantisers = {
        name: {str(seed): dataclasses.asdict(found[name]) for seed, found in errors.items()}
        for name in next(iter(errors.values()))
    }
    biases = {seed: measure_gradients(seed) for seed in runs}
    gradients = {
        name: {str(seed): dataclasses.asdict(found[name]) for seed, found in biases.items()}
        for name in next(iter(biases.values()))
    }
    ways = dict.fromkeys(name for losses in after.values() for name in losses)
    rounded = {
        way: {str(seed): _after(losses[way], trained[arms[0]][str(seed)]) for seed, losses in after.items()}
        for way in ways
    }
    judged = {**trained, **rounded, **quantisers, **gradients, "law": {str(seed): law for seed in runs}}
    any_run = next(iter(runs.values()))
    stages = [stage for run in (*runs.values(), grid_run) for stage in run.stages]
    return {
        "paper": "Quartet: Native FP4 Training Can Be Optimal for Large Language Models (arXiv:2505.14669)",
        "command": "maypole reproduce quartet" + seeds_option(sorted(runs), SEEDS),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": any_run.env,
        "seeds": sorted(runs),
        "wall_time_s": sum(stage.metrics.elapsed_s for stage in stages),
        "arms": _with_means(trained),
        "after_training": _with_means(rounded),
        "rtn_minus_sr": _difference(trained, "quartet_rtn", "quartet_sr"),
        "law": law,
        "grid": _grid_measures(grid_run),
        "quantisers": _with_means(quantisers),
        "gradients": _with_means(gradients),
        "claims": [judge(claim, judged) for claim in claims if set(claim.arms) <= judged.keys()],
    }


def _with_means(measured: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, Any]:
    return {name: {"seeds": by_seed, "mean": means(by_seed)} for name, by_seed in measured.items()}


def _measure(stage: StageData, baseline: StageData) -> dict[str, float | None]:
    """The end of an arm. The evaluation reads the same held-out text each time, so its last value needs no averaging."""
    _, above = gap(stage, baseline)
    values = {
        "final_loss": stage.metrics.last("eval/loss"),
        "gap": float(above[-1]) if len(above) else None,
        "final_train_loss": stage.metrics.tail_mean("loss/total", 50),
        "wall_time_s": stage.metrics.elapsed_s,
    }
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _after(loss: float, exact: Mapping[str, float | None]) -> dict[str, float | None]:
    """The same measures of a model that was quantised when it was done."""
    unquantised = exact["final_loss"]
    return {"final_loss": loss, "gap": None if unquantised is None else loss - unquantised}


def _difference(
    trained: Mapping[str, Mapping[str, Mapping[str, float | None]]], first: str, second: str
) -> dict[str, Any] | None:
    """Final loss of one arm minus another's, seed by seed: pairs share their weights and data, so this separates best."""
    if first not in trained or second not in trained:
        return None
    by_seed: dict[str, dict[str, float | None]] = {}
    for seed, own in trained[first].items():
        a, b = own["final_loss"], trained[second][seed]["final_loss"]
        by_seed[seed] = {"final_loss": None if a is None or b is None else a - b}
    return {"seeds": by_seed, "mean": means(by_seed)}


def law_measures() -> dict[str, float | None]:
    """The fits on the published losses, and what follows from the printed efficiencies."""
    quest = fit_efficiency(PUBLISHED, QUEST_FORWARD, eff_d=1.0).eff_n
    sr = fit_efficiency(PUBLISHED, SR_BACKWARD, eff_n=1.0).eff_d
    rtn = fit_efficiency(PUBLISHED, RTN_BACKWARD, eff_n=1.0).eff_d
    both = {"v1": fit_efficiency(PUBLISHED, QUARTET_SR_30M), "v4": fit_efficiency(PUBLISHED, QUARTET_TABLE)}
    refit, small = published_fits()["all"], published_fits()["to_200m"]
    quartet, luq = (
        Efficiency(eff_n=n, eff_d=d) for n, d in map(PUBLISHED_EFFICIENCY.__getitem__, ("Quartet", "LUQ-INT4"))
    )
    paper = PUBLISHED_QUANTISERS
    places = ALL_BF16.parameters, ALL_BF16.tokens
    values = {
        "quest_forward_eff_n": quest,
        "quest_forward_eff_n_error": quest - paper["QuEST"].eff_n,
        "sr_backward_eff_d": sr,
        "sr_backward_eff_d_error": sr - paper["SR absmax"].eff_d,
        "rtn_backward_eff_d": rtn,
        "rtn_backward_eff_d_error": rtn - paper["RTN absmax"].eff_d,
        **{f"quartet_{version}_eff_n": found.eff_n for version, found in both.items()},
        **{f"quartet_{version}_eff_d": found.eff_d for version, found in both.items()},
        "published_largest_residual": float(np.abs(PUBLISHED.residuals(BF16)).max()),
        "published_huber": huber(PUBLISHED.residuals(ALL_BF16)),
        **{f"refit_{name}": value for name, value in dataclasses.asdict(refit).items()},
        "refit_huber": huber(refit.residuals(ALL_BF16)),
        "refit_largest_difference": float(np.abs(np.log(refit.loss(*places) / PUBLISHED.loss(*places))).max()),
        **{f"refit_to_200m_{name}": value for name, value in dataclasses.asdict(small).items()},
        "refit_to_200m_forecast_error": float(np.abs(small.residuals(EXTRAPOLATION)).max()),
        "parameters_saved_against_luq_int4": parameter_saving(quartet, luq),
        "data_ratio_to_luq_int4": data_ratio(quartet, luq),
    }
    return {name: float(value) for name, value in values.items()}


def _grid_measures(run: RunData) -> dict[str, Any]:
    """Points, law and efficiencies of the own grid; None where too few runs are there."""
    points = grid_points(run)
    fit = fit_grid(points)
    return {
        "points": {
            rule: {field.name: getattr(grid, field.name).tolist() for field in dataclasses.fields(grid)}
            for rule, grid in points.items()
        },
        "law": dataclasses.asdict(fit.law) if fit else None,
        "largest_residual": fit.error if fit else None,
        "efficiencies": {rule: dataclasses.asdict(found) for rule, found in fit.efficiencies.items()} if fit else {},
    }


def update_page(path: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the markers of a docs page with `page(results)`."""
    replace_results(path, page(results))


if __name__ == "__main__":
    update_page(PAGE, json.loads(RESULTS.read_text(encoding="utf-8")))
