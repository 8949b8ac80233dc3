"""What every SynLogic task shares: the task protocol, the check of every emitted instance, and reproducible randomness.

Source: SynLogic (arXiv:2505.19641), sections 2 and 3, and its official repository MiniMax-AI/SynLogic.
"""

import collections
import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar

from framework.sample import Sample

__all__ = [
    "REJECTED",
    "Draft",
    "Form",
    "Mode",
    "Params",
    "Task",
    "Verifier",
    "emit",
    "first_rejected",
    "rng_for",
    "stable_int",
]

Mode = Literal["strict", "official"]
Form = Literal["compact", "english"]

_DRAWS = 2_000  # tries to find an instance whose own solution passes; a feasible setting needs a handful

REJECTED: collections.Counter[str] = collections.Counter()
"""Draws of this process that `emit` threw away: "draw" by the generator itself, "oracle" because its own solution failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """The difficulty of a task. Each task has its own subclass."""


P = TypeVar("P")


class Task(Protocol[P]):
    """One generated task with its oracle and its verifier. Everything is a pure function of its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def levels(self) -> Mapping[str, P]:
        """ "tiny" (short enough for a character-level model), "easy", "normal" (the paper's sweep) and "hard"."""
        ...

    @property
    def measure(self) -> str:
        """What `difficulty` counts, such as "search nodes of the oracle": a unit for tables and plots."""
        ...

    @property
    def json_answer(self) -> bool:
        """True where a published record's `answer` is not a text: `Sample.answer` is then that value as JSON."""
        ...

    def generate(self, seed: int, params: P, form: Form = "compact") -> Sample: ...

    def solve(self, sample: Sample) -> str:
        """An answer that is right: the short form for compact samples, the official form for english ones."""
        ...

    def worked(self, sample: Sample) -> str:
        """A short worked example that leads to `solve(sample)`: what a demonstration thinks."""
        ...

    def perturb(self, sample: Sample, seed: int) -> str:
        """A plausible wrong answer in the right form; the strict verifier rejects it."""
        ...

    def verify(self, sample: Sample, answer: str, mode: Mode = "strict") -> bool:
        """Judge the text inside the answer tags. Never raises on any text.

        "official" accepts exactly what the published verifier accepts (it judges published records as they are);
        "strict" closes its holes, takes the short forms of compact samples as well, and is what training uses.
        """
        ...

    def difficulty(self, sample: Sample) -> float:
        """How hard an instance is, in `measure`: the median rises from level to level."""
        ...

    def show(self, sample: Sample, solved: bool = False) -> str:
        """Markdown for people: the instance, a grid drawn as a grid; with `solved`, an answer filled in."""
        ...


class Verifier(Protocol):
    """What only judges: tasks whose data exist already. Every `Task` is one."""

    @property
    def name(self) -> str: ...

    def verify(self, sample: Sample, answer: str, mode: Mode = "strict") -> bool: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """One instance before it is checked: its wordings, reference answer and truth (JSON types only)."""

    compact: str
    english: tuple[str, ...]
    answer: str
    meta: Mapping[str, Any]


def emit(task: Task[P], draw: Callable[[random.Random], Draft | None], seed: int, params: P, form: Form) -> Sample:
    """The first draw whose own solution the strict verifier accepts, worded in `form`.

    The paper claims that every instance is checked; its code does not always do it, so ours does it here for all tasks.
    """
    if form not in ("compact", "english"):
        raise ValueError(f"form={form!r} is not a question form. Use 'compact' or 'english'.")
    level = next((name for name, known in task.levels.items() if known == params), "custom")
    for attempt in range(_DRAWS):
        draft = draw(rng_for(task.name, seed, attempt))
        if draft is None:
            REJECTED["draw"] += 1
            continue
        # The wording follows from the instance, not from the seed: one instance has one question, so that finding doubles by
        # text finds them all, and no instance can be trained on in one wording and held out in another.
        english = draft.english[stable_int(task.name, "wording", draft.compact) % len(draft.english)]
        question = draft.compact if form == "compact" else english
        meta = {**draft.meta, "form": form}
        sample = Sample(task=task.name, level=level, seed=seed, question=question, answer=draft.answer, meta=meta)
        if task.verify(sample, task.solve(sample), "strict"):
            return sample
        REJECTED["oracle"] += 1
    raise ValueError(f"{task.name}: no instance in {_DRAWS} draws with {params}. Loosen these parameters.")


def first_rejected(task: Task[Any], sample: Sample, candidates: Iterable[str]) -> str:
    """The first candidate that the strict verifier rejects (a changed answer may be right by chance)."""
    for candidate in candidates:
        if not task.verify(sample, candidate, "strict"):
            return candidate
    raise ValueError(f"{task.name}: every candidate for a wrong answer is right, question {sample.question!r}.")


def stable_int(*parts: object) -> int:
    """A 63-bit integer that depends only on the text of `parts`: equal in every process, unlike `hash()`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(*parts: object) -> random.Random:
    """A generator that depends only on the text of `parts`."""
    return random.Random(stable_int(*parts))
