"""Rewards for mixed data: every sample is judged by what belongs to its task. Imports no jax: reward workers load this file."""

import dataclasses
from collections.abc import Callable

from data.synlogic import VERIFIERS, extract_answer, has_format, verifier_reward
from framework.sample import Sample

__all__ = ["RewardByTask", "exact_answer", "format_reward"]

RewardFn = Callable[[Sample, str], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardByTask:
    """A reward function that asks the one named for `sample.task`: `reward=RewardByTask(rewards=(("math", exact_answer),))`."""

    rewards: tuple[tuple[str, RewardFn], ...]
    """(task, reward) pairs: the task is what the sample's `task` says, for a part of a `Mixed` stream the part's name."""
    otherwise: RewardFn | None = verifier_reward
    """Judges all other samples; None: a sample without a reward of its own is an error."""

    def __call__(self, sample: Sample, response: str) -> float:
        own = dict(self.rewards).get(sample.task, self.otherwise)
        if own is None or (own is verifier_reward and sample.task not in VERIFIERS):
            known = ", ".join(repr(task) for task, _ in self.rewards)
            raise ValueError(
                f"no reward judges samples of the task {sample.task!r}. Rewards are given for: {known or 'none'}. "
                f"Add ({sample.task!r}, your_function) to RewardByTask(rewards=...)."
            )
        return own(sample, response)


def exact_answer(sample: Sample, response: str) -> float:
    """1.0 iff the response is one think block, then one answer block whose text is the reference answer, white space aside."""
    if not has_format(response) or not sample.answer:
        return 0.0
    return float(extract_answer(response).split() == sample.answer.split())


def format_reward(sample: Sample, response: str) -> float:
    """1.0 iff the response has the format, whatever the answer (paper, section 3)."""
    del sample
    return float(has_format(response))
