"""Where questions come from: configs whose `build()` gives training batches, demonstrations and held-out questions."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import grain

from data.mixture import Mixture, TaskMix
from data.mixture_schedule import PassRateSchedule, StepSchedule
from data.pipeline import DEFAULT_FIELDS, as_text, demonstration_stream, from_jsonl, question_stream, records_stream
from data.synlogic.base import Form, stable_int
from framework.errors import UserError
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
    """(task, level) pairs; a pair listed twice weighs twice. Held-out questions are of these, the same number of each."""
    weights: tuple[float, ...] = ()
    """How often each pair is drawn, as exact shares of the training stream; empty: all alike."""
    schedule: StepSchedule | PassRateSchedule | None = None
    """Which pairs at which step, see `data.mixture_schedule`; None: `tasks` throughout."""
    form: Form = "compact"
    """"compact" for models of a few million parameters, "english" for language models."""
    official_answers: bool = False
    """Compact questions, but worked examples end in the form that the official verifiers read."""
    holdout_every: int = 8
    """One question in so many is held out."""

    def build(self) -> "SynLogicQuestions":
        """Raises ValueError for an unknown task or level, naming the nearest one, and for weights that cannot be shares."""
        mix = TaskMix(
            tasks=self.tasks,
            weights=self.weights,
            schedule=self.schedule,
            form=self.form,
            official_answers=self.official_answers,
            holdout_every=self.holdout_every,
        )
        return SynLogicQuestions(mix.build())


@dataclasses.dataclass(frozen=True)
class SynLogicQuestions:
    """Implements `rl.config.Questions`."""

    mixture: Mixture

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` samples."""
        if self.mixture.scheduled:
            return _ScheduledStream(self.mixture, seed, batch)
        return _stream(question_stream(self.mixture, batch, seed))

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sample, worked example); other questions than those of `train` at the same step.

        A schedule counts the steps of `train` alone: worked examples are those of its step 0.
        """
        return _stream(demonstration_stream(self.mixture, batch, stable_int("demonstrations", seed), noise))

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """`count` different questions that no training batch contains. The same for every seed: accuracies compare."""
        del seed
        return self.mixture.heldout(count, 0)


@dataclasses.dataclass(frozen=True)
class _ScheduledStream(Stream[list[Sample]]):
    """`stream[step]`: the samples of a step, drawn with the shares of that step."""

    mixture: Mixture
    seed: int
    batch: int

    def __getitem__(self, step: int, /) -> list[Sample]:
        indices = range(step * self.batch, (step + 1) * self.batch)
        return [self.mixture.train_sample(self.seed, index, step) for index in indices]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonLines:
    """Your own questions from a JSONL file. The last `heldout` lines are kept for evaluation, and lines before them that ask the
    same are left out."""

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
        """Raises UserError for a missing column, an empty file, or too few lines."""
        if self.heldout < 1:
            raise UserError(f"data.heldout={self.heldout} keeps no line for evaluation. Use at least 1.")
        if not Path(self.path).is_file():
            raise UserError(f"data.path={self.path!r}: there is no such file in {Path.cwd()}.")
        samples = from_jsonl(self.path, {"question": self.question, "answer": self.answer}, task="jsonl")
        if len(samples) <= self.heldout:
            raise UserError(
                f"{self.path} has {len(samples)} lines, which leaves nothing to train on after data.heldout={self.heldout}. "
                f"Use data.heldout={max(len(samples) // 5, 1)}, or give more lines."
            )
        kept = tuple(samples[-self.heldout :])
        asked = {sample.question for sample in kept}
        training = tuple(sample for sample in samples[: -self.heldout] if sample.question not in asked)
        if not training:
            raise UserError(
                f"{self.path}: every question before the last data.heldout={self.heldout} lines is also one of them, which leaves "
                "nothing to train on. Use a smaller data.heldout, or give other lines."
            )
        return RecordedQuestions(training, kept, self.response, self.path)


@dataclasses.dataclass(frozen=True)
class RecordedQuestions:
    """Implements `rl.config.Questions` and `BoundedQuestions`. `Sample.seed` is the number of the line in the file `path`."""

    training: Sequence[Sample]
    kept: Sequence[Sample]
    response: str | None
    path: str

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` samples, in a new order each epoch."""
        return _stream(records_stream(self.training, batch, seed))

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sample, response of the file). Raises UserError where a line has none."""
        column = self.response
        if noise:
            raise UserError(
                f"warm_start.noise={noise} needs generated questions; recorded ones have no wrong answers. Use 0."
            )
        if column is None:
            raise UserError(
                "data.response=None names no column of worked responses, so there is nothing to imitate. "
                "Name one, or set warm_start.steps=0."
            )
        for sample in self.training:
            where = self._line(sample)
            if column not in sample.meta:
                raise UserError(
                    f"data.response={column!r} is not a column of {where}, so there is nothing to imitate. "
                    "Name the column of worked responses, or set warm_start.steps=0."
                )
            if not as_text(sample.meta[column], where, column, "worked response"):
                raise UserError(
                    f"{where}: {column!r} is empty, so there is nothing to imitate. Write a worked response, or remove the line."
                )
        stream = records_stream(self.training, batch, stable_int("demonstrations", seed))
        return _stream(stream.map(lambda samples: [(sample, str(sample.meta[column])) for sample in samples]))

    def check_lengths(self, encode: Callable[[str], Sequence[int]], *, max_prompt: int, max_new_tokens: int) -> None:
        """Whether every question and every worked response of the training lines fits its place, the end token included.

        Raises:
            UserError: one is too long; names the line of the longest and the number of tokens to make room for.
        """
        problems: list[str] = []
        advice: list[str] = []

        def check(what: str, field: str, room: int, lengths: Sequence[tuple[int, Sample]]) -> None:
            longest, sample = max(lengths, key=lambda pair: pair[0], default=(0, None))
            if sample is not None and longest > room:
                count = sum(length > room for length, _ in lengths)
                problems.append(
                    f"{self._line(sample)}: the {what} has {longest} tokens, but rollout.{field}={room} "
                    f"(too long: {count} of {len(lengths)})."
                )
                advice.append(f"rollout.{field}={longest}")

        asked = [(len(encode(sample.question)), sample) for sample in (*self.training, *self.kept)]
        check("question", "max_prompt", max_prompt, asked)
        texts = [(sample.meta.get(self.response), sample) for sample in self.training] if self.response else []
        # Where there is no text, `demonstrations` says so; a run without a warm start never asks for them.
        worked = [(len(encode(str(text))) + 1, sample) for text, sample in texts if isinstance(text, str | int | float)]
        check("worked response with its end token", "max_new_tokens", max_new_tokens, worked)
        if problems:
            raise UserError(f"{' '.join(problems)} Use {' and '.join(advice)}, or shorten these lines.")

    def _line(self, sample: Sample) -> str:
        return f"{self.path}:{sample.seed}"

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """The first `count` kept lines."""
        del seed
        if count > len(self.kept):
            raise UserError(
                f"evaluation.questions={count}, but only {len(self.kept)} lines are kept. Use data.heldout={count}."
            )
        return list(self.kept[:count])
