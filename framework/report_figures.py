"""Plots in the look of the report. Experiments may use them for their own sections.

Section("Covariance", figures=[metric_figure(runs, "policy/cov_mean", y="covariance (nats)", log=True)])
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from framework.report_arms import Arm, arms_of, mean_curve, smooth
from framework.rundata import RunData

__all__ = ["PHASE_COLOURS", "TEMPLATE", "heatmap", "line_figure", "metric_figure", "stacked_bars"]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
# Paul Tol's light scheme: for phases, tasks, anything that is not an arm.
PHASE_COLOURS = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#DDDDDD")

_AXIS = {
    "gridcolor": "#edf0f4",
    "linecolor": "#aeb6c2",
    "showline": True,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#aeb6c2",
    "ticklen": 4,
    "automargin": True,
    "title": {"font": {"size": 13, "color": "#3d4654"}, "standoff": 8},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 12, "color": "#3d4654"},
        "colorway": list(PHASE_COLOURS),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 18, "t": 12, "b": 48},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12, "family": _FONT}, "namelength": 40},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        "colorscale": {"sequential": "Cividis"},
    }
)


def metric_figure(
    runs: Sequence[RunData],
    name: str,
    *,
    y: str,
    title: str = "",
    scale: float = 1.0,
    log: bool = False,
    seeds: bool | None = None,
) -> go.Figure:
    """One metric over the steps, all arms in their colours. `scale` converts the unit (100 for per cent)."""
    return line_figure(arms_of(runs, seeds=seeds), name, y=y, title=title, scale=scale, log=log)


def line_figure(
    arms: Sequence[Arm],
    name: str,
    *,
    y: str,
    x: str = "step",
    title: str = "",
    scale: float = 1.0,
    log: bool = False,
    markers: bool | None = None,
    unit: str = "",
    height: int = 320,
) -> go.Figure:
    """Raw values faint, their running mean bold; metrics that are measured now and then (`markers`) unsmoothed, with markers.

    Several seeds of an arm: each a thin line, their mean bold. The page has one legend for all plots, so none is drawn here.
    """
    figure = go.Figure()
    everything = _values(arms, name) * scale
    floor = _log_floor(everything) if log else -np.inf
    for arm in arms:
        curves = [stage.metrics.series(name) for stage in arm.stages]
        curves = [(steps, np.maximum(values * scale, floor)) for steps, values in curves if len(steps)]
        if not curves:
            continue
        sparse = name.startswith("eval/") if markers is None else markers
        _add_arm(figure, arm, curves, log=log, markers=sparse, unit=unit)
    figure.update_layout(template=TEMPLATE, height=height, showlegend=False, title_text=title or None)
    last = max((stage.metrics.steps for arm in arms for stage in arm.stages), default=0.0)
    figure.update_xaxes(title_text=x, range=[-0.02 * last, 1.02 * last] if last > 0 else None)
    figure.update_yaxes(title_text=y)
    if log:
        figure.update_yaxes(type="log", exponentformat="power", dtick=_log_tick(np.maximum(everything, floor)))
    elif len(everything) and np.ptp(everything) <= 1e-9 * max(1.0, float(np.abs(everything).max())):
        # All values equal: plotly would zoom into rounding noise.
        figure.update_yaxes(rangemode="tozero")
    return figure


def _add_arm(
    figure: go.Figure, arm: Arm, curves: list[tuple[np.ndarray, np.ndarray]], *, log: bool, markers: bool, unit: str
) -> None:
    steps, values = mean_curve(curves)
    if not len(steps):  # seeds without a common step: nothing to average
        steps, values = curves[0]
    bold, width = (values, 1) if markers else smooth(values, log=log)
    name = html.escape(arm.label, quote=False)
    common = {"legendgroup": arm.key, "name": name}
    faint = {**common, "mode": "lines", "showlegend": False, "hoverinfo": "skip"}
    for seed_steps, seed_values in curves:
        if len(curves) > 1 or width > 1:
            line = {"color": arm.colour, "width": 1}
            figure.add_scatter(x=seed_steps, y=seed_values, line=line, opacity=0.35, **faint)
    dots = markers or len(steps) == 1
    figure.add_scatter(
        x=steps,
        y=bold,
        customdata=values,
        mode="lines+markers" if dots else "lines",
        line={"color": arm.colour, "width": 2.4, "dash": arm.dash},
        marker={"symbol": arm.symbol, "size": 7 if len(steps) > 1 else 10, "color": arm.colour},
        hovertemplate=f"%{{customdata:.4g}}{unit}<extra>{name}</extra>",
        meta={"smoothed_over": width, "seeds": len(curves)},
        **common,
    )


def stacked_bars(
    rows: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    *,
    x: str,
    title: str = "",
    unit: str = "",
    colours: Sequence[str] = PHASE_COLOURS,
) -> go.Figure:
    """One horizontal bar a row, split into parts; the first row is on top."""
    figure = go.Figure()
    names = [html.escape(row, quote=False) for row in rows]
    for i, (part, values) in enumerate(parts.items()):
        figure.add_bar(
            y=names,
            x=list(values),
            name=html.escape(part, quote=False),
            orientation="h",
            marker={"color": colours[i % len(colours)], "line": {"color": "white", "width": 1}},
            hovertemplate=f"%{{x:.3g}}{unit}",
        )
    figure.update_layout(
        template=TEMPLATE,
        barmode="stack",
        hovermode="y unified",
        height=130 + 38 * max(len(names), 2),
        bargap=0.35,
        legend={"traceorder": "normal"},
        margin={"t": 44},
        title_text=title or None,
    )
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure


def heatmap(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, *, colour: str, title: str = "", fmt: str = ".0f"
) -> go.Figure:
    """A table of numbers [rows, columns] as colours, each number printed; NaN stays white."""
    values = np.asarray(values, dtype=np.float64)
    text = [["" if np.isnan(v) else format(v, fmt) for v in row] for row in values]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[html.escape(c, quote=False) for c in columns],
            y=[html.escape(r, quote=False) for r in rows],
            text=text,
            texttemplate="%{text}",
            colorscale="Cividis",
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": colour, "side": "right"}, "thickness": 12, "outlinewidth": 0},
            hovertemplate="%{y}, %{x}: %{z:.4g}<extra></extra>",
        )
    )
    figure.update_layout(template=TEMPLATE, height=90 + 24 * len(rows), hovermode="closest", title_text=title or None)
    figure.update_xaxes(showgrid=False, side="top", ticks="")
    figure.update_yaxes(showgrid=False, autorange="reversed", ticks="")
    return figure


def _values(arms: Sequence[Arm], name: str) -> np.ndarray:
    return np.concatenate([np.empty(0), *(stage.metrics.series(name)[1] for arm in arms for stage in arm.stages)])


def _log_floor(values: np.ndarray) -> float:
    """Where a log axis draws what it cannot draw: just below the smallest positive value."""
    positive = values[values > 0]
    return float(positive.min()) / 3 if len(positive) else 1e-9


def _log_tick(values: np.ndarray) -> int | None:
    """Whole decades when there are enough of them; plotly's own choice within one or two."""
    decades = float(np.ptp(np.log10(values))) if len(values) else 0.0
    return int(np.ceil(decades / 6)) if decades >= 2 else None
