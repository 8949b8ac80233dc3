"""Markdown of a results file of `maypole reproduce quartet`: what the docs page shows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments._quartet_grid import PUBLISHED_EFFICIENCY, PUBLISHED_QUANTISERS
from experiments._quartet_law import PUBLISHED
from experiments._results import claim_rows, mean_cell, measured_with

__all__ = ["page"]


def page(results: Mapping[str, Any]) -> str:
    """Markdown of a results file: what the docs show, never typed by hand."""
    lines = [
        measured_with(results),
        "",
        "| Arm | Held-out loss (nats/byte) | Above exact | Training loss, last 50 steps |",
    ]
    lines.append("| --- | ---: | ---: | ---: |")
    for arm, entry in results["arms"].items():
        cells = [_cell(entry["mean"][name], 4) for name in ("final_loss", "gap", "final_train_loss")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "Mean over seeds ± half of the 95 % interval (Student t); gaps are taken seed by seed.", ""]
    if results["rtn_minus_sr"] is not None:
        mean = results["rtn_minus_sr"]["mean"]["final_loss"]
        lines += [
            f"Rounded to nearest minus stochastically rounded, final loss: {_cell(mean, 4)} nats: {_separates(mean)}.",
            "",
        ]
    lines += _after_rows(results) + _law_rows(results["law"]) + _grid_rows(results["grid"]) + _quantiser_rows(results)
    return "\n".join([*lines, *claim_rows(results["claims"])]) + "\n"


def _cell(value: Mapping[str, float | None], digits: int) -> str:
    """`mean_cell` with more digits: gaps are hundredths of a nat."""
    mean, half = value["mean"], value["interval_95"]
    if mean is None:
        return mean_cell(value, 1)
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def _separates(mean: Mapping[str, float | None]) -> str:
    if mean["mean"] is None or mean["interval_95"] is None:
        return "one seed says nothing about that"
    if abs(mean["mean"]) <= mean["interval_95"]:
        return "the two do not separate at this scale"
    return "rounding to nearest ends lower" if mean["mean"] < 0 else "stochastic rounding ends lower"


def _after_rows(results: Mapping[str, Any]) -> list[str]:
    if not results["after_training"]:
        return []
    rows = [
        "| Trained unquantised, quantised afterwards | Held-out loss (nats/byte) | Above exact |",
        "| --- | ---: | ---: |",
    ]
    for name, entry in results["after_training"].items():
        cells = [_cell(entry["mean"][measure], 4) for measure in ("final_loss", "gap")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    note = (
        "`after_quest`: weights and activations, as in Quartet's forward pass; the others: weights alone, as `maypole quantise` "
        "does it."
    )
    return [*rows, "", note, ""]


def _law_rows(law: Mapping[str, float]) -> list[str]:
    paper = PUBLISHED_QUANTISERS
    printed = dataclasses.asdict(PUBLISHED)
    rows = [
        "| Law, on the published losses | Here | Paper |",
        "| --- | ---: | ---: |",
        f"| effN of QuEST forward, effD = 1 | {law['quest_forward_eff_n']:.3f} | {paper['QuEST'].eff_n} |",
        f"| effD of the stochastic backward pass, effN = 1 | {law['sr_backward_eff_d']:.3f} | {paper['SR absmax'].eff_d} |",
        f"| effD of the backward pass to nearest, effN = 1 | {law['rtn_backward_eff_d']:.3f} | {paper['RTN absmax'].eff_d} |",
    ]
    names = {"a": "A", "alpha": "alpha", "b": "B", "beta": "beta", "e": "E", "gamma": "gamma"}
    for name, shown in names.items():
        rows.append(f"| {shown}, fitted on all 23 baseline runs | {law[f'refit_{name}']:.4g} | {printed[name]:.4g} |")
    both = PUBLISHED_EFFICIENCY["Quartet"]
    for version, what in (("v1", "version 1, 30M, notebook"), ("v4", "version 4, 30M, two decimals")):
        pair = f"{law[f'quartet_{version}_eff_n']:.2f}, {law[f'quartet_{version}_eff_d']:.2f}"
        rows.append(f"| effN, effD of Quartet jointly ({what}) | {pair} | {both[0]}, {both[1]} |")
    saved = 100 * law["parameters_saved_against_luq_int4"]
    rows.append(f"| Fewer parameters than LUQ-INT4 at equal loss, printed efficiencies (%) | {saved:.0f} | 15 |")
    rows.append(f"| Times fewer tokens than LUQ-INT4 | {law['data_ratio_to_luq_int4']:.1f} | 5 |")
    error = 100 * law["refit_to_200m_forecast_error"]
    return [
        *rows,
        "",
        f"Fitted on the 21 runs up to 200M alone, the law misses 430M and 800M by at most {error:.2f} %.",
        "",
    ]


def _grid_rows(grid: Mapping[str, Any]) -> list[str]:
    rows = ["| Own grid, rule | Runs | Mean gap (nats/byte) | effN | effD |", "| --- | ---: | ---: | ---: | ---: |"]
    exact = grid["points"].get("exact")
    for rule, points in grid["points"].items():
        rise = "–"
        if exact is not None and len(exact["loss"]) == len(points["loss"]):
            rise = f"{np.mean(np.subtract(points['loss'], exact['loss'])):.4f}"
        found = grid["efficiencies"].get(rule)
        cells = [f"{found['eff_n']:.2f}", f"{found['eff_d']:.2f}"] if found else ["–", "–"]
        rows.append(f"| {rule} | {len(points['loss'])} | {rise} | {' | '.join(cells)} |")
    residual = grid["largest_residual"]
    said = (
        ""
        if residual is None
        else f"Largest residual of the law fitted on the unquantised runs: {100 * residual:.2f} %."
    )
    return [*rows, "", *([said, ""] if said else [])]


def _quantiser_rows(results: Mapping[str, Any]) -> list[str]:
    rows = ["| Quantiser | MSE | MSE, mean of an octave | Misalignment |", "| --- | ---: | ---: | ---: |"]
    for name, entry in results["quantisers"].items():
        cells = [_cell(entry["mean"][measure], 4) for measure in ("mse", "mse_octave", "misalignment")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    rows += [
        "",
        "| Backward pass of one layer | Error of the mean gradient | Cosine of one draw |",
        "| --- | ---: | ---: |",
    ]
    for name, entry in results["gradients"].items():
        rows.append(f"| {name} | {_cell(entry['mean']['bias'], 3)} | {_cell(entry['mean']['cosine'], 3)} |")
    return [*rows, ""]
