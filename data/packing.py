"""Token examples laid out in rows of a fixed length: batch = f(seed, step), every example once an epoch.

    stream = packed_stream(examples, rows=16, length=512, seed=0)
    stream[1000]                      # TokenBatch of numpy arrays, no matter which steps were read before
    stream.stats.efficiency           # share of the places that hold a token

Every epoch has the same number of rows, so the epoch and the row of any step are plain arithmetic and nothing is replayed.
That is why rows are planned on lengths alone: best fit, longest first, gives one plan for all epochs. An epoch then draws
which of the examples of a length takes which place of that length, and the order of the rows.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from framework.batch import TokenBatch, TokenExample
from framework.errors import UserError

__all__ = ["PackedStream", "PackingStats", "TooLong", "packed_stream"]

TooLong = Literal["truncate", "drop"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingStats:
    """What became of the examples. `given` = `used` + `dropped_long` + `dropped_unlearnt`."""

    given: int
    used: int
    truncated: int
    """Cut on the right because they were longer than a row; among `used`."""
    dropped_long: int
    """Longer than a row, left out because of `too_long="drop"`."""
    dropped_unlearnt: int
    """Without a token to learn, or without one after they were cut."""
    tokens: int
    """Tokens an epoch."""
    learnt: int
    """Learnt tokens an epoch."""
    rows: int
    """Rows an epoch."""
    efficiency: float
    """Share of the places of an epoch's rows that hold a token; the rest is padding."""
    steps: float
    """Batches an epoch; where it is not whole, a batch holds the end of one epoch and the start of the next."""

    def metrics(self) -> dict[str, float]:
        """The numbers worth logging."""
        return {
            "data/packing_efficiency": self.efficiency,
            "data/learnt_frac": self.learnt / self.tokens,
            "data/epoch_steps": self.steps,
            "data/truncated": float(self.truncated),
            "data/dropped": float(self.dropped_long + self.dropped_unlearnt),
        }

    def __str__(self) -> str:
        text = (
            f"{self.used:,} examples, {self.tokens:,} tokens ({self.learnt:,} learnt) in {self.rows:,} rows, "
            f"{self.efficiency:.1%} full, {self.steps:,.1f} steps an epoch"
        )
        for count, what in (
            (self.truncated, "cut to the length of a row"),
            (self.dropped_long, "dropped as longer than a row"),
            (self.dropped_unlearnt, "dropped without a token to learn"),
        ):
            text += f"; {count:,} {what}" if count else ""
        return text


def packed_stream(
    examples: Sequence[TokenExample],
    rows: int,
    length: int,
    seed: int,
    *,
    packing: bool = True,
    too_long: TooLong = "truncate",
    pad_id: int = 0,
) -> "PackedStream":
    """An endless `Stream[TokenBatch]` of `rows` x `length` tokens, in a new order every epoch.

    With `packing`, a row holds as many examples as fit; without, one. An example without a token to learn is left out, so
    no batch is without one. What was cut or left out is counted in `stream.stats`: print it.

    Raises:
        UserError: sizes that make no batch, or examples of which none is left.
    """
    if rows < 1:
        raise UserError(f"rows={rows} makes no batch. Use 1 or more.")
    if length < 2:
        raise UserError(f"length={length} leaves no token to predict from the one before it. Use 2 or more.")
    if too_long not in ("truncate", "drop"):
        raise UserError(f"too_long={too_long!r} is not known. Use 'truncate' or 'drop'.")
    kept: list[TokenExample] = []
    truncated = dropped_long = dropped_unlearnt = longest = 0
    for number, example in enumerate(examples):
        if example.tokens.ndim != 1 or example.tokens.shape != example.learn.shape:
            raise ValueError(
                f"Example {number} has tokens {list(example.tokens.shape)} and learn {list(example.learn.shape)}. "
                "Give both as [N], one truth value for each token."
            )
        size = len(example.tokens)
        longest = max(longest, size)
        if size > length and too_long == "drop":
            dropped_long += 1
        elif not example.learn[1:length].any():
            dropped_unlearnt += 1
        else:
            truncated += size > length
            kept.append(example)
    if not kept:
        why = [f"{dropped_long} longer than length={length}"] * (dropped_long > 0)
        why += [f"{dropped_unlearnt} without a token to learn in their first {length}"] * (dropped_unlearnt > 0)
        raise UserError(
            f"None of {len(examples)} examples is left to train on" + (f" ({', '.join(why)})" if why else "") + ". "
            f"Use length={max(longest, 2)} or data with assistant turns."
            if examples
            else "There are no examples to train on. Give at least one conversation."
        )
    sizes = np.minimum([len(example.tokens) for example in kept], length).astype(np.int64)
    tokens = np.concatenate([example.tokens[:length] for example in kept]).astype(np.int32)
    learn = np.concatenate([example.learn[:length] for example in kept]).astype(bool)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    learn[starts[:-1]] = False
    places = _best_fit(sizes, length) if packing else np.arange(len(sizes))
    count = int(places.max()) + 1
    stats = PackingStats(
        given=len(examples),
        used=len(kept),
        truncated=truncated,
        dropped_long=dropped_long,
        dropped_unlearnt=dropped_unlearnt,
        tokens=len(tokens),
        learnt=int(learn.sum()),
        rows=count,
        efficiency=len(tokens) / (count * length),
        steps=count / rows,
    )
    return PackedStream(tokens, learn, starts, places, rows=rows, length=length, seed=seed, pad_id=pad_id, stats=stats)


def _best_fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """The row of every place, places in order of falling size: each goes where the least room is left.

    Rows with the same room are interchangeable, so a list of rows for each amount of room is all there is to search. The bits
    of `rooms` say which lists are not empty; its lowest bit from `size` on is the best fit.
    """
    rows_of_room: list[list[int]] = [[] for _ in range(length + 1)]
    rooms, count = 0, 0
    places = np.empty(len(sizes), np.int64)
    for place, size in enumerate(np.sort(sizes)[::-1].tolist()):
        fits = rooms >> size
        if fits:
            room = size + (fits & -fits).bit_length() - 1
            row = rows_of_room[room].pop()
            if not rows_of_room[room]:
                rooms ^= 1 << room
        else:
            room, row = length, count
            count += 1
        places[place] = row
        left = room - size
        if left:
            rows_of_room[left].append(row)
            rooms |= 1 << left
    return places


class PackedStream:
    """Made by `packed_stream`. Implements `Stream[TokenBatch]`."""

    def __init__(
        self,
        tokens: np.ndarray,  # all examples one after the other
        learn: np.ndarray,
        starts: np.ndarray,  # [examples + 1], where each begins
        places: np.ndarray,  # [examples], row of each place, places in order of falling size
        *,
        rows: int,
        length: int,
        seed: int,
        pad_id: int,
        stats: PackingStats,
    ):
        self.stats = stats
        self._tokens, self._learn, self._starts = tokens, learn, starts
        self._rows, self._length, self._seed, self._pad_id = rows, length, seed, pad_id
        self._sizes = np.diff(starts)
        self._place_order = np.argsort(places, kind="stable")  # places row by row
        self._row_starts = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=stats.rows))])
        self._plan = functools.lru_cache(maxsize=4)(self._make_plan)  # neighbouring steps read the same epochs

    def __getitem__(self, step: int, /) -> TokenBatch:
        """The batch of step 0, 1, ...: numpy arrays, which `framework.mesh.put_batch` puts on the devices."""
        if step < 0:
            raise IndexError(f"step={step} is before the start of the data. Use 0 or more.")
        return self._batch([self.examples_of(step, row) for row in range(self._rows)])

    def one_pass(self) -> Iterator[TokenBatch]:
        """Every example once, in the order of the first epoch: for evaluation. Rows missing in the last batch are padding."""
        for start in range(0, self.stats.rows, self._rows):
            rows = range(start, min(start + self._rows, self.stats.rows))
            yield self._batch([self.examples_of(0, row) for row in rows])

    def _batch(self, rows: Sequence[np.ndarray]) -> TokenBatch:
        shape = (self._rows, self._length)
        tokens = np.full(shape, self._pad_id, np.int32)
        positions, segment_ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, examples in enumerate(rows):
            at = 0
            for segment, example in enumerate(examples, start=1):
                start, stop = int(self._starts[example]), int(self._starts[example + 1])
                here = slice(at, at + stop - start)
                tokens[row, here] = self._tokens[start:stop]
                positions[row, here] = np.arange(stop - start)
                segment_ids[row, here] = segment
                mask[row, here] = self._learn[start:stop]
                at = here.stop
        return TokenBatch(tokens, positions, segment_ids, mask)  # pyright: ignore[reportArgumentType]  # numpy until put_batch

    def examples_of(self, step: int, row: int) -> np.ndarray:
        """Numbers, among the examples that are used, of those in this row of this step's batch."""
        epoch, index = divmod(step * self._rows + row, self.stats.rows)
        row_order, examples = self._plan(epoch)
        chosen = row_order[index]
        return examples[self._row_starts[chosen] : self._row_starts[chosen + 1]]

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(order of the rows, example of every place row by row) of an epoch; a function of (seed, epoch)."""
        rng = np.random.default_rng([abs(self._seed), self._seed < 0, epoch])
        order = rng.permutation(len(self._sizes))
        by_size = order[np.argsort(-self._sizes[order], kind="stable")]  # a random example for every place of its size
        return rng.permutation(self.stats.rows), by_size[self._place_order]
