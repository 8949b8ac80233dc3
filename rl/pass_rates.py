"""How often a model is right: counts of right answers by question, for calibration and for pass@k."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from framework.inference import Engine
from framework.sample import Sample
from models.tokenizer import LanguageTokenizer
from rl.rewards import RewardPool
from rl.rollout import respond
from rl.timing import Timer

__all__ = ["pass_counts"]


def pass_counts(
    engine: Engine,
    tokenizer: LanguageTokenizer,
    pool: RewardPool,
    questions: Mapping[str, Sequence[Sample]],
    *,
    samples: int,
    temperature: float = 1.0,
    key: jax.Array,
) -> dict[str, tuple[int, ...]]:
    """Of `samples` responses to each question, how many the pool rewards with more than 0: one tuple for each name.

    All names are answered in one go, so that the slots of the engine stay filled.
    """
    flat = [question for group in questions.values() for question in group]
    judged = respond(engine, tokenizer, pool, flat, samples=samples, temperature=temperature, key=key, timer=Timer())
    right = np.sum(judged.rewards.reshape(len(flat), samples) > 0, axis=1).tolist()
    counts, start = {}, 0
    for name, group in questions.items():
        counts[name] = tuple(right[start : start + len(group)])
        start += len(group)
    return counts
