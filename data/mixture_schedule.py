"""Difficulty that changes in the course of a run: pairs of (task, level) as a function of the step and of nothing else.

    StepSchedule(stages=(Stage(tasks=(("kukurasu", "tiny"),)), Stage(step=100, tasks=(("kukurasu", "easy"),))))
    PassRateSchedule(calibration=measured, steps=200)   # from the easiest learnable level of each task to the hardest

A measured pass rate enters as numbers in the config, never as something a run measures on its way: a resumed run could not
know it. SynLogic (arXiv:2505.19641, section 2) sets difficulty once, before training.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from data.mixture_weights import check_weights
from data.synlogic.calibrate import Calibration

__all__ = ["PassRateSchedule", "Schedule", "Shares", "Stage", "StepSchedule"]

Shares: TypeAlias = "tuple[Sequence[tuple[str, str]], Sequence[float]]"
"""(task, level) pairs and their weights; no weights: all alike, in turn."""


class Schedule(Protocol):
    """A frozen dataclass of numbers."""

    def shares(self, step: int) -> Shares: ...

    def pairs(self) -> Sequence[tuple[str, str]]:
        """Every pair that some step draws."""
        ...

    def check(self) -> None:
        """Raises ValueError for a schedule that cannot work."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What is drawn from a step on."""

    step: int = 0
    """The first step of the stage."""
    tasks: tuple[tuple[str, str], ...]
    """(task, level) pairs."""
    weights: tuple[float, ...] = ()
    """One for each pair; empty: all alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """Stages one after the other."""

    stages: tuple[Stage, ...]
    """In the order of their first steps; the first begins at step 0."""

    def shares(self, step: int) -> Shares:
        stage = next(stage for stage in reversed(self.stages) if stage.step <= step)
        return stage.tasks, stage.weights

    def pairs(self) -> Sequence[tuple[str, str]]:
        return [pair for stage in self.stages for pair in stage.tasks]

    def check(self) -> None:
        starts = [stage.step for stage in self.stages]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(
                f"the stages of the schedule begin at the steps {starts}. The first must begin at 0 and each later one after "
                "the one before it, for example Stage(step=0, ...), Stage(step=100, ...)."
            )
        for stage in self.stages:
            if not stage.tasks:
                raise ValueError(
                    f"the stage from step {stage.step} on has no tasks. Name at least one (task, level), for example "
                    "tasks=(('kukurasu', 'tiny'),)."
                )
            if stage.weights:
                check_weights(f"weights of the stage from step {stage.step} on", stage.weights, stage.tasks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassRateSchedule:
    """Each task climbs its learnable levels, from the highest measured pass rate of the weak model to the lowest."""

    calibration: Calibration
    """What was measured, see `data.synlogic.calibrate`."""
    steps: int
    """After so many steps every task is at its hardest learnable level, and stays there."""

    def shares(self, step: int) -> Shares:
        ladders = self._ladders
        return [ladder[min(step * len(ladder) // self.steps, len(ladder) - 1)] for ladder in ladders], ()

    def pairs(self) -> Sequence[tuple[str, str]]:
        return [pair for ladder in self._ladders for pair in ladder]

    def check(self) -> None:
        if self.steps < 1:
            raise ValueError(
                f"steps={self.steps} of the schedule is no time to climb. Use the steps of the run, such as 200."
            )
        if not self.pairs():
            raise ValueError(
                "the calibration has no learnable level, so there is nothing to train on. Measure easier levels, or name "
                "tasks yourself: StepSchedule(stages=(Stage(tasks=(('kukurasu', 'tiny'),)),))."
            )

    @functools.cached_property  # asked for every sample
    def _ladders(self) -> list[list[tuple[str, str]]]:
        cells = sorted(
            self.calibration.cells_of("learnable"), key=lambda cell: -cell.weak_rate
        )  # stable: ties as measured
        names = dict.fromkeys(cell.task for cell in self.calibration.cells)
        ladders = [[(cell.task, cell.level) for cell in cells if cell.task == name] for name in names]
        return [ladder for ladder in ladders if ladder]
