"""The panels every report has, as far as the runs hold their metrics: a panel without data is not made."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from framework.report_arms import Arm, mean_curve, run_labels
from framework.report_figures import heatmap, line_figure, stacked_bars
from framework.rundata import RunData, StageData

__all__ = ["Group", "Panel", "headline", "standard_groups"]

_TASK = "eval/accuracy/"
_MANY_TASKS = 12  # above this, a heatmap instead of one small plot a task
_MANY_OTHERS = 36


@dataclasses.dataclass(frozen=True)
class Panel:
    """A plot with its heading and a line of explanation."""

    title: str
    figure: go.Figure
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Panels under one heading. layout: "one" or "two" columns, or small "tiles"; a folded group is drawn when it is opened."""

    key: str
    title: str
    panels: tuple[Panel, ...]
    text: str = ""
    layout: str = "two"
    folded: bool = False


def headline(arms: Sequence[Arm], runs: Sequence[RunData]) -> list[Panel]:
    """Held-out accuracy and entropy, side by side."""
    panels = [
        _lines(arms, "eval/accuracy", "Held-out accuracy", "accuracy (%)", scale=100, unit=" %", height=380),
        _lines(arms, "policy/entropy", "Policy entropy", "entropy (nats per token)", height=380)
        or _lines(arms, "eval/entropy", "Policy entropy (held-out)", "entropy (nats per token)", height=380),
    ]
    if panels[1]:
        panels[1].figure.update_yaxes(rangemode="tozero")
    if panels[0] and runs[0].arms:
        _mark_warm_start(panels[0].figure, runs)
    return [panel for panel in panels if panel]


def standard_groups(arms: Sequence[Arm], runs: Sequence[RunData]) -> list[Group]:
    """Everything below the experiment's own sections, in the order of the page."""
    has_reward = any("reward/mean" in arm.names() for arm in arms)
    training = [
        _lines(arms, "reward/mean", "Reward", "mean reward per response"),
        None if has_reward else _lines(arms, _loss_name(arms), "Loss", "loss"),
        _lines(arms, "length/mean", "Response length", "length (tokens)", unit=" tokens"),
        _lines(arms, "length/truncated_frac", "Truncated responses", "responses cut off (%)", scale=100, unit=" %"),
        _lines(arms, "grad/norm", "Gradient norm", "global L2 norm", log=_spread(arms, "grad/norm") > 30),
        _lines(arms, "sampler/logp_gap_max", "Sampler/trainer log-prob gap", "largest gap (nats, log scale)", log=True),
    ]
    tasks, layout = _tasks(arms)
    shown = {"reward/mean", "length/mean", "length/truncated_frac", "grad/norm", "sampler/logp_gap_max"}
    shown |= {"eval/accuracy", "policy/entropy", "throughput/tokens_per_s", "" if has_reward else _loss_name(arms)}
    others = sorted({n for arm in arms for n in arm.names()} - shown)
    others = [n for n in others if not n.startswith((_TASK, "time/"))]
    cut = f" The first {_MANY_OTHERS} of {len(others)} names." if len(others) > _MANY_OTHERS else ""
    groups = [
        Group("training", "Training", _present(training)),
        Group("tasks", "Held-out accuracy per task", tuple(tasks), layout=layout),
        Group("warm-start", "Warm start", tuple(_warm_panels(runs)), "Supervised, with a step axis of its own."),
        Group(
            "time",
            "Time",
            _present(
                [
                    _phases(runs),
                    _lines(arms, "throughput/tokens_per_s", "Throughput", "tokens per second", unit=" tok/s"),
                ]
            ),
        ),
        Group(
            "others",
            "Every other metric",
            _present([_lines(arms, name, name, "value", height=230) for name in others[:_MANY_OTHERS]]),
            f"Units are those of the metric names in the documentation.{cut}",
            layout="tiles",
            folded=True,
        ),
    ]
    return [group for group in groups if group.panels]


def _lines(
    arms: Sequence[Arm],
    name: str,
    title: str,
    y: str,
    *,
    x: str = "",
    scale: float = 1.0,
    log: bool = False,
    unit: str = "",
    height: int = 320,
) -> Panel | None:
    if not any(name in arm.names() for arm in arms):
        return None
    x = x or ("RL step" if any("reward/mean" in arm.names() for arm in arms) else "step")
    figure = line_figure(arms, name, y=y, x=x, scale=scale, log=log, unit=unit, height=height)
    widths = {int(trace.meta["smoothed_over"]) for trace in figure.data if trace.meta}  # type: ignore[reportAttributeAccessIssue]
    seeds = max((int(trace.meta["seeds"]) for trace in figure.data if trace.meta), default=1)  # type: ignore[reportAttributeAccessIssue]
    width = max(widths, default=1)
    over = f"running mean over {width} steps"
    if seeds > 1:
        notes = [f"Thin: single seeds. Bold: their mean{f', {over}' if width > 1 else ''}."]
    else:
        notes = [f"Faint: every step. Bold: {over}."] if width > 1 else []
    if log and any((stage.metrics.series(name)[1] <= 0).any() for arm in arms for stage in arm.stages):
        notes.append("Zeros are drawn at the lower edge.")
    return Panel(title, figure, " ".join(notes))


def _mark_warm_start(figure: go.Figure, runs: Sequence[RunData]) -> None:
    """A dotted line where the arms came from."""
    values = [run.warm_start.metrics.last("eval/accuracy") for run in runs if run.warm_start]
    levels = sorted({round(100 * v, 6) for v in values if v is not None})
    if not levels:
        return
    level = float(np.mean(levels))
    label = "warm start" if len(levels) == 1 else f"warm starts (mean of {len(levels)})"
    figure.add_hline(
        y=level,
        line={"color": "#6b7482", "width": 1.2, "dash": "dot"},
        annotation={
            "text": f"{label} {level:.1f} %",
            "font": {"size": 11, "color": "#6b7482"},
            "bgcolor": "rgba(255,255,255,0.7)",
        },
        annotation_position="bottom right",
    )


def _tasks(arms: Sequence[Arm]) -> tuple[list[Panel], str]:
    names = sorted({n for arm in arms for n in arm.names() if n.startswith(_TASK)})
    if not names:
        return [], "two"
    tasks = [name.removeprefix(_TASK) for name in names]
    if len(names) <= _MANY_TASKS:
        panels = [
            _lines(arms, name, task, "accuracy (%)", scale=100, unit=" %", height=230)
            for name, task in zip(names, tasks, strict=True)
        ]
        for panel in panels:
            if panel:
                panel.figure.update_yaxes(range=[-4, 104])
        return [panel for panel in panels if panel], "tiles"
    last = np.array([[_last_mean(arm, name) for arm in arms] for name in names]) * 100
    figure = heatmap(tasks, [arm.label for arm in arms], last, colour="accuracy (%)")
    return [Panel("At the last evaluation", figure, "Per cent of held-out questions answered right.")], "one"


def _last_mean(arm: Arm, name: str) -> float:
    values = mean_curve([stage.metrics.series(name) for stage in arm.stages])[1]
    return float(values[-1]) if len(values) else float("nan")


def _warm_panels(runs: Sequence[RunData]) -> list[Panel]:
    """Loss and accuracy of warm starts; left out when they are all there is (then they are the arms)."""
    named = zip(run_labels(runs), runs, strict=True)
    warm = [(name, run.warm_start) for name, run in named if run.warm_start and run.arms]
    greys = ("#444444", "#8a8a8a", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
    arms = [
        Arm(
            f"warm{i}",
            stage.name if len(runs) == 1 else f"{name}/{stage.name}",
            greys[i % 6],
            "circle",
            "solid",
            (stage,),
        )
        for i, (name, stage) in enumerate(warm)
    ]
    loss = _loss_name(arms)
    panels = [
        _lines(arms, loss, "Warm-start loss", "cross-entropy (nats per token)", x="warm-start step"),
        _lines(
            arms,
            "eval/accuracy",
            "Warm-start held-out accuracy",
            "accuracy (%)",
            x="warm-start step",
            scale=100,
            unit=" %",
        ),
    ]
    if len(arms) > 1:
        for panel in panels:
            if panel:
                panel.figure.update_layout(showlegend=True, margin={"t": 44})
    return [panel for panel in panels if panel]


def _loss_name(arms: Sequence[Arm]) -> str:
    names = sorted({n for arm in arms for n in arm.names() if n.split("/")[0] == "loss"})
    return next((n for n in ("loss/total", "loss", "loss/sft") if n in names), names[0] if names else "loss/total")


def _spread(arms: Sequence[Arm], name: str) -> float:
    values = np.concatenate([s.metrics.series(name)[1] for arm in arms for s in arm.stages] or [np.ones(1)])
    values = values[values > 0]
    return float(values.max() / np.median(values)) if len(values) else 1.0


def _phases(runs: Sequence[RunData]) -> Panel | None:
    """Where the wall time of each stage went."""
    stages = [(name, stage) for name, run in zip(run_labels(runs), runs, strict=True) for stage in run.stages]
    names = sorted({n for _, s in stages for n in s.metrics.names() if n.startswith("time/") and n.endswith("_s")})
    known = [n for n in ("time/rollout_s", "time/reward_s", "time/train_s", "time/eval_s") if n in names]
    names = known + [n for n in names if n not in known]
    stages = [(run, stage) for run, stage in stages if any(_sum(stage, n) for n in names)]
    if not stages:
        return None
    rows = [s.name if len(runs) == 1 else f"{run}/{s.name}" for run, s in stages]
    parts = {n.removeprefix("time/").removesuffix("_s"): np.array([_sum(s, n) for _, s in stages]) for n in names}
    rest = np.array([max(s.metrics.elapsed_s, 0.0) for _, s in stages]) - np.sum(list(parts.values()), axis=0)
    if (rest > 0.01 * np.sum(list(parts.values()), axis=0)).any():
        parts["other (compile, checkpoints)"] = np.maximum(rest, 0.0)
    longest = float(np.sum(list(parts.values()), axis=0).max())
    divisor, unit = (3600, "h") if longest > 3 * 3600 else (60, "min") if longest > 180 else (1, "s")
    scaled = {name: list(values / divisor) for name, values in parts.items()}
    return Panel("Time per phase", stacked_bars(rows, scaled, x=f"wall time ({unit})", unit=f" {unit}"))


def _sum(stage: StageData, name: str) -> float:
    return float(stage.metrics.series(name)[1].sum())


def _present(panels: Sequence[Panel | None]) -> tuple[Panel, ...]:
    return tuple(panel for panel in panels if panel)
