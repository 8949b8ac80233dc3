"""The parts of a reinforcement-learning experiment, as frozen dataclasses."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from framework.optimizer import AdamW, Optimizer
from framework.sample import Sample, Stream
from rl.losses import PolicyLoss

__all__ = [
    "Arm",
    "BoundedQuestions",
    "Evaluation",
    "LossConfig",
    "QuestionSource",
    "Questions",
    "RewardFn",
    "Rollout",
    "Stream",
    "WarmStart",
]

RewardFn = Callable[[Sample, str], float]
"""A plain function of a sample and the whole response text."""


class Questions(Protocol):
    """Where prompts come from: fresh training questions, demonstrations, and questions no training batch contains."""

    def train(self, *, seed: int, batch: int) -> Stream[Sequence[Sample]]: ...
    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[Sequence[tuple[Sample, str]]]: ...
    def heldout(self, *, count: int, seed: int) -> Sequence[Sample]: ...


@runtime_checkable
class BoundedQuestions(Protocol):
    """Questions that are all there from the start, so that their lengths can be checked before anything runs."""

    def check_lengths(
        self, encode: Callable[[str], Sequence[int]], *, max_prompt: int, max_new_tokens: int
    ) -> None: ...


class QuestionSource(Protocol):
    """A config that makes `Questions`."""

    def build(self) -> Questions: ...


class LossConfig(Protocol):
    """A frozen dataclass of numbers that makes a policy loss."""

    def build(self) -> PolicyLoss: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """How responses are sampled and how often the policy is updated on them."""

    prompts: int = 16
    """Questions a step."""
    samples: int = 8
    """Responses to each question (the group of GRPO)."""
    temperature: float = 1.0
    """Sampling temperature; the loss uses log-probabilities at the same temperature."""
    max_prompt: int = 48
    """Longest prompt, tokens."""
    max_new_tokens: int = 48
    """Longest response, tokens."""
    rows: int | None = None
    """Responses decoded at once, to save memory; None: all of a step."""
    updates: int = 4
    """Optimizer steps on each rollout, over equal shares of its questions."""
    microbatches: int = 1
    """Parts each update is computed in, to save memory; the result is the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out questions, answered `samples` times at `temperature`, and once greedily."""

    questions: int = 64
    """Number of held-out questions, the same at every evaluation."""
    samples: int = 8
    """Responses to each question; accuracy is the mean over all of them (avg@samples)."""
    temperature: float = 1.0
    """Sampling temperature."""
    every: int = 10
    """Steps between evaluations."""
    score: RewardFn | None = None
    """What counts as accuracy; None: the reward."""
    also: tuple[RewardFn, ...] = ()
    """Other judgements of the same responses, such as a format rate: `eval/score/<name of the function>`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Supervised training on worked examples, before any reward."""

    steps: int = 200
    """Optimizer steps; 0 starts from random weights."""
    batch: int = 64
    """Worked examples a step."""
    noise: float = 0.0
    """Share of the examples whose final answer is wrong."""
    optimizer: Optimizer = AdamW(lr=2e-3, warmup_steps=20)
    """Learning rate and the like."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One training run of an experiment: all arms start from the same warm start and see the same questions."""

    name: str
    """Folder name of the arm."""
    loss: LossConfig
    """Policy loss: one of `rl.losses`, or a config of your own whose `build()` gives a `PolicyLoss`."""
    updates: int | None = None
    """Optimizer steps on each rollout of this arm; None: `rollout.updates`. With 1 every update is on-policy."""
    optimizer: Optimizer | None = None
    """This arm's own; None: the experiment's."""
    reward: RewardFn | None = None
    """What this arm is trained on; None: the experiment's. Accuracy is judged alike in all arms."""
    data: QuestionSource | None = None
    """Where this arm's training questions come from; None: the experiment's. Warm start and held-out questions are common."""
