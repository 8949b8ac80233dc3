"""What SynLogic adds to a report: accuracy by task, the calibration as a heat map, and the gap between two verifiers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from data.synlogic.calibrate import Calibration, Cell
from framework.report import Arm, RunData, Section, StageData, Table, arms_of, heatmap, line_figure
from framework.report_arms import mean_curve

__all__ = ["accepted_wrong", "band_section", "calibration_section", "hacking_sections", "sections"]

_TASK = "eval/accuracy/"
Curve = tuple[np.ndarray, np.ndarray]


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Accuracy by task: an average hides a task that learns nothing."""
    arms = arms_of(runs)
    tasks = sorted({name for arm in arms for name in arm.names() if name.startswith(_TASK)})
    if not tasks:
        return []
    figures = [
        line_figure(arms, name, y="held-out accuracy (%)", title=name.removeprefix(_TASK), scale=100, height=260)
        for name in tasks
    ]
    rows = [
        [arm.label, *(_final(arm, name) for name in tasks), _final(arm, "eval/score/format_reward")] for arm in arms
    ]
    columns = ["Arm", *(name.removeprefix(_TASK) for name in tasks), "format rate"]
    return [
        Section(
            "Accuracy by task",
            "Held-out questions, each answered several times at temperature 1. The table holds the last evaluation, in per "
            "cent, mean over runs.",
            figures,
            Table(columns, rows),
        )
    ]


def _final(arm: Arm, name: str) -> float | None:
    values = [value for stage in arm.stages if (value := stage.metrics.last(name)) is not None]
    return 100 * float(np.mean(values)) if values else None


def band_section(runs: Sequence[RunData]) -> Section:
    """Training inside the learnable band against training outside it."""
    figure = _curves(arms_of(runs), lambda stage: stage.metrics.series("eval/accuracy"))
    _label(figure, "Held-out accuracy after the same number of steps", "held-out accuracy (%)")
    rewards = _curves(arms_of(runs), lambda stage: stage.metrics.series("reward/mean"))
    _label(rewards, "Reward on the questions of the arm itself", "mean reward (%)")
    return Section(
        "Inside and outside the band",
        "Both arms start from the warm start and differ in their training questions alone: settings that calibration found "
        "learnable, or those that even the trained model never solved. Equal rewards in a group leave no advantage, and "
        "without an advantage the weights stay as they are.",
        [figure, rewards],
    )


def calibration_section(calibrations: Mapping[int, Calibration]) -> Section:
    """Pass rates by task and level, mean over seeds, and what the rule made of them."""
    cells = [cell for calibration in calibrations.values() for cell in calibration.cells]
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    levels = list(dict.fromkeys(cell.level for cell in cells))

    def rates(rate: Callable[[Cell], float]) -> np.ndarray:
        grid = np.full((len(tasks), len(levels)), np.nan)
        for i, task in enumerate(tasks):
            for j, level in enumerate(levels):
                found = [rate(cell) for cell in cells if (cell.task, cell.level) == (task, level)]
                grid[i, j] = 100 * np.mean(found) if found else np.nan
        return grid

    figures = [
        heatmap(tasks, levels, rates(rate), colour="pass rate (%)", title=title)
        for rate, title in (
            (lambda cell: cell.weak_rate, "Weak model: the warm start"),
            (lambda cell: cell.strong_rate, "Strong model: after reinforcement learning"),
        )
    ]
    rows = [
        [seed, cell.task, cell.level, 100 * cell.weak_rate, 100 * cell.strong_rate, calibration.kind(cell)]
        for seed, calibration in calibrations.items()
        for cell in calibration.cells
    ]
    columns = ["Seed", "Task", "Level", "Weak (%)", "Strong (%)", "Kind"]
    return Section(
        "Calibration",
        "A setting is learnable if the strong model solves it at least once in k tries and the weak one at most half of the "
        "time, but not never.",
        figures,
        Table(columns, rows, align="rllrrl"),
        "Empty cells: questions too long for the prompts of these runs.",
    )


def accepted_wrong(stage: StageData) -> Curve:
    """Share of responses that the official verifier accepts and the strict one does not, over the evaluations."""
    steps, official = stage.metrics.series("eval/score/official_reward")
    strict_steps, strict = stage.metrics.series("eval/accuracy")
    common, i, j = np.intersect1d(steps, strict_steps, return_indices=True)
    return common, official[i] - strict[j]


def hacking_sections(runs: Sequence[RunData]) -> list[Section]:
    """What each arm learns to do with the official verifier of mathador."""
    arms = [arm for arm in arms_of(runs) if "eval/score/official_reward" in arm.names()]
    if not arms:
        return []
    shown: tuple[tuple[str, Callable[[StageData], Curve]], ...] = (
        ("Accepted by the official verifier, but wrong", accepted_wrong),
        ("Accepted by the official verifier", lambda stage: stage.metrics.series("eval/score/official_reward")),
        ("Right (strict verifier)", lambda stage: stage.metrics.series("eval/accuracy")),
    )
    figures = []
    for title, curve in shown:
        figure = _curves(arms, curve)
        _label(figure, title, "share of held-out responses (%)")
        figures.append(figure)
    return [
        Section(
            "Reward hacking: official against strict",
            "The official verifier of mathador compares the target with itself: any expression with the right numbers passes. "
            "One arm is rewarded by it, the other by the strict verifier, which computes the expression. Both are judged by both.",
            figures,
        )
    ]


def _curves(arms: Sequence[Arm], curve: Callable[[StageData], Curve]) -> go.Figure:
    """Seeds thin, their mean bold, in per cent; with a legend of its own, since these arms are not those of the page."""
    figure = go.Figure()
    for arm in arms:
        curves = [(steps, 100 * values) for steps, values in map(curve, arm.stages) if len(steps)]
        for steps, values in curves if len(curves) > 1 else ():
            line = {"color": arm.colour, "width": 1}
            figure.add_scatter(
                x=steps, y=values, mode="lines", line=line, opacity=0.35, showlegend=False, hoverinfo="skip"
            )
        steps, values = mean_curve(curves)
        line = {"color": arm.colour, "width": 3}
        figure.add_scatter(x=steps, y=values, mode="lines+markers", line=line, name=arm.label)
    return figure


def _label(figure: go.Figure, title: str, y: str) -> None:
    figure.update_layout(title_text=title, height=320, showlegend=True)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text=y)
