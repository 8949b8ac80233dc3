"""One question with its truth: what tasks make, verifiers judge and reward functions read. Imports no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

__all__ = ["Sample", "Stream"]

T = TypeVar("T", covariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A question for a model.

    `answer` is a reference answer and may be "" where many answers are right; `meta` holds the truth a verifier needs and
    is made of JSON types only, so that a sample can be written to a file and read back.
    """

    task: str
    question: str
    answer: str = ""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    level: str = ""
    seed: int = 0


class Stream(Protocol[T]):
    """Random access by step: the batch of a step is a function of the step alone, which is what makes resuming exact."""

    def __getitem__(self, step: int, /) -> T: ...
