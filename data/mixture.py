"""A mix of tasks with a training and a held-out side that never share a question (SynLogic, arXiv:2505.19641, section 4).

    mixture = TaskMix(tasks=(("dyck_language", "tiny"), ("kukurasu", "tiny"))).build()
    mixture.train_sample(seed=0, index=7)      # a pure function of both, endless
    mixture.heldout(64, seed=0)                # the same number per task, no question twice

A question belongs to the held-out side when a digest of its text is divisible by `holdout_every`. The side therefore does not
depend on seeds, on the order of generation or on the machine.
"""

import dataclasses
import difflib
from collections.abc import Sequence

from data.mixture_schedule import Schedule, Shares
from data.mixture_weights import check_weights, turn
from data.synlogic import TASKS
from data.synlogic.base import Form, rng_for, stable_int
from framework.sample import Sample

__all__ = ["Mixture", "TaskMix", "demonstration"]

_TRIES = 2_000  # draws for one more question before the space of questions is called exhausted


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskMix:
    """Which tasks at which level, how often, and how that changes in the course of a run."""

    # (task name, level name); held-out questions are of these, whatever the schedule
    tasks: tuple[tuple[str, str], ...]
    weights: tuple[float, ...] = ()  # one for each pair; none: all alike, in turn
    schedule: Schedule | None = None  # which of them at which step; None: the same throughout
    form: Form = "compact"
    # Compact questions whose demonstrations end in the form that official verifiers read.
    official_answers: bool = False
    holdout_every: int = 8  # one question in so many is held out

    def build(self) -> "Mixture":
        if not self.tasks:
            raise ValueError(
                f"TaskMix.tasks is empty: there is nothing to train on. Name at least one (task, level), for example "
                f"tasks=(('dyck_language', 'tiny'),). Tasks: {', '.join(TASKS)}."
            )
        later = () if self.schedule is None else self.schedule.pairs()
        for task, level in (*self.tasks, *later):
            if task not in TASKS:
                raise ValueError(_unknown("task", task, list(TASKS)))
            if level not in TASKS[task].levels:
                raise ValueError(_unknown(f"level of task {task!r}", level, list(TASKS[task].levels)))
        if self.weights:
            check_weights("weights", self.weights, self.tasks)
        if self.schedule is not None:
            self.schedule.check()
        if self.form not in ("compact", "english"):
            raise ValueError(_unknown("form", self.form, ["compact", "english"]))
        if self.holdout_every < 2:
            raise ValueError(
                f"holdout_every={self.holdout_every} leaves no question to train on. Use 2 or more; 8 holds out every eighth."
            )
        return Mixture(
            self.tasks,
            self.form,
            self.holdout_every,
            weights=self.weights,
            schedule=self.schedule,
            official_answers=self.official_answers,
        )


class Mixture:
    """Made by `TaskMix.build()`. Holds no state: every method is a function of its arguments."""

    def __init__(
        self,
        tasks: Sequence[tuple[str, str]],
        form: Form,
        holdout_every: int,
        *,
        weights: tuple[float, ...] = (),
        schedule: Schedule | None = None,
        official_answers: bool = False,
    ):
        self._tasks = tuple(tasks)
        self._weights = weights
        self._schedule = schedule
        self._official_answers = official_answers
        self._form: Form = form
        self._holdout_every = holdout_every

    @property
    def tasks(self) -> tuple[tuple[str, str], ...]:
        return self._tasks

    def is_heldout(self, question: str) -> bool:
        return stable_int("side", question) % self._holdout_every == 0

    @property
    def scheduled(self) -> bool:
        """Whether samples depend on the step as well."""
        return self._schedule is not None

    def shares(self, step: int) -> Shares:
        """The (task, level) pairs that are drawn at a step, with their weights (none: all alike)."""
        return (self._tasks, self._weights) if self._schedule is None else self._schedule.shares(step)

    def train_sample(self, seed: int, index: int, step: int = 0) -> Sample:
        """The training sample number `index`. Tasks take turns, so every batch is as balanced as its size allows.

        `step`, the one the sample is drawn for, only matters with a schedule.
        """
        tasks, weights = self.shares(step)
        task, level = tasks[turn(index, weights)[0] if weights else index % len(tasks)]
        for attempt in range(_TRIES):
            sample = self._generate(task, level, stable_int("train", seed, index, attempt))
            if not self.is_heldout(sample.question):
                return sample
        raise ValueError(
            f"{_TRIES} draws of {task}/{level} gave only held-out questions (holdout_every={self._holdout_every}): it has too "
            "few different questions. Choose a harder level, or a larger holdout_every."
        )

    def heldout(self, n: int, seed: int) -> list[Sample]:
        """`n` different held-out samples, tasks in turn; the first n % tasks of the list get one more."""
        if n < 1:
            raise ValueError(f"n={n} held-out questions cannot be drawn. Use n=1 or more.")
        seen: set[str] = set()
        columns = []
        for place, (task, level) in enumerate(self._tasks):
            wanted = len(range(place, n, len(self._tasks)))
            columns.append(self._heldout_of(task, level, wanted, stable_int("heldout", seed, place), seen))
        return [columns[i % len(columns)][i // len(columns)] for i in range(n)]

    def _heldout_of(self, task: str, level: str, wanted: int, seed: int, seen: set[str]) -> list[Sample]:
        found: list[Sample] = []
        idle = draws = 0
        while len(found) < wanted:
            sample = self._generate(task, level, stable_int(seed, draws))
            draws += 1
            if self.is_heldout(sample.question) and sample.question not in seen:
                seen.add(sample.question)
                found.append(sample)
                idle = 0
                continue
            idle += 1
            if idle > _TRIES:
                raise ValueError(
                    f"{task}/{level} has too few questions: wanted {wanted} different held-out ones, found {len(found)} in "
                    f"{draws} draws (the last {_TRIES} gave nothing new, holdout_every={self._holdout_every}). "
                    f"Ask for at most {len(found)} of this task, use a harder level, or a smaller holdout_every."
                )
        return found

    def _generate(self, task: str, level: str, seed: int) -> Sample:
        sample = TASKS[task].generate(seed, TASKS[task].levels[level], self._form)
        if not self._official_answers or self._form != "compact":
            return sample
        # The same instance in its other form is what the official verifier and the oracle's official answer belong to.
        english = TASKS[task].generate(seed, TASKS[task].levels[level], "english")
        return dataclasses.replace(english, question=sample.question)


def demonstration(sample: Sample, rng_seed: int, noise: float = 0.0) -> str:
    """A response to learn from: worked example and answer in their tags; with probability `noise` the answer is wrong.

    A noisy demonstration keeps the right working, so that a warm start with noise leaves reinforcement learning an answer
    to mend and not a format to find.
    """
    task = TASKS[sample.task]
    wrong = rng_for("demonstration", rng_seed, sample.question).random() < noise
    answer = task.perturb(sample, rng_seed) if wrong else task.solve(sample)
    return f"<think>{task.worked(sample)}</think><answer>{answer}</answer>"


def _unknown(kind: str, given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.0)
    return f"unknown {kind}: {given!r}. Did you mean {near[0]!r}? Known: {', '.join(known)}."
