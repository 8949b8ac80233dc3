"""Several sources of questions as one stream (SynLogic, arXiv:2505.19641, section 4: logic + math, logic + code).

    Mixed(parts=(Part(name="logic", data=SynLogic(...)), Part(name="math", data=JsonLines(path="math.jsonl"), task="math")))

Every batch holds the parts in exact proportion to their weights, and each part is read in its own order without a gap. Judge the
samples with `data.mixture_rewards.RewardByTask`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from data.mixture_weights import check_weights, counts, turn
from data.synlogic.base import stable_int
from framework.sample import Sample, Stream

__all__ = ["Mixed", "MixedQuestions", "Part"]

T = TypeVar("T")


class Questions(Protocol):
    """As `rl.config.Questions`; this package does not import that one."""

    def train(self, *, seed: int, batch: int) -> Stream[Sequence[Sample]]: ...
    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[Sequence[tuple[Sample, str]]]: ...
    def heldout(self, *, count: int, seed: int) -> Sequence[Sample]: ...


class Source(Protocol):
    """A config that makes `Questions`."""

    def build(self) -> Questions: ...


@runtime_checkable
class _Bounded(Protocol):
    def check_lengths(
        self, encode: Callable[[str], Sequence[int]], *, max_prompt: int, max_new_tokens: int
    ) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One source of a mix."""

    name: str
    """Tells parts apart; also gives each part randomness of its own."""
    data: Source
    """`SynLogic`, `JsonLines`, or any other config whose `build()` gives questions."""
    weight: float = 1.0
    """Share of the training stream, relative to the other parts."""
    task: str | None = None
    """What `Sample.task` becomes, for rewards by task and metrics by task; None: what the source says."""
    demonstrations: bool = True
    """Whether the warm start learns from this part; False for data without worked responses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed:
    """Parts by weight. Held-out questions are shared out alike, at least one of each part."""

    parts: tuple[Part, ...]
    """At least one, with different names."""

    def build(self) -> "MixedQuestions":
        """Raises ValueError for parts that cannot be mixed."""
        names = [part.name for part in self.parts]
        if not names:
            raise ValueError(
                "Mixed.parts is empty: there is nothing to train on. Give at least one, for example "
                "parts=(Part(name='logic', data=SynLogic(tasks=(('kukurasu', 'tiny'),))),)."
            )
        if len(set(names)) != len(names):
            raise ValueError(f"Mixed.parts have the names {names}. Give each part another name.")
        kept = {part.name: every for part in self.parts if (every := getattr(part.data, "holdout_every", None))}
        if len(set(kept.values())) > 1:  # the side of a question must be the same in all parts
            given = ", ".join(f"{name}: {every}" for name, every in kept.items())
            raise ValueError(
                f"holdout_every differs between the parts ({given}), so that one could train on what another holds out. "
                "Give all of them the same."
            )
        check_weights("weight of the parts", [part.weight for part in self.parts], names)
        return MixedQuestions(tuple((part, part.data.build()) for part in self.parts))


@dataclasses.dataclass(frozen=True)
class MixedQuestions:
    """Implements `rl.config.Questions` and `BoundedQuestions`."""

    parts: Sequence[tuple[Part, Questions]]

    def train(self, *, seed: int, batch: int) -> Stream[list[Sample]]:
        """`stream[step]` is a list of `batch` samples."""
        streams = [source.train(seed=_seed(seed, part), batch=1) for part, source in self.parts]
        return _MixedStream(tuple(part for part, _ in self.parts), streams, batch, _renamed)

    def demonstrations(self, *, seed: int, batch: int, noise: float) -> Stream[list[tuple[Sample, str]]]:
        """`stream[step]` is a list of (sample, worked example) of the parts that have some. Raises ValueError if none has."""
        chosen = [(part, source) for part, source in self.parts if part.demonstrations and part.weight > 0]
        if not chosen:
            raise ValueError(
                "no part of the mix gives demonstrations. Set demonstrations=True for one, or warm_start.steps=0."
            )
        streams = [source.demonstrations(seed=_seed(seed, part), batch=1, noise=noise) for part, source in chosen]
        return _MixedStream(
            tuple(part for part, _ in chosen), streams, batch, lambda part, pair: (_renamed(part, pair[0]), pair[1])
        )

    def heldout(self, *, count: int, seed: int) -> list[Sample]:
        """`count` questions that no training batch contains: one of each part, the others by weight."""
        size = len(self.parts)
        if count < size:
            raise ValueError(f"{count} held-out questions are fewer than the {size} parts. Ask for {size} or more.")
        shares = counts(count - size, [part.weight for part, _ in self.parts])
        return [
            _renamed(part, sample)
            for (part, source), share in zip(self.parts, shares, strict=True)
            for sample in source.heldout(count=1 + share, seed=seed)
        ]

    def check_lengths(self, encode: Callable[[str], Sequence[int]], *, max_prompt: int, max_new_tokens: int) -> None:
        """Ask the parts that can be read to their end. Raises what they raise."""
        for part, source in self.parts:
            if isinstance(source, _Bounded):
                room = max_new_tokens if part.demonstrations else 2**31
                source.check_lengths(encode, max_prompt=max_prompt, max_new_tokens=room)


@dataclasses.dataclass(frozen=True)
class _MixedStream(Stream[list[T]]):
    parts: tuple[Part, ...]
    streams: Sequence[Stream[Sequence[Any]]]  # of one item a step
    batch: int
    finish: Callable[[Part, Any], T]

    def __getitem__(self, step: int, /) -> list[T]:
        weights = [part.weight for part in self.parts]
        items = []
        for index in range(step * self.batch, (step + 1) * self.batch):
            kind, number = turn(index, weights)
            items.append(self.finish(self.parts[kind], self.streams[kind][number][0]))
        return items


def _renamed(part: Part, sample: Sample) -> Sample:
    return sample if part.task is None else dataclasses.replace(sample, task=part.task)


def _seed(seed: int, part: Part) -> int:
    """Of its own for each part: two parts over the same tasks must not draw the same questions."""
    return stable_int("part", seed, part.name) % 2**31
