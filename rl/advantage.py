"""Group-relative advantages: an answer is judged against the other answers to its prompt (GRPO, arXiv:2402.03300)."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["group_advantage"]


def group_advantage(
    rewards: ArrayLike,
    *,
    eps: float = 1e-6,
    ddof: int = 1,
    scale: bool = True,
    single: Literal["error", "reward"] = "error",
) -> Array:
    """A = (r - mean) / (std + eps) within each group: rewards [P, G] (prompts, answers) -> [P, G].

    ddof: 1 is the unbiased standard deviation of verl and DAPO, 0 the population form printed in GRPO papers.
    scale: False leaves the centred reward (Dr. GRPO, arXiv:2503.20783).
    single: what a group of one answer means. There is nothing to compare it with, so it is an error unless "reward",
        which gives A = r (mean 0 and std 1, as verl does).
    A group of equal rewards gives exactly 0. A NaN reward gives NaN for its whole group.
    """
    rewards = jnp.asarray(rewards)
    rewards = rewards.astype(jnp.promote_types(rewards.dtype, jnp.float32))
    if rewards.ndim != 2:
        raise ValueError(
            f"rewards has shape {rewards.shape}; expected [P, G] (prompts, answers each). Type rewards.reshape(-1, G)."
        )
    if ddof not in (0, 1):
        raise ValueError(
            f"ddof={ddof} is not a standard deviation used here. Type ddof=1 (verl, DAPO) or ddof=0 (population)."
        )
    if single not in ("error", "reward"):
        raise ValueError(f"single={single!r} is unknown. Type single='error' or single='reward'.")
    if rewards.shape[1] == 1:
        if single == "reward":
            return rewards
        raise ValueError(
            f"rewards has shape {rewards.shape}: a group of one answer has no baseline. Sample 2 or more answers per "
            "prompt, or type single='reward' to use the reward itself as the advantage."
        )
    centred = rewards - rewards.mean(axis=1, keepdims=True)  # [P, G]
    if scale:
        centred = centred / (rewards.std(axis=1, ddof=ddof, keepdims=True) + eps)
    # The float32 mean of equal rewards such as 0.1 can be off by one bit, and std + eps would blow that up.
    equal = rewards.max(axis=1, keepdims=True) == rewards.min(axis=1, keepdims=True)  # [P, 1]
    return jnp.where(equal, 0.0, centred)
