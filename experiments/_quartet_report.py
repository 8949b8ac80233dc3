"""What Quartet adds to a report: what four bits cost step by step, the law on published and own losses, and the quantisers."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from experiments._quartet_grid import (
    ALL_BF16,
    BF16,
    EXTRAPOLATION,
    PARAMETERS,
    PUBLISHED_QUANTISERS,
    QUEST_FORWARD,
    RTN_BACKWARD,
    SR_BACKWARD,
    Grid,
)
from experiments._quartet_law import (
    PUBLISHED,
    Efficiency,
    ScalingLaw,
    fit_efficiency,
    fit_law,
    huber,
    published_fits,
)
from experiments._quartet_quantisers import measure_gradients, measure_quantisers
from framework.report import RunData, Section, StageData, Table, arms_of, line_figure
from framework.report_arms import COLOURS, mean_curve
from models.decoder import DecoderConfig

__all__ = ["GridFit", "fit_grid", "gap", "grid_points", "grid_section", "law_section", "quantiser_section", "sections"]

_OWN_SIZE = re.compile(r"(.+?)_(?:w\d+_s\d+|\d+M_r\d+)")  # how arms of a grid are named
# Rows of table 2 by the name of the quantiser that is closest to them.
_TABLE_2 = {"quest_nearest": "QuEST", "absmax_rtn": "RTN absmax", "absmax_sr": "SR absmax"}
Curve = tuple[np.ndarray, np.ndarray]


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Losses and gaps of arms of one size, or the law of a grid; then the published losses and the quantisers."""
    stages = [stage for run in runs for stage in run.stages]
    evaluated = [stage for stage in stages if len(stage.metrics.series("eval/loss")[0])]
    if not evaluated:
        return []
    if any(_OWN_SIZE.fullmatch(stage.name) for stage in evaluated):
        own = [section for run in runs if (section := grid_section(run))]
    else:
        own = [_loss_section(runs)]
    return [*own, law_section(), quantiser_section()]


def gap(stage: StageData, baseline: StageData) -> Curve:
    """Held-out loss of an arm above the baseline's at the steps that both were evaluated at, nats per token."""
    (steps, loss), (others, exact) = stage.metrics.series("eval/loss"), baseline.metrics.series("eval/loss")
    common, i, j = np.intersect1d(steps, others, return_indices=True)
    return common, loss[i] - exact[j]


def _baseline(run: RunData) -> StageData:
    """The stage of the config's first arm; the first stage there is if that has not begun."""
    arms = _config(run).get("arms") or [{}]
    return next((stage for stage in run.stages if stage.name == arms[0].get("name")), run.stages[0])


def _config(run: RunData) -> Mapping[str, Any]:
    """The experiment's fields, below what config.json says about their source."""
    return run.config.get("config", run.config)


def _loss_section(runs: Sequence[RunData]) -> Section:
    """Arms of one size: the first of each run is what the others are measured against."""
    arms = arms_of(runs)
    baseline = {id(stage): _baseline(run) for run in runs for stage in run.stages}
    figures = [line_figure(arms, "eval/loss", y="held-out loss (nats/token)", title="Held-out loss")]
    figure, rows = go.Figure(), []
    for arm in arms:
        curves = [gap(stage, baseline[id(stage)]) for stage in arm.stages]
        ends = [float(values[-1]) for _, values in curves if len(values)]
        finals = [last for stage in arm.stages if (last := stage.metrics.last("eval/loss")) is not None]
        spread = float(np.std(ends, ddof=1)) if len(ends) > 1 else None
        rows.append(
            [
                arm.label,
                float(np.mean(finals)) if finals else None,
                float(np.mean(ends)) if ends else None,
                spread,
                len(arm.stages),
            ]
        )
        if all(stage is baseline[id(stage)] for stage in arm.stages):
            continue
        for steps, values in curves if len(curves) > 1 else ():
            thin = {"color": arm.colour, "width": 1}
            figure.add_scatter(
                x=steps, y=values, mode="lines", line=thin, opacity=0.35, showlegend=False, hoverinfo="skip"
            )
        steps, values = mean_curve(curves)
        line = {"color": arm.colour, "width": 2.4, "dash": arm.dash}
        figure.add_scatter(x=steps, y=values, mode="lines+markers", line=line, name=arm.label)
    figure.add_hline(y=0.0, line={"color": "#6b7482", "width": 1.2, "dash": "dot"})
    figure.update_layout(title_text=f"Above {_baseline(runs[0]).name} at the same step", height=320, showlegend=False)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="gap (nats/token)")
    figures.append(figure)
    return Section(
        "What four bits cost",
        "All arms begin with the same weights and read the same text in the same order; each is evaluated as it is trained, with "
        "the same quantisers. Gaps are taken seed by seed at the same step.",
        figures,
        Table(["Arm", "Final loss", "Final gap", "Deviation over seeds", "Seeds"], rows),
    )


def grid_points(run: RunData) -> dict[str, Grid]:
    """Final losses of a grid by the rule in the names of its arms; arms that have no evaluation yet are left out.

    N is counted without embeddings, D in tokens read.
    """
    config = _config(run)
    found: dict[str, list[tuple[float, float, float]]] = {}
    by_name = {stage.name: stage for stage in run.stages}
    for arm in config["arms"]:
        named, stage = _OWN_SIZE.fullmatch(arm["name"]), by_name.get(arm["name"])
        loss = stage.metrics.last("eval/loss") if stage else None
        if named and loss is not None and stage is not None and stage.done:
            model = arm["model"] or config["model"]
            steps = arm["steps"] or config["steps"]
            point = (_non_embedding(model), steps * config["rows"] * config["length"], loss)
            found.setdefault(named[1], []).append(point)
    return {
        rule: Grid(parameters=array[:, 0], tokens=array[:, 1], loss=array[:, 2])
        for rule, points in found.items()
        for array in [np.array(points, np.float64)]
    }


def _non_embedding(model: Mapping[str, Any]) -> int:
    config = DecoderConfig(**{name: value for name, value in model.items() if name != "__type__"})
    return config.parameter_count() - config.vocab_size * config.dim * (1 if config.tied else 2)


@dataclasses.dataclass(frozen=True)
class GridFit:
    """The law of a grid of one's own, fitted on its baseline, and the efficiencies of the other rules under it."""

    law: ScalingLaw
    error: float
    """Largest |log residual| of the baseline."""
    runs: int
    """Of the baseline."""
    efficiencies: Mapping[str, Efficiency]


def fit_grid(points: Mapping[str, Grid], baseline: str = "exact") -> GridFit | None:
    """None as long as there are fewer baseline runs than coefficients."""
    grid = points.get(baseline)
    if grid is None or len(grid) < 7:
        return None
    law = fit_law(grid)
    others = {rule: fit_efficiency(law, own) for rule, own in points.items() if rule != baseline and len(own) > 2}
    return GridFit(law, float(np.abs(law.residuals(grid)).max()), len(grid), others)


def grid_section(run: RunData) -> Section | None:
    """Own losses over model size and length, with the law fitted on the unquantised ones."""
    points = grid_points(run)
    if not points:
        return None
    fit = fit_grid(points)
    figure = _grid_figure(points, fit.law if fit else None, fit.efficiencies if fit else {})
    figure.update_layout(title_text="Held-out loss over training tokens, one colour a model size")
    rows = []
    for rule, grid in points.items():
        exact = points.get("exact")
        paired = None if exact is None or len(exact) != len(grid) else grid.loss - exact.loss
        rise = None if paired is None else float(np.mean(paired))
        own = fit.efficiencies.get(rule) if fit else None
        rows.append([rule, len(grid), rise, own.eff_n if own else None, own.eff_d if own else None])
    note = "Not enough finished runs to fit the law."
    if fit:
        note = (
            f"Fitted on {fit.runs} runs for six coefficients; largest residual {100 * fit.error:.2f} %. So small a grid hardly "
            "tells a lost parameter from a lost token: read the pair of efficiencies together."
        )
    return Section(
        "The law at home",
        "The same law on models of this machine: fitted on the unquantised runs, then effN and effD of the others with the law "
        "frozen.",
        [figure],
        Table(["Rule", "Runs", "Mean gap (nats/token)", "effN", "effD"], rows),
        note,
    )


def law_section() -> Section:
    """The law on the losses that the authors published, and what their method is worth under it."""
    quest = fit_efficiency(PUBLISHED, QUEST_FORWARD, eff_d=1.0)
    sr = fit_efficiency(PUBLISHED, SR_BACKWARD, eff_n=1.0)
    rtn = fit_efficiency(PUBLISHED, RTN_BACKWARD, eff_n=1.0)
    figure = _grid_figure(
        {"BF16": ALL_BF16, "QuEST forward": QUEST_FORWARD}, PUBLISHED, {"QuEST forward": quest}, baseline="BF16"
    )
    figure.update_layout(title_text="Published C4 losses, and the law with the printed coefficients")
    paper = PUBLISHED_QUANTISERS
    rows = [
        ["QuEST forward: effN", quest.eff_n, paper["QuEST"].eff_n],
        ["Stochastic backward: effD", sr.eff_d, paper["SR absmax"].eff_d],
        ["Nearest backward: effD", rtn.eff_d, paper["RTN absmax"].eff_d],
    ]
    fits = published_fits()
    for name, grid, law in (("all", ALL_BF16, fits["all"]), ("up to 200M", BF16, fits["to_200m"])):
        ahead = 100 * float(np.abs(law.residuals(EXTRAPOLATION)).max())
        rows.append([f"Refitted on {name}: Huber loss (1e-6)", 1e6 * huber(law.residuals(grid)), None])
        rows.append([f"Refitted on {name}: E", law.e, PUBLISHED.e])
        rows.append([f"Refitted on {name}: error at 430M and 800M (%)", ahead, None])
    return Section(
        "The law on the published losses",
        "effN and effD are fitted with the printed coefficients. Fitted again on all 23 baseline runs, the coefficients come out "
        "as printed; fitted on the 21 runs up to 200M they differ, and 430M and 800M are a forecast.",
        [figure],
        Table(["What", "Here", "Paper"], rows),
    )


def _grid_figure(
    points: Mapping[str, Grid],
    law: ScalingLaw | None,
    efficiencies: Mapping[str, Efficiency],
    *,
    baseline: str = "exact",
) -> go.Figure:
    """Points of every rule, one symbol a rule and one colour a size, on the curves of the law."""
    figure = go.Figure()
    nominal = {count: name for name, count in PARAMETERS.items()}
    sizes = sorted({size for grid in points.values() for size in grid.parameters.tolist()})
    for (rule, grid), symbol, dash in zip(
        points.items(), ("circle", "square", "diamond"), ("solid", "dash", "dot"), strict=False
    ):
        for size, colour in zip(sizes, COLOURS, strict=False):
            own = grid.of_size(size)
            if not len(own):
                continue
            name = f"{rule}, {nominal.get(int(size), f'{size:,.0f}')}"
            marker = {"color": colour, "symbol": symbol, "size": 8}
            figure.add_scatter(x=own.tokens, y=own.loss, mode="markers", marker=marker, name=name)
            efficiency = Efficiency() if rule == baseline else efficiencies.get(rule)
            if law is None or efficiency is None:
                continue
            tokens = np.geomspace(own.tokens.min() / 1.2, own.tokens.max() * 1.2, 40)
            line = {"color": colour, "width": 1.5, "dash": dash}
            curve = law.loss(size, tokens, efficiency)
            figure.add_scatter(x=tokens, y=curve, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    figure.update_layout(height=440, showlegend=True)
    figure.update_xaxes(title_text="training tokens", type="log")
    figure.update_yaxes(title_text="loss (nats/token)")
    return figure


def quantiser_section(seed: int = 0) -> Section:
    """The paper's table 2, measured, and what each way to quantise a backward pass does to a gradient."""
    errors, gradients = measure_quantisers(seed), measure_gradients(seed)
    rows = []
    for name, error in errors.items():
        paper = PUBLISHED_QUANTISERS.get(_TABLE_2.get(name, ""))
        printed = [paper.mse, paper.misalignment] if paper else [None, None]
        rows.append([name, error.mse, error.mse_octave, printed[0], error.misalignment, printed[1]])
    bars = go.Figure()
    names = list(gradients)
    bars.add_bar(x=names, y=[gradients[name].bias for name in names], marker={"color": COLOURS[0]})
    bars.update_layout(title_text="Error of the mean gradient over 200 draws", height=320, showlegend=False)
    bars.update_yaxes(title_text="relative error")
    cosines = ", ".join(f"{name} {found.cosine:.3f}" for name, found in gradients.items())
    return Section(
        "The quantisers",
        "Squared error and misalignment on normally distributed numbers, and the mean gradient of one layer with outliers in a "
        "feature and in a token.",
        [bars],
        Table(["Quantiser", "MSE", "MSE, mean of an octave", "Paper", "Misalignment", "Paper (misalignment)"], rows),
        f"Cosine of a single draw with the exact gradient: {cosines}. QuEST's scale is a power of two: rounded down, as the "
        "released kernel has it, or to nearest, which is what the printed figures fit.",
    )
