"""Which difficulty can be learnt from: pass counts of a weak and a strong model in, the band out (SynLogic, arXiv:2505.19641,
section 2: keep a setting if pass@10 of the strong model is above 0 and the pass rate of the weak one is in (0, 0.5]).

    cell = Cell(task="kukurasu", level="easy", samples=10, weak=(0, 3, 1), strong=(4, 9, 2))
    Calibration(cells=(cell,)).kind(cell)        # "learnable"

Pure: models are asked elsewhere (`rl.pass_rates`), so that the result is numbers that a config can hold.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from framework.errors import UserError

__all__ = ["Calibration", "Cell", "Kind", "calibrate", "pass_at_k"]

Kind = Literal["too easy", "learnable", "beyond the weak", "too hard"]


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k answers is right, from `right` of `samples` answers.

    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374).
    """
    if not 0 <= right <= samples:
        raise ValueError(
            f"right={right} of samples={samples} answers is not a count. Use a number from 0 to {samples}."
        )
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from samples={samples} answers. Use k from 1 to {samples}.")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting of one task, answered by both models."""

    task: str
    level: str
    """Name of the level, or of the parameters that were measured."""
    samples: int
    """Answers to each question."""
    weak: tuple[int, ...]
    """Right answers to each question, of the weak model."""
    strong: tuple[int, ...]
    """The same of the strong model."""

    @property
    def weak_rate(self) -> float:
        """Share of right answers of the weak model."""
        return sum(self.weak) / (self.samples * len(self.weak))

    @property
    def strong_rate(self) -> float:
        """Share of right answers of the strong model."""
        return sum(self.strong) / (self.samples * len(self.strong))

    def strong_pass(self, k: int) -> float:
        """pass@k of the strong model, mean over questions."""
        return sum(pass_at_k(self.samples, right, k) for right in self.strong) / len(self.strong)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A grid of settings and the rule that chooses among them."""

    cells: tuple[Cell, ...]
    k: int = 10
    """A setting is within reach if pass@k of the strong model is above 0."""
    max_weak: float = 0.5
    """A setting with a higher pass rate of the weak model is too easy."""

    def kind(self, cell: Cell) -> Kind:
        """Where a setting stands. Only a learnable one gives a weak model rewards that differ, and so something to learn."""
        if cell.strong_pass(self.k) == 0:
            return "too hard"
        if cell.weak_rate == 0:
            return "beyond the weak"
        return "learnable" if cell.weak_rate <= self.max_weak else "too easy"

    def cells_of(self, *kinds: Kind) -> list[Cell]:
        """The cells of these kinds, as measured."""
        unknown = set(kinds) - set(get_args(Kind))
        if unknown:
            raise ValueError(f"no kind of cell {sorted(unknown)}. Kinds: {', '.join(get_args(Kind))}.")
        return [cell for cell in self.cells if self.kind(cell) in kinds]

    def tasks(self, *kinds: Kind) -> tuple[tuple[str, str], ...]:
        """(task, level) pairs of these kinds: what `SynLogic(tasks=...)` takes."""
        return tuple((cell.task, cell.level) for cell in self.cells_of(*kinds))

    def table(self) -> str:
        """Markdown: one line a setting."""
        lines = [
            f"| Task | Level | Weak pass rate (%) | Strong pass rate (%) | Strong pass@{self.k} (%) | Kind |",
            "| --- | --- | ---: | ---: | ---: | --- |",
        ]
        for cell in self.cells:
            numbers = (cell.weak_rate, cell.strong_rate, cell.strong_pass(self.k))
            shown = " | ".join(f"{100 * number:.1f}" for number in numbers)
            lines.append(f"| {cell.task} | {cell.level} | {shown} | {self.kind(cell)} |")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """JSON types: the counts, and what follows from them for whoever reads the file."""
        cells = [
            dataclasses.asdict(cell)
            | {
                "weak": list(cell.weak),
                "strong": list(cell.strong),
                "weak_rate": cell.weak_rate,
                "strong_rate": cell.strong_rate,
                "strong_pass": cell.strong_pass(self.k),
                "kind": self.kind(cell),
            }
            for cell in self.cells
        ]
        return {"k": self.k, "max_weak": self.max_weak, "cells": cells}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Of what `to_json` gave. Raises KeyError for something else."""
        cells = tuple(
            Cell(
                task=cell["task"],
                level=cell["level"],
                samples=cell["samples"],
                weak=tuple(cell["weak"]),
                strong=tuple(cell["strong"]),
            )
            for cell in stored["cells"]
        )
        return cls(cells=cells, k=stored["k"], max_weak=stored["max_weak"])

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a file that holds `to_json`. Raises UserError for any other file."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no calibration ({type(error).__name__}: {error}). Write one with json.dumps(calibration.to_json())."
            ) from error


def calibrate(
    weak: Mapping[tuple[str, str], Sequence[int]],
    strong: Mapping[tuple[str, str], Sequence[int]],
    *,
    samples: int,
    k: int = 10,
    max_weak: float = 0.5,
) -> Calibration:
    """From right answers by question, of `samples` each: (task, level) -> counts, for both models over the same settings."""
    if list(weak) != list(strong):
        raise ValueError(
            f"weak has the settings {list(weak)} and strong has {list(strong)}. Measure both models on the same ones, in one order."
        )
    for pair in weak:
        if not weak[pair] or len(weak[pair]) != len(strong[pair]):
            raise ValueError(
                f"{pair} has {len(weak[pair])} questions of the weak model and {len(strong[pair])} of the strong one. "
                "Ask both the same questions, at least one."
            )
    pass_at_k(samples, 0, k)  # says so if k answers cannot be had
    cells = (
        Cell(task=task, level=level, samples=samples, weak=tuple(weak[task, level]), strong=tuple(strong[task, level]))
        for task, level in weak
    )
    return Calibration(cells=tuple(cells), k=k, max_weak=max_weak)
