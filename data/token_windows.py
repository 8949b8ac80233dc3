"""Two long streams of tokens, one to train on and one held out, as batches of windows: what pre-training reads.

A document may begin and end anywhere in a window: an end token tells them apart, and attention crosses it, as in nanoGPT.
"""

from collections.abc import Mapping

import numpy as np

from framework.batch import TokenBatch
from framework.errors import UserError
from framework.sample import Sample

__all__ = ["TokenWindows"]


class TokenWindows:
    """Windows of `length` tokens. Implements `rl.sft_data.TokenData`, and its own `train` and stream of batches."""

    def __init__(
        self,
        train: np.ndarray,
        heldout: np.ndarray,
        *,
        rows: int,
        length: int,
        seed: int,
        heldout_batches: int,
    ):
        """`train` and `heldout` are [N] of any integer type, and may be files mapped into memory.

        Held-out windows do not overlap and are spread evenly over their stream: they are the same whatever the seed.

        Raises:
            UserError: a stream that is too short for one window, or for so many held-out ones.
        """
        if heldout_batches < 0:
            raise UserError(f"heldout_batches={heldout_batches} cannot be negative. Use 16, or 0 for no evaluation.")
        if len(train) <= length:
            raise UserError(
                f"The text to train on has {len(train):,} tokens, too few for a window of length={length}. "
                f"Use length={max(len(train) // 2, 2)} or less, or more text."
            )
        wanted = heldout_batches * rows
        if wanted * length > len(heldout):
            raise UserError(
                f"heldout_batches={heldout_batches} of {rows} x {length} tokens do not fit in {len(heldout):,} held-out tokens. "
                f"Use heldout_batches={len(heldout) // (rows * length)} or less, or hold out more."
            )
        self._train, self._seed, self._rows, self._length = train, seed, rows, length
        gap = len(heldout) // max(wanted, 1)
        starts = np.arange(wanted).reshape(heldout_batches, rows) * gap
        self.heldout = tuple(self._batch(heldout, own) for own in starts)

    @property
    def train(self) -> "TokenWindows":
        """`train[step]` is the batch of a step."""
        return self

    def __getitem__(self, step: int, /) -> TokenBatch:
        """Windows that begin anywhere in the stream, drawn with replacement; a function of (seed, step)."""
        if step < 0:
            raise IndexError(f"step={step} is before the start of the data. Use 0 or more.")
        rng = np.random.default_rng([abs(self._seed), self._seed < 0, step])
        return self._batch(self._train, rng.integers(0, len(self._train) - self._length + 1, self._rows))

    @property
    def epoch_steps(self) -> float:
        """Batches that hold as many tokens as the stream to train on."""
        return len(self._train) / (self._rows * self._length)

    def metrics(self) -> Mapping[str, float]:
        """Every place holds a token, and all but the first of a window are learnt."""
        return {
            "data/epoch_steps": self.epoch_steps,
            "data/packing_efficiency": 1.0,
            "data/learnt_frac": 1.0 - 1.0 / self._length,
        }

    def prompts(self, count: int) -> list[tuple[Sample, list[int]]]:
        """None: a text is no question."""
        del count
        return []

    def _batch(self, stream: np.ndarray, starts: np.ndarray) -> TokenBatch:
        places = np.arange(self._length, dtype=np.int32)
        tokens = stream[starts[:, None] + places].astype(np.int32)  # [rows, length]
        mask = np.ones(tokens.shape, np.float32)
        mask[:, 0] = 0.0  # nothing before it
        positions = np.broadcast_to(places, tokens.shape).copy()
        return TokenBatch(tokens, positions, np.ones(tokens.shape, np.int32), mask)  # pyright: ignore[reportArgumentType]  # numpy until put_batch
