"""What every SynLogic task shares: the task protocol, answer extraction, safe text limits and reproducible randomness.

Source: SynLogic (arXiv:2505.19641), sections 2 and 3, and its official repository MiniMax-AI/SynLogic. The official helpers
run Python's `eval` on model text; nothing here does. Text longer than `MAX_CHARS` is never parsed.
"""

import dataclasses
import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar

from framework.sample import Sample

__all__ = [
    "MAX_CHARS",
    "Draft",
    "Form",
    "Mode",
    "Params",
    "Task",
    "emit",
    "extract_answer",
    "first_rejected",
    "has_format",
    "last_box",
    "last_box_balanced",
    "last_python_block",
    "rng_for",
    "stable_int",
    "too_long",
]

Mode = Literal["strict", "official"]
Form = Literal["compact", "english"]

MAX_CHARS = (
    20_000  # an honest answer has a few hundred characters; a longer one is an attack on the parser or a runaway
)
_DRAWS = 2_000  # tries to find an instance whose own solution passes; a feasible setting needs a handful

_FENCE = re.compile(r"```python(.*?)```", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """The difficulty of a task. Each task has its own subclass."""


P = TypeVar("P")


class Task(Protocol[P]):
    """One generated task with its oracle and its verifier. Everything is a pure function of its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def levels(self) -> Mapping[str, P]: ...

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
        """Judge the text inside the answer tags. Never raises on any text."""
        ...


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
            continue
        # The wording has its own generator, so that both forms of a seed are the same instance.
        english = draft.english[stable_int(task.name, "wording", seed) % len(draft.english)]
        question = draft.compact if form == "compact" else english
        meta = {**draft.meta, "form": form}
        sample = Sample(task=task.name, level=level, seed=seed, question=question, answer=draft.answer, meta=meta)
        if task.verify(sample, task.solve(sample), "strict"):
            return sample
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


def too_long(text: str) -> bool:
    return len(text) > MAX_CHARS


def extract_answer(text: str) -> str:
    """The text of the first answer block after the thinking, or "" (the official helper, card section 2.2).

    Only the part between the first and the second think-end tag counts, so an answer inside the thinking is ignored and a
    second think-end tag before the answer loses it.
    """
    if "</think>" in text:
        text = text.split("</think>")[1]
    _, opened, rest = text.partition("<answer>")
    body, closed, _ = rest.partition("</answer>")
    return body.strip() if opened and closed else ""


def has_format(text: str) -> bool:
    """True iff `text` is exactly one think block, then exactly one answer block, with only white space around them.

    The paper asks for both pairs of tags; its trainer's code is not published. This is the strict reading.
    """
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if any(text.count(tag) != 1 for tag in tags):
        return False
    before, thinks, between, answer = (text.find(tag) for tag in tags)
    ordered = before < thinks < between < answer
    gaps = (text[:before], text[thinks + len("</think>") : between], text[answer + len("</answer>") :])
    return ordered and not any(gap.strip() for gap in gaps)


def last_python_block(text: str) -> str | None:
    """The stripped text of the last closed ```python fence, or None."""
    blocks = _FENCE.findall(text)
    return blocks[-1].strip() if blocks else None


def last_box_balanced(text: str) -> str | None:
    r"""Variant A: the content of the last `\boxed{`, nested braces matched; None when there is none or it is unbalanced."""
    _, found, rest = text.rpartition(r"\boxed{")
    depth = 1
    for i, char in enumerate(rest if found else ""):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[:i]
    return None


def last_box(text: str) -> str | None:
    r"""Variant B: the content of the last `\boxed{` up to the first `}`; None when there is none."""
    _, found, rest = text.rpartition(r"\boxed{")
    body, closed, _ = rest.partition("}")
    return body if found and closed else None
