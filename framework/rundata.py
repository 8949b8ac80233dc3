"""Read what a run left on disk: metrics, samples, config. Imports no jax, so it also runs where the run did not.

run = load_run("runs/entropy_mechanism")
steps, values = run.stage("clip_cov").metrics.series("policy/entropy")
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framework.errors import UserError

__all__ = ["Metrics", "RunData", "RunDataError", "StageData", "load_run", "read_jsonl"]

_NOT_METRICS = ("step", "time_s")


class RunDataError(UserError):
    """A run directory that cannot be read; the message says where and what to do."""


class Metrics:
    """The lines of one `metrics.jsonl`, in file order.

    A resumed run writes some steps twice: for every name the later line wins.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]] = ()) -> None:
        self._series: dict[str, dict[float, float]] = {}
        self.nonfinite: dict[str, int] = {}  # name -> how many lines held null, NaN or infinity
        self.lines = len(lines)
        self.elapsed_s = _elapsed(lines)  # wall time, summed over the restarts of a resumed run
        for line in lines:
            for name, value in line.items():
                if name in _NOT_METRICS:
                    continue
                if value is None or (isinstance(value, float) and not math.isfinite(value)):
                    self.nonfinite[name] = self.nonfinite.get(name, 0) + 1
                    self._series.get(name, {}).pop(float(line["step"]), None)
                elif isinstance(value, int | float):
                    self._series.setdefault(name, {})[float(line["step"])] = float(value)
        self.steps = max((float(line["step"]) for line in lines), default=0.0)

    def names(self) -> tuple[str, ...]:
        """Every metric with at least one finite value, sorted."""
        return tuple(sorted(name for name, points in self._series.items() if points))

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values [N], ascending; lines without the metric, or with null, are skipped."""
        points = self._series.get(name, {})
        steps = np.array(sorted(points), dtype=np.float64)
        return steps, np.array([points[step] for step in steps], dtype=np.float64)

    def last(self, name: str) -> float | None:
        """The value at the highest step, or None."""
        points = self._series.get(name)
        return points[max(points)] if points else None

    def tail_mean(self, name: str, count: int = 5) -> float | None:
        """The mean of the last `count` recorded values: what a noisy curve ends at."""
        values = self.series(name)[1]
        return float(values[-count:].mean()) if len(values) else None


@dataclasses.dataclass(frozen=True)
class StageData:
    """One folder of a run: a warm start, or one arm."""

    run: str
    name: str
    path: Path
    metrics: Metrics
    samples: list[dict[str, Any]]
    done: bool
    dropped_lines: int = 0  # half-written last lines of a killed process

    @property
    def is_warm_start(self) -> bool:
        """Warm starts are supervised: own losses, own step axis, and no arm of a comparison."""
        return self.name.startswith("warm")


@dataclasses.dataclass(frozen=True)
class RunData:
    """One run directory, or one stage of it."""

    name: str
    path: Path
    config: dict[str, Any]
    env: dict[str, Any]
    stages: tuple[StageData, ...]

    def stage(self, name: str) -> StageData:
        """The stage of that name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"run {self.name!r} has no stage {name!r}. It has: {', '.join(s.name for s in self.stages)}.")

    @property
    def arms(self) -> tuple[StageData, ...]:
        """The stages that are compared: all but warm starts."""
        return tuple(stage for stage in self.stages if not stage.is_warm_start)

    @property
    def warm_start(self) -> StageData | None:
        """The warm start all arms began from, if the run had one."""
        return next((stage for stage in self.stages if stage.is_warm_start), None)


def load_run(path: str | Path, *, order: Sequence[str] = ()) -> RunData:
    """Read a run directory, or one stage folder of a run.

    Stages are sorted: warm start first, then those named in `order`, then by name. The order decides the colours of a report.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunDataError(f"no run at {path}: the folder does not exist. {_what_to_type(path.parent)}")
    if (path / "metrics.jsonl").is_file():
        home, folders = path.absolute().parent, [path]
    else:
        home, folders = path.absolute(), [p.parent for p in sorted(path.glob("*/metrics.jsonl"))]
    if not folders:
        raise RunDataError(
            f"no metrics in {path}: looked for {path / 'metrics.jsonl'} and {path / '*' / 'metrics.jsonl'}. "
            f"{_what_to_type(path)}"
        )
    stages = [_load_stage(folder, run=home.name) for folder in folders]
    rank = {name: i for i, name in enumerate(order)}
    stages.sort(key=lambda s: (not s.is_warm_start, rank.get(s.name, len(rank)), s.name))
    if not any(stage.metrics.lines for stage in stages):
        raise RunDataError(
            f"the run in {path} has not finished its first step: "
            f"{', '.join(str(s.path / 'metrics.jsonl') for s in stages)} hold no complete line yet. Try again later."
        )
    return RunData(home.name, path, _read_json(home / "config.json"), _read_json(home / "env.json"), tuple(stages))


def read_jsonl(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON-lines file, and how many half-written last lines (0 or 1) were left out.

    Only the end of a file can be half-written; a broken line before it is damage, and an error that names it.
    """
    raw = path.read_bytes().split(b"\n") if path.is_file() else []
    while raw and not raw[-1].strip():
        raw.pop()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(raw, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"expected an object, found {type(record).__name__}")
        except ValueError as error:  # json and UTF-8 errors are ValueErrors
            if number == len(raw):
                return records, 1
            raise RunDataError(
                f"{path}:{number} is not a JSON object ({error}). Delete that line, or restore the file."
            ) from None
        records.append(record)
    return records, 0


def _load_stage(folder: Path, *, run: str) -> StageData:
    lines, dropped = read_jsonl(folder / "metrics.jsonl")
    for number, line in enumerate(lines, start=1):
        if isinstance(line.get("step"), bool) or not isinstance(line.get("step"), int | float):
            raise RunDataError(
                f'{folder / "metrics.jsonl"}: object {number} has no number "step" (keys: {", ".join(line) or "none"}). '
                "Every line needs one."
            )
    samples, dropped_samples = read_jsonl(folder / "samples.jsonl")
    done = (folder / "done.json").is_file()
    return StageData(run, folder.absolute().name, folder, Metrics(lines), samples, done, dropped + dropped_samples)


def _elapsed(lines: Sequence[Mapping[str, Any]]) -> float:
    """`time_s` counts from the start of the process: where it falls, a restart began."""
    total, last = 0.0, 0.0
    for now in _times(lines):
        if now < last:
            total += last
        last = now
    return total + last


def _times(lines: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    for line in lines:
        value = line.get("time_s")
        if isinstance(value, int | float) and math.isfinite(value):
            yield float(value)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDataError(
            f"{path} is not JSON ({error}). Restore it, or delete it to read the run without it."
        ) from None
    return content if isinstance(content, dict) else {"value": content}


def _what_to_type(folder: Path) -> str:
    """The runs that are there, or how to make one."""
    near = sorted({p.parent.parent for p in (*folder.glob("*/metrics.jsonl"), *folder.glob("*/*/metrics.jsonl"))})
    if near:
        return f"Runs found near by: {', '.join(map(str, near[:8]))}. Type: maypole report {near[0]}"
    return "Make a run first, for instance: maypole run entropy_mechanism"
