"""A softmax policy over a few actions, where the entropy theory can be computed exactly (arXiv:2505.22617, section 3).

One state, logits z [A] in float64, p = softmax(z). Lemma 1: a change dz of the logits changes the entropy by
-Cov_p(log p, dz) to first order. A policy gradient step has dz = eta * p * A, a natural one dz = eta * A.
"""

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "centred_advantage",
    "entropy",
    "entropy_change",
    "first_order_change",
    "natural_gradient_step",
    "policy_gradient_step",
    "softmax",
]


def softmax(logits: ArrayLike) -> np.ndarray:
    """Action probabilities: [A] -> [A]."""
    z = np.asarray(logits, np.float64)
    if z.ndim != 1:
        raise ValueError(f"logits has shape {z.shape}; expected [A], the actions of one state.")
    p = np.exp(z - z.max())
    return p / p.sum()


def entropy(logits: ArrayLike) -> float:
    """Entropy in nats of the policy: [A] -> number."""
    p = softmax(logits)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1.0))))


def centred_advantage(logits: ArrayLike, rewards: ArrayLike) -> np.ndarray:
    """A = r - E_p[r]: logits [A], rewards [A] -> [A]."""
    rewards = np.asarray(rewards, np.float64)
    return rewards - softmax(logits) @ rewards


def policy_gradient_step(logits: ArrayLike, rewards: ArrayLike, *, lr: float) -> np.ndarray:
    """dz = lr * p * A, the exact gradient of the expected reward: [A] -> [A]."""
    return lr * softmax(logits) * centred_advantage(logits, rewards)


def natural_gradient_step(logits: ArrayLike, rewards: ArrayLike, *, lr: float) -> np.ndarray:
    """dz = lr * A: [A] -> [A]."""
    return lr * centred_advantage(logits, rewards)


def first_order_change(logits: ArrayLike, step: ArrayLike) -> float:
    """-Cov_p(log p, dz), the entropy change to first order in the step (lemma 1): logits [A], step [A] -> nats."""
    p, step = softmax(logits), np.asarray(step, np.float64)
    logp = np.log(np.where(p > 0, p, 1.0))
    return float(-(p @ (logp * step) - (p @ logp) * (p @ step)))


def entropy_change(logits: ArrayLike, step: ArrayLike) -> float:
    """H(z + dz) - H(z), exact: logits [A], step [A] -> nats."""
    return entropy(np.asarray(logits, np.float64) + np.asarray(step, np.float64)) - entropy(logits)
