"""What supervised fine-tuning asks of its data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from framework.batch import TokenBatch
from framework.sample import Sample, Stream
from models.tokenizer import LanguageTokenizer

__all__ = ["TokenData", "TokenSource"]


class TokenData(Protocol):
    """Token batches to train on, others to evaluate on, and prompts to be answered."""

    @property
    def train(self) -> Stream[TokenBatch]:
        """`train[step]`: the batch of a step, a function of seed and step alone."""
        ...

    @property
    def heldout(self) -> Sequence[TokenBatch]:
        """Batches of what is not trained on; may be empty."""
        ...

    @property
    def epoch_steps(self) -> float:
        """Batches an epoch."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """Numbers about the data, logged at every step."""
        ...

    def prompts(self, count: int) -> Sequence[tuple[Sample, list[int]]]:
        """At most `count` held-out questions, each with the tokens to continue."""
        ...


class TokenSource(Protocol):
    """A config that makes `TokenData`."""

    def build(
        self, tokenizer: LanguageTokenizer, *, rows: int, length: int, seed: int, say: Callable[[str], None] = print
    ) -> TokenData: ...
