"""What every `maypole reproduce` shares: runs that continue, claims judged seed by seed, the results file and its page."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from framework.config_text import diff_json, to_json
from framework.errors import UserError
from framework.experiment import Claim, Experiment
from framework.rundata import RunData, StageData, load_run
from framework.rundir import RunDir, write_atomic

__all__ = [
    "NOT_MEASURED",
    "Arms",
    "claim_rows",
    "first_value",
    "follow",
    "judge",
    "mean_cell",
    "means",
    "measured_with",
    "open_run",
    "replace_results",
    "run_to_end",
    "seeds_option",
    "tail_value",
    "write_results",
]

NOT_MEASURED = "not measured"

Measured = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""arm -> seed -> measure -> number; None where it was not measured."""

_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # two-sided 95 % Student t for n seeds


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Arms(Experiment, Protocol):
    """An experiment whose stages are arms."""

    @property
    def arms(self) -> Sequence[_Named]:
        """In the order of the report."""
        ...


def open_run(path: Path, config: Arms, source: str, overrides: Sequence[str] = ()) -> RunDir:
    """A new run folder, or the one that is there if it was started with this config. Raises UserError otherwise."""
    started = (path / "config.json").is_file()
    run = RunDir.open(path) if started else RunDir.create(path, config, source, overrides)
    changes = diff_json(run.stored_config, json.loads(json.dumps(to_json(config))))
    if changes:
        raise UserError(
            f"{path} was started with another config: {'; '.join(changes)}. Move it away, or give another folder: --dir DIR."
        )
    return run


def run_to_end(run: RunDir, config: Arms) -> RunData:
    """Start or continue a run; what is finished is not trained again."""
    with run.lock():
        config.run(run)
    return load_run(run.path, order=[arm.name for arm in config.arms])


def seeds_option(seeds: Sequence[int], published: Sequence[int]) -> str:
    """What to add to the command for these seeds."""
    return "" if tuple(seeds) == tuple(published) else f" --seeds {' '.join(map(str, seeds))}"


def first_value(stage: StageData, name: str) -> float:
    """What a metric began at; NaN if there is none."""
    values = stage.metrics.series(name)[1]
    return float(values[0]) if len(values) else math.nan


def tail_value(stage: StageData, name: str, count: int) -> float:
    """What a metric ended at, mean of the last `count` values: one evaluation is a noisy sample."""
    value = stage.metrics.tail_mean(name, count)
    return math.nan if value is None else value


def means(by_seed: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Mean over seeds and half of its 95 % interval (Student t), for every measure."""
    result = {}
    for name in next(iter(by_seed.values())):
        found = [value for values in by_seed.values() if (value := values[name]) is not None]
        half = _T95.get(len(found), 1.96) * np.std(found, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else None
        result[name] = {
            "mean": float(np.mean(found)) if found else None,
            "interval_95": None if half is None else float(half),
        }
    return result


def judge(claim: Claim, measured: Measured) -> dict[str, Any]:
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


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """The results file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(results, indent=1, allow_nan=False) + "\n")


def measured_with(results: Mapping[str, Any]) -> str:
    """When, with what and how long."""
    return (
        f"Measured {results['date']} with `{results['command']}`, seeds {results['seeds']}, "
        f"{results['wall_time_s'] / 60:.0f} min in all, commit {str(_find(results['environment'], 'commit'))[:10]}."
    )


def claim_rows(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of claims: text, value by seed, whether it holds."""
    lines = ["| Claim | Values by seed | Holds |", "| --- | --- | --- |"]
    for claim in claims:
        values = ", ".join(NOT_MEASURED if value is None else f"{value:+.3f}" for value in claim["values"].values())
        held = {True: "yes", False: "no", None: NOT_MEASURED}[claim["holds"]]
        lines.append(f"| {claim['text']} | {values} | {held} |")
    return lines


def mean_cell(value: Mapping[str, float | None], scale: float, *, spread: str = "interval_95") -> str:
    """`62.2 ± 5.7`; one digit for percentages (scale 100), three otherwise. `spread`: the key of what follows the ±."""
    mean, half = value["mean"], value[spread]
    if mean is None:
        return "–"
    digits = 1 if scale == 100 else 3
    return f"{mean * scale:.{digits}f}" + ("" if half is None else f" ± {half * scale:.{digits}f}")


def _find(tree: Any, key: str) -> Any:
    """The first value of `key` anywhere in nested dictionaries."""
    if isinstance(tree, Mapping):
        if key in tree:
            return tree[key]
        for value in tree.values():
            if (found := _find(value, key)) is not None:
                return found
    return None


def follow(
    page: Path, text: str, *, results: Path, published: Path, seeds: Sequence[int], published_seeds: Sequence[int]
) -> None:
    """Put `text` into the docs page if it is of the results file that the page shows, measured with the seeds it names."""
    if not page.is_file():
        return
    if results.resolve() == published.resolve() and sorted(seeds) == sorted(published_seeds):
        replace_results(page, text)
    else:
        print(f"{page} stays as it is: it shows {published.name} of seeds {tuple(published_seeds)}.")


def replace_results(path: Path, text: str) -> None:
    """Replace what stands between the markers of a docs page."""
    start, end = "<!-- results -->\n", "<!-- end of results -->"
    page = path.read_text(encoding="utf-8")
    head, rest = page.split(start, 1)
    write_atomic(path, head + start + text + end + rest.split(end, 1)[1])
