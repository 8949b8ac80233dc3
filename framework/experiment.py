"""What an experiment is: a frozen config that can run itself, describe its results and generate text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:  # reports read run folders, and run folders hold experiments: only the types meet here
    from framework.report import Section
    from framework.rundata import RunData
    from framework.rundir import RunDir, StageDir

__all__ = ["Claim", "Experiment", "Exportable", "Policy", "is_experiment"]


@runtime_checkable
class Policy(Protocol):
    """Something that answers prompts; what `maypole generate` and interactive use talk to."""

    def generate(
        self, prompts: Sequence[str], *, samples: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[str]]:
        """Return `samples` answers for every prompt; the same seed gives the same answers. Temperature 0 is greedy."""
        ...


@runtime_checkable
class Experiment(Protocol):
    """A frozen, keyword-only dataclass with these members. No base class: having them is enough."""

    @property
    def name(self) -> str:
        """What run folders and reports call it."""
        ...

    @property
    def seed(self) -> int:
        """Every random choice of the run is a function of this and the step."""
        ...

    def run(self, run: "RunDir") -> None:
        """Start or continue: work through every stage that is not done."""
        ...

    def sections(self, runs: "Sequence[RunData]") -> "Sequence[Section]":
        """The paper's own part of the report."""
        ...

    def policy(self, stage: "StageDir") -> Policy:
        """Load the newest checkpoint of a stage, ready to generate."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """What an experiment may offer as well: `maypole export runs/NAME FOLDER` calls it."""

    def export(
        self, stage: "StageDir", folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int
    ) -> None:
        """Write the model of a stage's newest checkpoint, with its tokenizer, to a new folder in Hugging Face format.

        `shard_size` is the number of bytes after which another file of weights begins. Raises UserError for a model that
        the format cannot hold.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper that the small scale tests: `measure` of `arms[0]` against `arms[1]`.

    `direction` "higher" asks that the first arm exceeds the second by at least `threshold`; "lower" the reverse; "equal"
    that they differ by at most `threshold`.
    """

    name: str
    arms: tuple[str, ...]
    measure: str
    """A metric name, for example "eval/accuracy"; the unit is that metric's."""
    direction: Literal["higher", "lower", "equal"]
    threshold: float
    text: str
    """The claim in a sentence, as the paper makes it."""


_MEMBERS = ("name", "seed", "run", "sections", "policy")


def is_experiment(value: object) -> bool:
    """True for a dataclass instance (not a class) with the members of `Experiment`."""
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_config and all(hasattr(value, member) for member in _MEMBERS)
