"""The first lines of a report: what ran where, and one table row an arm."""

import dataclasses
import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from framework.report_arms import Arm, flat_config, run_labels
from framework.report_types import Cell, Table
from framework.rundata import RunData, StageData

__all__ = [
    "config_differences",
    "duration",
    "held_out_count",
    "page_facts",
    "page_title",
    "page_warnings",
    "summary_table",
]

_TAIL = 5  # noisy training metrics are summarised by their last few values


def page_title(runs: Sequence[RunData], arms: Sequence[Arm]) -> str:
    """The experiment's name when all runs share it, else the names of the runs."""
    names = {_experiment_name(run) for run in runs}
    if len(names) == 1:
        name = names.pop()
        joined = any(len(arm.stages) > 1 for arm in arms)
        return name if len(runs) == 1 else f"{name}: {len(runs)} {'seeds' if joined else 'runs'}"
    return " · ".join(run_labels(runs))


def page_facts(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """Date, hardware, wall time, commit: what env.json and the metrics tell."""
    newest = max((stage.path / "metrics.jsonl").stat().st_mtime for run in runs for stage in run.stages)
    date = _env(runs, "date", "started", "started_at", "time", "created")
    date = date[:16].replace("T", " ") or datetime.datetime.fromtimestamp(newest).strftime("%Y-%m-%d %H:%M")
    wall = sum(stage.metrics.elapsed_s for run in runs for stage in run.stages)
    commit = _env(runs, "commit", "git_commit", "git.commit")
    dirty = _env(runs, "dirty", "git_dirty", "git.dirty").lower() == "true"
    facts = [
        ("date", date),
        ("hardware", " · ".join(dict.fromkeys(text for run in runs if (text := _hardware(run.env))))),
        ("wall time", duration(wall)),
        ("commit", commit[:10] + (" (with local changes)" if commit and dirty else "")),
        ("runs", ", ".join(run_labels(runs)) if len(runs) > 1 else ""),
    ]
    return [(name, value) for name, value in facts if value]


def page_warnings(runs: Sequence[RunData]) -> list[str]:
    """What a reader must know before trusting the curves."""
    said: dict[str, list[str]] = {}
    for run, label in zip(runs, run_labels(runs), strict=True):
        for stage in run.stages:
            where = stage.name if len(runs) == 1 else f"{label}/{stage.name}"
            if not stage.done:
                said.setdefault(f"not finished, the curves end at step {stage.metrics.steps:g}", []).append(where)
            if stage.dropped_lines:
                said.setdefault("a half-written last line was left out", []).append(where)
            bad = {name: count for name, count in stage.metrics.nonfinite.items() if not name.startswith("eval/")}
            if bad:
                listed = ", ".join(f"{name} ({count}×)" for name, count in sorted(bad.items()))
                said.setdefault(f"NaN or infinite values, not drawn: {listed}", []).append(where)
    return [f"{', '.join(places)}: {message}." for message, places in said.items()]


def summary_table(arms: Sequence[Arm], runs: Sequence[RunData]) -> Table:
    """One row an arm; ± is over seeds when there are several, else from the number of held-out questions."""
    home = {id(stage): run for run in runs for stage in run.stages}
    rows = [_row(arm, [home[id(stage)] for stage in arm.stages]) for arm in arms]
    columns = ["Arm", *(name for name, _ in rows[0].cells)]
    keep = [0, *(i for i in range(1, len(columns)) if any(row.cells[i - 1][1] is not None for row in rows))]
    cells = [[row.label, *(value for _, value in row.cells)] for row in rows]
    caption = [row.plus_minus for row in rows if row.plus_minus]
    if any(row.tail for row in rows):
        caption.append(f"Entropy and reward: mean of the last {_TAIL} logged steps.")
    return Table(
        [columns[i] for i in keep], [[row[i] for i in keep] for row in cells], " ".join(dict.fromkeys(caption))
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    label: str
    cells: list[tuple[str, Cell]]
    plus_minus: str
    tail: bool


def _row(arm: Arm, homes: Sequence[RunData]) -> _Row:
    starts = [_start_accuracy(stage, run) for stage, run in zip(arm.stages, homes, strict=True)]
    finals = [stage.metrics.last("eval/accuracy") for stage in arm.stages]
    gains = [b - a for a, b in zip(starts, finals, strict=True) if a is not None and b is not None]
    final, spread, how = _mean(finals), None, ""
    if final is not None and len(arm.stages) > 1:
        known = [f for f in finals if f is not None]
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
        how = f"±: standard deviation over {len(known)} seeds." if spread is not None else ""
    elif final is not None and (count := held_out_count(next(iter(arm.stages)))):
        centre = (final * count + 2) / (count + 4)  # Agresti and Coull: also honest near 0 % and 100 %
        spread = 1.96 * math.sqrt(centre * (1 - centre) / (count + 4))
        how = f"±: 95 % interval from {count} held-out questions."
    entropy = _mean([_tail(stage, "policy/entropy", "eval/entropy") for stage in arm.stages])
    reward = _mean([_tail(stage, "reward/mean") for stage in arm.stages])
    accuracy = (
        None if final is None else f"{100 * final:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")
    )
    start, gain, done = _mean(starts), _mean(gains), all(stage.done for stage in arm.stages)
    return _Row(
        arm.label,
        [
            ("Seeds", len(arm.stages) if len(arm.stages) > 1 else None),
            ("Warm-start accuracy (%)", None if start is None else f"{100 * start:.1f}"),
            ("Held-out accuracy (%)", accuracy),
            ("Change (points)", None if gain is None else f"{100 * gain:+.1f}".replace("-", "−")),
            ("Entropy (nats/token)", None if entropy is None else f"{entropy:.3f}"),
            ("Reward", None if reward is None else f"{reward:.3f}"),
            ("Steps", " / ".join(dict.fromkeys(f"{stage.metrics.steps:g}" for stage in arm.stages))),
            ("Wall time", duration(sum(stage.metrics.elapsed_s for stage in arm.stages)) or None),
            ("State", "done" if done else "not finished"),
        ],
        how,
        entropy is not None or reward is not None,
    )


def held_out_count(stage: StageData) -> int | None:
    """How many questions the last evaluation had: `eval/count` if logged, else counted in the samples.

    Samples count only when they reproduce the logged accuracy: then they are the whole evaluation, not a selection.
    """
    logged = stage.metrics.last("eval/count")
    if logged:
        return int(logged)
    steps, values = stage.metrics.series("eval/accuracy")
    if not len(steps):
        return None
    rows = [s for s in stage.samples if s.get("split") == "eval" and s.get("step") == steps[-1]]
    rewards = [float(s["reward"]) for s in rows if isinstance(s.get("reward"), int | float)]
    if not rewards or abs(float(np.mean(rewards)) - values[-1]) > 1e-3:
        return None
    return len({(s.get("task"), s.get("question")) for s in rows})


def config_differences(runs: Sequence[RunData]) -> Table | None:
    """The config fields in which the runs differ."""
    flats = [flat_config(run.config) for run in runs]
    keys = sorted({key for flat in flats for key in flat})
    differing = [key for key in keys if len({repr(flat.get(key, "–")) for flat in flats}) > 1]
    if len(runs) < 2 or not differing:
        return None
    rows = [[key, *(str(flat.get(key, "–")) for flat in flats)] for key in differing]
    return Table(["field", *run_labels(runs)], rows, align="l" * (len(runs) + 1))


def duration(seconds: float) -> str:
    """5025 -> "1 h 24 min"."""
    if seconds <= 0:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _start_accuracy(stage: StageData, run: RunData) -> float | None:
    """Where the arm began: the end of the warm start, else the arm's own evaluation before its first update."""
    if stage.is_warm_start:
        return None
    if run.warm_start and (accuracy := run.warm_start.metrics.last("eval/accuracy")) is not None:
        return accuracy
    steps, values = stage.metrics.series("eval/accuracy")
    return float(values[0]) if len(steps) and steps[0] == 0 else None


def _tail(stage: StageData, *names: str) -> float | None:
    return next((v for name in names if (v := stage.metrics.tail_mean(name, _TAIL)) is not None), None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _experiment_name(run: RunData) -> str:
    flat = flat_config(run.config)
    name = next((flat[key] for key in ("name", "config.name", "experiment.name") if flat.get(key)), run.name)
    return str(name)


def _hardware(env: dict[str, Any]) -> str:
    """Accelerators by kind and number, else processor, cores and memory; see `framework.env.describe_env`."""
    devices = [str(device) for device in env.get("devices") or () if not str(device).startswith("cpu")]
    if devices:
        kinds = dict.fromkeys(devices)
        return ", ".join(f"{devices.count(kind)} × {kind.partition(': ')[2] or kind}" for kind in kinds)
    if env.get("hardware"):
        return str(env["hardware"])
    cores = f"{env['cores']} {'core' if env['cores'] == 1 else 'cores'}" if env.get("cores") else ""
    memory = f"{env['memory_gib']:.0f} GiB" if isinstance(env.get("memory_gib"), int | float) else ""
    return ", ".join(part for part in (str(env.get("cpu") or env.get("platform") or ""), cores, memory) if part)


def _env(runs: Sequence[RunData], *keys: str) -> str:
    """The first of the keys that env.json has; differing values of several runs side by side."""
    found: list[str] = []
    for run in runs:
        flat: dict[str, Any] = run.env | flat_config(run.env)
        value = next((flat[key] for key in keys if flat.get(key) not in (None, "")), None)
        if isinstance(value, list):
            value = ", ".join(dict.fromkeys(str(v) for v in value))
        if value is not None and not isinstance(value, dict):
            found.append(str(value))
    return " · ".join(dict.fromkeys(found))
