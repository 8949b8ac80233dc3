"""Where questions come from: configs whose `build()` gives training batches, demonstrations and held-out questions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import grain

from data.mixture import Mixture, TaskMix
from data.pipeline import DEFAULT_FIELDS, demonstration_stream, from_jsonl, question_stream, records_stream
from data.synlogic.base import Form, stable_int
from framework.sample import Sample, Stream

__all__ = ["JsonLines", "SynLogic"]

T = TypeVar("T")


def _stream(dataset: grain.MapDataset[T]) -> Stream[T]:
    """Grain types an item as optional, for filtered data sets; nothing here is filtered."""
    return cast(Stream[T], dataset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynLogic:
    """Freshly generated logic questions (arXiv:2505.19641); training and held-out questions never coincide."""

    tasks: tuple[tuple[str, str], ...]
    """(task, level) pairs; a pair listed twice weighs twice."""
    form: Form = "compact"
    """"compact" for models of a few million parameters, "english" for language models."""
    holdout_every: int = 8
    """One question in so many is held out."""

    def build(self) -> "SynLogicQuestions":
        """Raises ValueError for an unknown task or level, naming the nearest one."""
        return SynLogicQuestions(TaskMix(tasks=self.tasks, form=self.form, holdout_every=self.holdout_every).build())


@dataclasses.dataclass(frozen=True)
class SynLogicQuestions:
    """Implements `rl.config.Questions`."""

    mixture: Mixture

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` samples."""
        return _stream(question_stream(self.mixture, batch, seed))

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sample, worked example); other questions than those of `train` at the same step."""
        return _stream(demonstration_stream(self.mixture, batch, stable_int("demonstrations", seed), noise))

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """`count` different questions that no training batch contains. The same for every seed: accuracies compare."""
        del seed
        return self.mixture.heldout(count, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonLines:
    """Your own questions from a JSONL file. The last `heldout` lines are kept for evaluation."""

    path: str
    """File with one JSON object a line."""
    question: str = DEFAULT_FIELDS["question"]
    """Column of the question."""
    answer: str = DEFAULT_FIELDS["answer"]
    """Column of the reference answer."""
    response: str | None = None
    """Column of a worked response to learn from in the warm start; without one set warm_start.steps=0."""
    heldout: int = 64
    """Number of lines kept for evaluation."""

    def build(self) -> "RecordedQuestions":
        """Raises ValueError for a missing column, an empty file, or too few lines."""
        if self.heldout < 1:
            raise ValueError(f"data.heldout={self.heldout} keeps no line for evaluation. Use at least 1.")
        if not Path(self.path).is_file():
            raise ValueError(f"data.path={self.path!r}: there is no such file in {Path.cwd()}.")
        samples = from_jsonl(self.path, {"question": self.question, "answer": self.answer}, task="jsonl")
        if len(samples) <= self.heldout:
            raise ValueError(
                f"{self.path} has {len(samples)} lines, which leaves nothing to train on after data.heldout={self.heldout}. "
                f"Use data.heldout={max(len(samples) // 5, 1)}, or give more lines."
            )
        return RecordedQuestions(tuple(samples[: -self.heldout]), tuple(samples[-self.heldout :]), self.response)


@dataclasses.dataclass(frozen=True)
class RecordedQuestions:
    """Implements `rl.config.Questions`."""

    training: Sequence[Sample]
    kept: Sequence[Sample]
    response: str | None

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` samples, in a new order each epoch."""
        return _stream(records_stream(self.training, batch, seed))

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sample, response of the file). Raises ValueError where there is no such column."""
        column = self.response
        if noise:
            raise ValueError(
                f"warm_start.noise={noise} needs generated questions; recorded ones have no wrong answers. Use 0."
            )
        if column is None or any(column not in sample.meta for sample in self.training):
            raise ValueError(
                f"data.response={column!r} is not a column of every line, so there is nothing to imitate. "
                "Name the column of worked responses, or set warm_start.steps=0."
            )
        stream = records_stream(self.training, batch, stable_int("demonstrations", seed))
        return _stream(stream.map(lambda samples: [(sample, str(sample.meta[column])) for sample in samples]))

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """The first `count` kept lines."""
        del seed
        if count > len(self.kept):
            raise ValueError(
                f"evaluation.questions={count}, but only {len(self.kept)} lines are kept. Use data.heldout={count}."
            )
        return list(self.kept[:count])
