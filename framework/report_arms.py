"""Which curves a report compares, and how each one looks everywhere on the page."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from framework.rundata import RunData, StageData

__all__ = ["COLOURS", "Arm", "are_seeds", "arms_of", "flat_config", "mean_curve", "run_labels", "smooth"]

# Okabe and Ito's colours (safe for colour-blind readers) without the yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One curve of every plot: a stage, or the same stage of several seeds."""

    key: str  # links the legend of the page to traces (plotly's legendgroup)
    label: str
    colour: str
    symbol: str
    dash: str
    stages: tuple[StageData, ...]

    def names(self) -> set[str]:
        """Metrics that at least one stage has."""
        return {name for stage in self.stages for name in stage.metrics.names()}


def arms_of(runs: Sequence[RunData], *, seeds: bool | None = None) -> tuple[Arm, ...]:
    """The arms of one or several runs, each with a fixed colour.

    seeds=True joins stages of equal name over runs, False keeps them apart (labels get the run's name in front),
    None joins them when the runs' configs differ in nothing but a seed.
    """
    labels = run_labels(runs)
    groups: dict[str, list[StageData]] = {}
    join = are_seeds(runs) if seeds is None else seeds
    for run, run_label in zip(runs, labels, strict=True):
        for stage in run.arms or run.stages:
            label = stage.name if join or len(runs) == 1 else f"{run_label}/{stage.name}"
            groups.setdefault(label, []).append(stage)
    return tuple(
        Arm(
            f"arm{i}",
            label,
            COLOURS[i % len(COLOURS)],
            _SYMBOLS[i % len(_SYMBOLS)],
            _DASHES[i // len(COLOURS) % len(_DASHES)],
            tuple(stages),
        )
        for i, (label, stages) in enumerate(groups.items())
    )


def run_labels(runs: Sequence[RunData]) -> list[str]:
    """Names of the runs, made unique with the parent folder or a number where two are equal."""
    labels = [run.name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [f"{run.path.absolute().parent.name}/{run.name}" for run in runs]
    if len(set(labels)) < len(labels):
        labels = [f"{run.name} ({i})" for i, run in enumerate(runs, start=1)]
    return labels


def are_seeds(runs: Sequence[RunData]) -> bool:
    """True when two or more runs have the same arms and configs that differ in nothing but a seed."""
    if len(runs) < 2 or len({tuple(stage.name for stage in run.arms) for run in runs}) > 1:
        return False
    configs = [{k: v for k, v in flat_config(run.config).items() if not _is_identity(k)} for run in runs]
    seeds = [{k: v for k, v in flat_config(run.config).items() if k.split(".")[-1] == "seed"} for run in runs]
    distinct = {json.dumps(s, sort_keys=True) for s in seeds}
    return bool(configs[0]) and all(c == configs[0] for c in configs) and len(distinct) == len(runs)


def flat_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": [1]}} -> {"a.b.0": 1}."""
    if isinstance(config, dict):
        items = [(str(key), value) for key, value in config.items()]
    elif isinstance(config, list):
        items = [(str(i), value) for i, value in enumerate(config)]
    else:
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flat_config(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _is_identity(key: str) -> bool:
    """Fields that tell two seeds of one experiment apart without making them two experiments."""
    parts = key.split(".")
    return parts[-1] == "seed" or parts[0] in ("name", "overrides", "run", "run_dir") or key == "config.name"


def mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over seeds at the steps that every seed has: a seed that ends early must not bend the line."""
    curves = [curve for curve in curves if len(curve[0])]
    if not curves:
        return np.empty(0), np.empty(0)
    common = curves[0][0]
    for steps, _ in curves[1:]:
        common = np.intersect1d(common, steps)
    rows = [values[np.isin(steps, common)] for steps, values in curves]
    return common, np.mean(rows, axis=0) if len(common) else np.empty(0)


def smooth(values: np.ndarray, *, log: bool = False) -> tuple[np.ndarray, int]:
    """Centred running mean (geometric for log axes) and its width; width 1 where there are too few points for it to help.

    At both ends, where the window would reach past the data, a straight line through the last full window: no lag, no bend.
    """
    half = min(len(values) // 24, 12)
    if half < 1:
        return values, 1
    width = 2 * half + 1
    values = np.log(values) if log else values
    middle = np.convolve(values, np.full(width, 1 / width), mode="valid")
    at = np.arange(width)
    start = np.polyval(np.polyfit(at, values[:width], 1), at[:half])
    end = np.polyval(np.polyfit(at, values[-width:], 1), at[-half:])
    out = np.concatenate([start, middle, end])
    return np.exp(out) if log else out, width
