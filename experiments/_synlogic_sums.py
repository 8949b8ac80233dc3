"""Sums of two numbers: the mathematics of the small mix, in the place of the paper's 17,000 problems (arXiv:2505.19641, section 4).

`sum 47+38` with the answer `85`, judged by `data.mixture_rewards.exact_answer`: data that is verifiable and no SynLogic task.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from data.synlogic.base import rng_for, stable_int
from framework.errors import UserError
from framework.sample import Sample, Stream

__all__ = ["Sums"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """Endless sums; training and held-out ones never coincide."""

    digits: int = 2
    """Of both numbers."""
    holdout_every: int = 8
    """One sum in so many is held out."""

    def build(self) -> "SumQuestions":
        """Raises UserError for numbers that cannot work."""
        if self.digits < 1 or self.holdout_every < 2:
            raise UserError(
                f"Sums(digits={self.digits}, holdout_every={self.holdout_every}) has nothing to train on. Use digits=2, "
                "holdout_every=8."
            )
        return SumQuestions(self)


@dataclasses.dataclass(frozen=True)
class SumQuestions:
    """Implements `rl.config.Questions`."""

    config: Sums

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` sums."""
        return _Batches(batch, lambda index: self._draw("train", seed, index, heldout=False))

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sum, worked example); a share `noise` of the examples ends in a wrong sum."""
        return _Batches(batch, lambda index: self._demonstration(seed, index, noise))

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """`count` different sums, the same for every seed."""
        del seed
        found: dict[str, Sample] = {}
        room = (
            9**2 * 100 ** (self.config.digits - 1) // (2 * self.config.holdout_every)
        )  # half of them are found quickly
        if count > room:
            raise UserError(
                f"{count} held-out sums are too many for digits={self.config.digits}. Ask for at most {room}."
            )
        index = 0
        while len(found) < count:
            sample = self._draw("heldout", 0, index, heldout=True)
            found.setdefault(sample.question, sample)
            index += 1
        return list(found.values())

    def _demonstration(self, seed: int, index: int, noise: float) -> tuple[Sample, str]:
        sample = self._draw("demonstrations", seed, index, heldout=False)
        rng = rng_for("sums", "noise", seed, index)
        wrong = rng.random() < noise
        answer = int(sample.answer) + (rng.choice((-10, -1, 1, 10)) if wrong else 0)
        return sample, f"<think>{_worked(sample)}</think><answer>{answer}</answer>"

    def _draw(self, purpose: str, seed: int, index: int, *, heldout: bool) -> Sample:
        rng = rng_for("sums", purpose, seed, index)
        low = 10 ** (self.config.digits - 1)
        while True:
            a, b = rng.randrange(low, 10 * low), rng.randrange(low, 10 * low)
            question = f"sum {a}+{b}"
            if (stable_int("side", question) % self.config.holdout_every == 0) == heldout:
                return Sample(task="sums", question=question, answer=str(a + b), meta={"a": a, "b": b}, seed=index)


@dataclasses.dataclass(frozen=True)
class _Batches(Stream[list[T]]):
    batch: int
    make: Callable[[int], T]

    def __getitem__(self, step: int, /) -> list[T]:
        return [self.make(index) for index in range(step * self.batch, (step + 1) * self.batch)]


def _worked(sample: Sample) -> str:
    """Digit by digit from the right, the carry included: `7+8=15 4+3+1=8`."""
    steps, carry = [], 0
    for x, y in zip(reversed(str(sample.meta["a"])), reversed(str(sample.meta["b"])), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return " ".join(steps)
