"""What the entropy paper adds to a report: entropy change against covariance, and the law R = -a exp(H) + b with its forecast."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from framework.report import Arm, RunData, Section, StageData, Table, arms_of
from rl.entropy_law import EntropyLaw, Forecast, fit_entropy_law, forecast, pearson_r

__all__ = ["LawFit", "correlations", "fit_law", "sections"]

COVARIANCES = {"policy/cov_mean": "token covariance", "policy/cov_group": "group covariance"}
_FIT_SHARE = 1 / 3  # of the evaluations, for the early fit; the paper uses 15 % of more than 200


@dataclasses.dataclass(frozen=True)
class LawFit:
    """The law on all evaluations of a run, and an early fit judged on the rest (None where entropy did not move)."""

    entropy: np.ndarray  # [N] nats per token
    accuracy: np.ndarray  # [N] fraction
    law: EntropyLaw | None
    forecast: Forecast | None


def _paired(stage: StageData, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of two metrics at the steps that have both."""
    (x_steps, x_values), (y_steps, y_values) = stage.metrics.series(x), stage.metrics.series(y)
    _, i, j = np.intersect1d(x_steps, y_steps, return_indices=True)
    return x_values[i], y_values[j]


def correlations(stage: StageData) -> dict[str, float]:
    """Pearson r between each covariance and minus the entropy change of the same step (same tokens before and after)."""
    result = {}
    for name in COVARIANCES:
        covariance, change = _paired(stage, name, "policy/entropy_change")
        result[name] = pearson_r(covariance, -change) if len(covariance) else float("nan")
    return result


def fit_law(stage: StageData) -> LawFit:
    """Fit held-out accuracy against held-out entropy over the evaluations of a run."""
    entropy, accuracy = _paired(stage, "eval/entropy", "eval/accuracy")
    if len(np.unique(entropy)) < 2:
        return LawFit(entropy, accuracy, None, None)
    early = max(2, round(len(entropy) * _FIT_SHARE))
    enough = early < len(entropy) and len(np.unique(entropy[:early])) > 1
    return LawFit(
        entropy,
        accuracy,
        fit_entropy_law(entropy, accuracy),
        forecast(entropy, accuracy, early) if enough else None,
    )


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Two sections: covariance and entropy change; the law."""
    arms = [arm for arm in arms_of(runs) if any(len(s.metrics.series("policy/entropy_change")[0]) for s in arm.stages)]
    if not arms:
        return []
    return [_covariance_section(arms), _law_section(arms)]


def _covariance_section(arms: Sequence[Arm]) -> Section:
    figures, rows = [], []
    for name, label in COVARIANCES.items():
        figure = go.Figure()
        for arm in arms:
            pairs = [_paired(stage, name, "policy/entropy_change") for stage in arm.stages]
            x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
            marker = {"color": arm.colour, "size": 7, "opacity": 0.7}
            figure.add_trace(go.Scatter(x=x, y=-y, mode="markers", name=arm.label, marker=marker))
        figure.update_layout(title_text=f"Entropy lost in a step against its {label}", showlegend=False, height=340)
        figure.update_xaxes(title_text=f"{label} (nats x advantage)")
        figure.update_yaxes(title_text="entropy lost in the step (nats/token)")
        figures.append(figure)
    for arm in arms:
        for stage in arm.stages:
            found = correlations(stage)
            _, change = stage.metrics.series("policy/entropy_change")
            positive = float(100 * np.mean(stage.metrics.series("policy/cov_mean")[1] > 0))
            rows.append([arm.label, stage.run, *(found[name] for name in COVARIANCES), positive, float(change.sum())])
    return Section(
        "Entropy change against covariance",
        "To first order a softmax policy loses entropy in step with the covariance of log-probability and advantage. Each point "
        "is one step; entropy is measured before and after the updates of the step, on the tokens of its first update.",
        figures,
        Table(
            [
                "Arm",
                "Run",
                "Pearson r, token covariance",
                "Pearson r, group covariance",
                "Steps with token covariance > 0 (%)",
                "Entropy change, sum (nats/token)",
            ],
            rows,
            align="llrrrr",
        ),
        "The relation is exact for a tabular policy and one small gradient step, which a unit test shows. Here all tokens share "
        "one network, and all arms but the on-policy one take several Adam steps on a rollout.",
    )


def _law_section(arms: Sequence[Arm]) -> Section:
    figure, rows = go.Figure(), []
    for arm in arms:
        for stage in arm.stages:
            fit = fit_law(stage)
            marker = {"color": arm.colour, "size": 8}
            points = go.Scatter(x=fit.entropy, y=100 * fit.accuracy, mode="markers", name=arm.label, marker=marker)
            figure.add_trace(points)
            if fit.law is None:
                continue
            grid = np.linspace(fit.entropy.min(), fit.entropy.max(), 60)
            line = {"color": arm.colour, "width": 2}
            curve = 100 * fit.law.predict(grid)
            figure.add_trace(go.Scatter(x=grid, y=curve, mode="lines", line=line, hoverinfo="skip", showlegend=False))
            ahead = fit.forecast
            rows.append(
                [
                    arm.label,
                    stage.run,
                    fit.law.a,
                    fit.law.b,
                    fit.law.r2,
                    100 * fit.law.ceiling,
                    None if ahead is None else 100 * ahead.rmse,
                    None if ahead is None else 100 * ahead.naive_rmse,
                ]
            )
    figure.update_layout(title_text="Held-out accuracy against held-out entropy, with the fitted law", showlegend=False)
    figure.update_xaxes(title_text="policy entropy on held-out questions (nats/token)")
    figure.update_yaxes(title_text="held-out accuracy (%)")
    columns = [
        "Arm",
        "Run",
        "a",
        "b",
        "R²",
        "Ceiling at H = 0 (%)",
        "Forecast RMSE (points)",
        "Last-value RMSE (points)",
    ]
    return Section(
        "The law R = -a exp(H) + b",
        "Fitted by least squares on every evaluation of a run. The forecast is fitted on the first third of the evaluations and "
        "predicts the others from their entropies; beside it the error of assuming that the last fitted accuracy stays.",
        [figure],
        Table(columns, rows, align="llrrrrrr"),
    )
