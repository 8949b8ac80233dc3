"""The scaling law that Quartet judges low-precision training by, its two fits, and what follows from it (arXiv:2505.14669).

    L(N, D) = (A / (N effN)^alpha + B / (D effD)^beta)^gamma + E

N: non-embedding parameters, D: training tokens, L: validation loss in nats per token. The law's own coefficients are fitted on
unquantised runs; then they stay, and a method is described by how much of its parameters (effN, the forward pass) and of its
tokens (effD, the backward pass) count. All numpy and scipy, on measured losses.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from experiments._quartet_grid import ALL_BF16, BF16, Grid

__all__ = [
    "FULL",
    "PUBLISHED",
    "SPEEDS",
    "Efficiency",
    "ScalingLaw",
    "Speed",
    "best_precision",
    "budget_loss",
    "data_ratio",
    "fit_efficiency",
    "fit_law",
    "huber",
    "parameter_saving",
    "published_fits",
]

DELTA = 1e-4
"""Residuals of log L above this count linearly: the paper's Huber threshold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Efficiency:
    """What is left of parameters and tokens under a method; 1 is full precision."""

    eff_n: float = 1.0
    """Of the parameters: quality of the forward pass, in (0, 1]."""
    eff_d: float = 1.0
    """Of the tokens: quality of the backward pass, in (0, 1]."""


FULL = Efficiency()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """Coefficients of the law. A, B and the exponents trade off against each other: compare laws by what they predict."""

    a: float
    """A, of the parameter term."""
    alpha: float
    b: float
    """B, of the data term."""
    beta: float
    e: float
    """E: loss that neither parameters nor data remove, nats per token."""
    gamma: float
    """Exponent of the sum of both terms; 1 gives the law of Chinchilla."""

    def loss(self, parameters: ArrayLike, tokens: ArrayLike, efficiency: Efficiency = FULL) -> np.ndarray:
        """Nats per token; `parameters` and `tokens` of any shapes that broadcast, all positive."""
        n = np.asarray(parameters, np.float64) * efficiency.eff_n
        d = np.asarray(tokens, np.float64) * efficiency.eff_d
        if not (np.all(n > 0) and np.all(d > 0)):
            raise ValueError("The law needs positive parameters, tokens and efficiencies. Leave out runs of size 0.")
        return (self.a * n**-self.alpha + self.b * d**-self.beta) ** self.gamma + self.e

    def residuals(self, grid: Grid, efficiency: Efficiency = FULL) -> np.ndarray:
        """[K] log of predicted over measured loss; 0.01 is one per cent."""
        return np.log(self.loss(grid.parameters, grid.tokens, efficiency)) - np.log(grid.loss)


PUBLISHED = ScalingLaw(a=1.52e5, alpha=0.589, b=5.25e5, beta=0.544, e=1.35, gamma=0.274)
"""The coefficients that the paper prints."""


def huber(residuals: ArrayLike, delta: float = DELTA) -> float:
    """Sum over all residuals of r^2 / 2 where |r| <= delta, delta (|r| - delta / 2) elsewhere: what both fits minimise."""
    size = np.abs(np.asarray(residuals, np.float64))
    return float(np.sum(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))))


_FAR = 100.0  # a residual of log loss that no law comes near

# (log A, alpha, log B, beta, log E, gamma): between the paper's coefficients and those of Chinchilla.
_STARTS = (
    (12.0, 0.5, 13.0, 0.5, 0.3, 0.3),
    (6.0, 0.35, 7.0, 0.35, 0.5, 1.0),
    (18.0, 1.0, 20.0, 1.0, 0.0, 0.2),
)


def fit_law(grid: Grid, *, beta: float | None = None, gamma: float | None = None, delta: float = DELTA) -> ScalingLaw:
    """Stage 1: all coefficients from the losses of unquantised runs; the best of several starts.

    On the published runs up to 800M parameters this gives the coefficients the paper prints, to the digits it prints. On those up
    to 200M alone it gives others, which describe these better and predict the two larger runs worse.

    A Huber loss with so small a threshold is nearly a sum of absolute values, on which one search gets stuck: every start is
    walked from least squares down to `delta`. A `beta` or `gamma` that is given is kept, for the simpler laws the paper compares.

    Raises:
        ValueError: fewer runs than coefficients.
    """
    free = [0, 1, 2, 4] + [3] * (beta is None) + [5] * (gamma is None)
    if len(grid) < len(free):
        raise ValueError(f"The law has {len(free)} unknowns, but the grid has {len(grid)} runs. Give at least as many.")

    def law(x: np.ndarray, start: Sequence[float]) -> ScalingLaw:
        full = np.array(start, np.float64)
        full[free] = x
        log_a, alpha, log_b, own_beta, log_e, own_gamma = full.tolist()
        return ScalingLaw(
            a=float(np.exp(log_a)),
            alpha=alpha,
            b=float(np.exp(log_b)),
            beta=own_beta if beta is None else beta,
            e=float(np.exp(log_e)),
            gamma=own_gamma if gamma is None else gamma,
        )

    found = []
    for start in _STARTS:
        x = _descend(lambda x, start=start: law(x, start).residuals(grid), np.array(start)[free], delta)
        found.append(law(x, start))
    return min(found, key=lambda law: huber(law.residuals(grid), delta))


@functools.cache
def published_fits() -> Mapping[str, ScalingLaw]:
    """The law fitted again on the published baseline: on "all" runs, and on those "to_200m"."""
    return {"all": fit_law(ALL_BF16), "to_200m": fit_law(BF16)}


def fit_efficiency(
    law: ScalingLaw, grid: Grid, *, eff_n: float | None = None, eff_d: float | None = None, delta: float = DELTA
) -> Efficiency:
    """Stage 2: efficiencies of a method from its runs, the law's coefficients frozen. One that is given is not fitted.

    Forward-only runs are fitted with eff_d=1, backward-only runs with eff_n=1, end-to-end runs with neither.

    Raises:
        ValueError: nothing to fit, or fewer runs than unknowns.
    """
    unknown = (eff_n is None) + (eff_d is None)
    if not unknown or len(grid) < unknown:
        raise ValueError(
            f"{unknown} efficiencies are to be fitted on {len(grid)} runs. Leave out eff_n or eff_d, and give a run for each."
        )

    def efficiency(x: np.ndarray) -> Efficiency:
        values = iter(np.exp(x).tolist())
        return Efficiency(
            eff_n=next(values) if eff_n is None else eff_n, eff_d=next(values) if eff_d is None else eff_d
        )

    return efficiency(_descend(lambda x: law.residuals(grid, efficiency(x)), np.full(unknown, np.log(0.8)), delta))


def _descend(residuals: Callable[[np.ndarray], np.ndarray], x: np.ndarray, delta: float) -> np.ndarray:
    """Minimise the Huber loss of residuals(x), x [P] -> [K], by Huber thresholds that fall from 1 to delta."""

    def bounded(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # a long step may leave the range of floats: a large residual turns it back
            return np.nan_to_num(residuals(x), nan=_FAR, posinf=_FAR, neginf=-_FAR)

    for threshold in (1.0, *(delta * factor for factor in (100, 30, 10, 3, 1))):
        x = optimize.least_squares(bounded, x, loss="huber", f_scale=threshold, x_scale="jac", max_nfev=2000).x
    # The last digits without derivatives: scaled up, because the simplex stops at absolute differences.
    scale = 1.0 / max(huber(bounded(x), delta), 1e-30)
    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-12, "adaptive": True}
    return optimize.minimize(lambda x: scale * huber(bounded(x), delta), x, method="Nelder-Mead", options=options).x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """How much faster than the baseline precision the products of a method are."""

    forward: float
    backward: float

    @property
    def training(self) -> float:
        """Of a step: harmonic mean, because times add up; the backward pass has two products to the forward's one."""
        return 1.0 / ((1 / 3) / self.forward + (2 / 3) / self.backward)


SPEEDS: Mapping[str, Speed] = {
    "FP8:FP8": Speed(forward=1.0, backward=1.0),
    "FP4:FP8": Speed(forward=2.0, backward=1.0),
    "FP8:FP4": Speed(forward=1.0, backward=2.0),
    "FP4:FP4": Speed(forward=2.0, backward=2.0),
}
"""forward:backward precision -> speed against FP8 in both, as the paper's model has it."""


def budget_loss(
    law: ScalingLaw, speed: Speed, efficiency: Efficiency, *, parameters: ArrayLike, tokens: ArrayLike
) -> np.ndarray:
    """Loss of a method within the inference and training time of a baseline run of so many parameters and tokens.

    A forward pass that is `speed.forward` as fast allows that many more parameters; of the training time that is then left over,
    `speed.training / speed.forward` more tokens.
    """
    n, d = np.asarray(parameters, np.float64), np.asarray(tokens, np.float64)
    return law.loss(n * speed.forward, d * speed.training / speed.forward, efficiency)


def best_precision(
    law: ScalingLaw, methods: Mapping[str, tuple[Speed, Efficiency]], *, parameters: float, tokens: float
) -> str:
    """The method with the lowest loss within the budget of a baseline run."""
    if not methods:
        raise ValueError("There is no method to choose from. Give at least one: {name: (speed, efficiency)}.")

    def loss(name: str) -> float:
        speed, efficiency = methods[name]
        return float(budget_loss(law, speed, efficiency, parameters=parameters, tokens=tokens))

    return min(methods, key=loss)


def parameter_saving(method: Efficiency, other: Efficiency) -> float:
    """Share of the parameters that `method` saves against `other` at the same loss, data term left alone."""
    return 1.0 - other.eff_n / method.eff_n


def data_ratio(method: Efficiency, other: Efficiency) -> float:
    """How many times the tokens of `method` the `other` needs for the same loss, parameter term left alone."""
    return method.eff_d / other.eff_d
