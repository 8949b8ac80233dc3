"""The law R = -a exp(H) + b between policy entropy and score, its fit and its forecast (arXiv:2505.22617, eq. 6).

H is in nats per token; R may be a fraction or a percentage, but the same throughout. All numpy, on measured curves.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["EntropyLaw", "Forecast", "fit_entropy_law", "forecast", "pearson_r"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyLaw:
    """R = -a exp(H) + b. a < 0 is legal and means that the score falls while entropy falls: say so when you report it."""

    a: float
    b: float
    r2: float  # share of the variance of R explained by the fit; nan if R is constant

    @property
    def ceiling(self) -> float:
        """The score at zero entropy, b - a: what is left when the policy has become deterministic."""
        return self.b - self.a

    def predict(self, entropy: ArrayLike) -> np.ndarray:
        """Score at the given entropies, any shape -> same shape."""
        return -self.a * np.exp(np.asarray(entropy, np.float64)) + self.b

    def __str__(self) -> str:
        note = " (a < 0: the score falls as entropy falls)" if self.a < 0 else ""
        return f"R = {-self.a:.4g} exp(H) {self.b:+.4g}, R^2 {self.r2:.3f}, ceiling {self.ceiling:.4g}{note}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """A fit on the first points of a run, judged on the rest. It predicts R given the later entropies, not from time."""

    law: EntropyLaw
    predicted: np.ndarray  # [n - n_fit], scores at the later entropies
    rmse: float  # of the predicted points, in units of R
    last_error: float  # absolute error at the last point
    naive_rmse: float  # of the forecast that the last fitted score stays as it is


def fit_entropy_law(entropy: ArrayLike, score: ArrayLike) -> EntropyLaw:
    """Ordinary least squares of R on [-exp(H), 1]: entropy [N] in nats, score [N] -> law."""
    h, r = _curve(entropy, score)
    if len(np.unique(h)) < 2:
        raise ValueError(
            f"The law has two unknowns, but there are only {len(np.unique(h))} distinct entropies in {len(h)} points. "
            "Give evaluations at two or more different entropies."
        )
    design = np.stack([-np.exp(h), np.ones_like(h)], axis=1)  # [N, 2]
    (a, b), *_ = np.linalg.lstsq(design, r, rcond=None)
    residual, spread = np.sum((r - design @ [a, b]) ** 2), np.sum((r - r.mean()) ** 2)
    return EntropyLaw(a=float(a), b=float(b), r2=float(1 - residual / spread) if spread > 0 else float("nan"))


def forecast(entropy: ArrayLike, score: ArrayLike, n_fit: int) -> Forecast:
    """Fits the first n_fit points and predicts the others from their entropies: entropy [N], score [N] (section 2.4)."""
    h, r = _curve(entropy, score)
    if not 2 <= n_fit < len(h):
        raise ValueError(
            f"n_fit={n_fit} of {len(h)} points leaves too little to fit or to predict. Type 2 <= n_fit <= {len(h) - 1}."
        )
    law = fit_entropy_law(h[:n_fit], r[:n_fit])
    predicted = law.predict(h[n_fit:])
    error = predicted - r[n_fit:]
    return Forecast(
        law=law,
        predicted=predicted,
        rmse=float(np.sqrt(np.mean(error**2))),
        last_error=float(abs(error[-1])),
        naive_rmse=float(np.sqrt(np.mean((r[n_fit - 1] - r[n_fit:]) ** 2))),
    )


def pearson_r(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson correlation of x [N] and y [N]. Pairs with a NaN are left out; nan if what is left is constant or below 2."""
    u, v = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if u.shape != v.shape or u.ndim != 1:
        raise ValueError(f"x has shape {u.shape} and y has shape {v.shape}; expected two [N] arrays of one length.")
    keep = np.isfinite(u) & np.isfinite(v)
    u, v = u[keep], v[keep]
    if len(u) < 2 or np.ptp(u) == 0 or np.ptp(v) == 0:
        return float("nan")
    u, v = u - u.mean(), v - v.mean()
    return float(u @ v / np.sqrt((u @ u) * (v @ v)))


def _curve(entropy: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    h, r = np.asarray(entropy, np.float64), np.asarray(score, np.float64)
    if h.shape != r.shape or h.ndim != 1:
        raise ValueError(
            f"entropy has shape {h.shape} and score has shape {r.shape}; expected two [N] arrays of one length."
        )
    if not (np.isfinite(h).all() and np.isfinite(r).all()):
        raise ValueError("entropy or score holds NaN or infinity. Leave out the points at which nothing was measured.")
    return h, r
