"""The generation engine: requests in, completions out, continuously. A finished sample is replaced while the others go on.

The host knows every row; the device has weights and cache. One round (`step`) seats waiting samples in free slots, reads their
prompts, and decodes up to `decode_steps` tokens for all in one compiled call.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from framework.errors import UserError
from framework.inference.book import LOGGED, Book, OnTokens
from framework.inference.check import check_request, check_tokens
from framework.inference.config import EngineConfig
from framework.inference.device import WATCH_LINES, Device
from framework.inference.schedule import Schedule
from framework.inference.scoring import score_texts
from framework.inference.sequence import Sequence
from framework.inference.types import (
    Ask,
    Completion,
    QueueFull,
    Request,
    Scores,
    TextDecoder,
    Ticket,
    Update,
)
from framework.inference.warm import warm_up
from framework.inference.watch import WatchTable

__all__ = ["Engine", "EngineStats"]

Progress = Callable[[int, int, int], None]

_FORK = 2**31  # numbers of forks begin here, those of samples at 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Counters since the engine was made, and what it does now."""

    slots: int
    free_slots: int
    waiting: int  # samples without a slot
    running: int  # samples with a slot, held ones counted
    held: int
    prompt_tokens: int  # read by prefills; a prompt shared by a group counts once
    generated_tokens: int
    steps: int  # decode steps
    live_steps: int  # sum over the steps of the rows that were live
    calls: int  # compiled decode calls
    retracted: int  # times that a sample gave its pages back and had to wait again

    @property
    def occupancy(self) -> float:
        """Share of the rows of all decode steps that were live."""
        return self.live_steps / max(self.steps * self.slots, 1)


class Engine:
    """Generates with the very module that is trained. Not for several threads at once.

    Args:
        model: the module; see `types.LanguageModel`.
        mesh: where it runs, which may be another mesh than that of training. None: the default device.
        tokenizer: for stop texts and the text of completions.
        ask: looked at after every token, inside the compiled loop; a sample it says yes to waits for `resume`.
    """

    def __init__(
        self,
        model: nnx.Module,
        config: EngineConfig,
        *,
        mesh: Mesh | None = None,
        tokenizer: TextDecoder | None = None,
        ask: Ask | None = None,
    ):
        config.validate()
        self.config, self.mesh = config, mesh
        self.version = 0
        self._device = Device(model, config, mesh, ask)
        self._schedule = Schedule(self._device, config)
        self._watches = WatchTable(WATCH_LINES, self._device.vocab_size)
        self._book = Book(self._schedule, config, self._watches, tokenizer)
        self._steps = self._live_steps = self._calls = 0

    # --- state ---

    @property
    def vocab_size(self) -> int:
        """Tokens of the model."""
        return self._device.vocab_size

    @property
    def budget(self) -> Any:
        """Counts compilations, see `framework.retrace`."""
        return self._device.budget

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs; held samples may be there."""
        return not self._book.news and not self._schedule.busy

    @property
    def stats(self) -> EngineStats:
        """Counters."""
        schedule = self._schedule
        seated = [seq for seq in schedule.seats if seq is not None]
        return EngineStats(
            slots=len(schedule.seats),
            free_slots=len(schedule.seats) - len(seated),
            waiting=len(schedule.waiting),
            running=len(seated),
            held=sum(seq.state == "held" for seq in seated),
            prompt_tokens=schedule.prompt_tokens,
            generated_tokens=self._book.generated,
            steps=self._steps,
            live_steps=self._live_steps,
            calls=self._calls,
            retracted=schedule.retracted,
        )

    def load(self, params: Any, version: int) -> None:
        """Use these weights from now on; `version` travels with each completion.

        They go from the trainer's devices to the engine's without a copy on the host; where they already lie as the engine needs
        them, by reference. Samples under way go on with the new weights and the keys and values of the old ones.
        """
        self._device.load(params)
        self.version = version
        self._schedule.forget()  # prompts of the old weights must not be shared with new samples

    def warmup(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Compile everything now that any request could need; `score` is not among it. `progress(done, of)` is called after each.

        Raises RuntimeError while a sample has a slot: the cache changes its size.
        """
        if self.stats.running:
            raise RuntimeError("warmup() changes the size of the cache. Call it before the first request.")
        warm_up(self._device, self.config, progress)

    # --- whole batches ---

    def generate(
        self,
        requests: Many[Request],
        key: jax.Array | np.ndarray | int,
        *,
        on_tokens: OnTokens | None = None,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Continue every request; completions come in the order of the requests, samples of a request side by side.

        On many hosts every process gives the same requests and gets every completion. `progress(done, of, tokens)` is called
        after every round with finished and all samples, and with all new tokens so far.

        Raises:
            UserError: a request that cannot work; nothing is generated.
            FloatingPointError: the model gave NaN or infinite logits.
        """
        if not self.idle:
            raise RuntimeError(
                "generate() was called while other requests run. Finish them with step(), or abort them."
            )
        for request in requests:
            if request.hold:
                raise UserError(f"request {request.id} has hold=True, which only works with submit() and step().")
        before, base = self._book.generated, _base(key)
        limits = [self._check(request) for request in requests]
        # Those that may become longest first: at the end few slots are left with much to do.
        order = sorted(range(len(requests)), key=lambda i: -limits[i])
        by_place = {i: self._book.hand_in(requests[i], base, limits[i], on_tokens) for i in order}
        tickets = [by_place[i] for i in range(len(requests))]
        own = set(tickets)
        found: dict[tuple[Ticket, int], Completion] = {}
        total = sum(request.samples for request in requests)
        try:
            while len(found) < total:
                for update in self.step():
                    if update.completion is not None:
                        if update.completion.finish_reason == "error":
                            raise FloatingPointError(update.completion.error)
                        if update.ticket in own:  # a call-back may have handed in others
                            found[update.ticket, update.sample] = update.completion
                if self.idle and len(found) < total:
                    raise UserError(
                        "A sample waits for resume(), which generate() does not call. Use submit() and step()."
                    )
                if progress is not None:
                    progress(len(found), total, self._book.generated - before)
        finally:
            if len(found) < total:
                for ticket in tickets:
                    self.abort(ticket)
                self._book.news = [update for update in self._book.news if update.ticket not in own]
                self._book.forget(tickets)
        return [found[t, s] for t, request in zip(tickets, requests, strict=True) for s in range(request.samples)]

    def score(self, texts: Many[Many[int]], *, temperature: float = 1.0) -> list[Scores]:
        """Log-probability and entropy of every token of each text but its first: teacher forcing, by the training forward.

        Raises:
            UserError: a text that is empty or longer than `max_length`, tokens that the model does not have, temperature <= 0.
        """
        if not temperature > 0:
            raise UserError(f"score() got temperature={temperature}. Use a positive number.")
        for number, tokens in enumerate(texts):
            if not 0 < len(tokens) <= self.config.max_length:
                raise UserError(
                    f"text {number} has {len(tokens)} tokens. Give 1 to engine.max_length={self.config.max_length}."
                )
            check_tokens(tokens, f"text {number}", self.vocab_size)
        return score_texts(self._device, self.config, texts, temperature)

    # --- one at a time ---

    def submit(self, request: Request, key: jax.Array | np.ndarray | int, on_tokens: OnTokens | None = None) -> Ticket:
        """Queue a request. `on_tokens` is called with each of its updates at the end of the round that made it.

        Raises:
            UserError: a request that cannot work.
            QueueFull: more than `config.max_queue` samples would wait.
        """
        limit = self._check(request)
        room = sum(seq is None for seq in self._schedule.seats)
        waiting = len(self._schedule.waiting) + request.samples - room
        if self.config.max_queue is not None and waiting > self.config.max_queue:
            raise QueueFull(
                f"{len(self._schedule.waiting)} samples wait, and engine.max_queue={self.config.max_queue}. Try again later."
            )
        return self._book.hand_in(request, _base(key), limit, on_tokens)

    def step(self) -> list[Update]:
        """One round: seat, read prompts, decode once. Returns what is new; nothing when the engine is idle.

        Raises:
            RuntimeError: held samples leave no slot or page for those that wait.
        """
        if self._schedule.busy:
            try:
                self._round()
            except BaseException:
                if self._device.recover():  # the call that was interrupted has taken the cache with it
                    self._schedule.read_again()
                raise
        told: list[Update] = []
        try:
            for _ in range(len(self._book.news)):  # what call-backs cause comes next time
                told.append(self._book.news.pop(0))
                callback = self._book.callbacks.get(told[-1].ticket)
                if callback is not None:
                    callback(told[-1])
        finally:  # one that raises loses its own update, and nobody else's
            self._book.forget({update.ticket for update in told if update.completion is not None})
        return told

    def abort(self, ticket: Ticket, sample: int | None = None) -> None:
        """End a request, or one sample of it, now. The next `step` has the completions, with what there is."""
        for seq in self._book.tickets.get(ticket, ()):
            if seq.state != "done" and sample in (None, seq.sample):
                self._book.end(seq, "abort")
        self._book.forget([ticket])

    # --- samples that are held ---

    def resume(
        self,
        ticket: Ticket,
        sample: int,
        *,
        token: int | None = None,
        tokens: Many[int] = (),
        max_tokens: int | None = None,
    ) -> None:
        """Let a held sample go on.

        Args:
            token: put in the place of its last one (which no cache has seen yet).
            tokens: added behind, as if it had drawn them. The log-probabilities of all tokens put in by hand are nan.
            max_tokens: at most so many more new tokens; None: what is left of the request's.
        """
        seq = self._held(ticket, sample)
        added = [*([] if token is None else [token]), *tokens]
        if any(not 0 <= t < self.vocab_size for t in added):
            raise UserError(f"resume() got tokens {added}, but the model has 0 to {self.vocab_size - 1}.")
        if token is not None and not seq.tokens:
            raise UserError("resume() cannot replace a token: this sample has drawn none yet.")
        self._limit(seq, max_tokens, more=len(tokens))
        if token is not None:
            seq.tokens[-1] = int(token)
            seq.log.forget_last(LOGGED)
        seq.tokens.extend(int(t) for t in tokens)
        if tokens:
            seq.log.add(self._unknown(seq.request, len(tokens)))
        seq.limit = self._limit(seq, max_tokens)
        if seq.stream is not None:
            if seq.ending is None and token is None:
                seq.unsaid += seq.stream.push(list(tokens))
            else:
                self._restart_text(seq)
        self._schedule.restart(seq)

    def fork(self, ticket: Ticket, sample: int, count: int, *, max_tokens: int | None = None) -> list[int]:
        """`count` new samples that go on from where a sample is now, each with randomness of its own; returns their numbers.

        The sample itself stays as it is, held or running. A fork shares its cache; where no slot is free it waits for one.
        `max_tokens`: at most so many more new tokens; None: what is left of the request's.
        """
        seq = self._alive(ticket, sample)
        if count < 1:
            raise UserError(f"fork() got count={count}. Use at least 1.")
        if seq.request.group is not None:
            raise UserError(
                "A sample of a group cannot be forked: the group would not know how long the fork was. Leave one out."
            )
        limit = self._limit(seq, max_tokens)
        siblings = self._book.tickets[ticket]
        base = _fold(seq.key, _FORK + len(seq.tokens))
        first = max(other.sample for other in siblings) + 1
        forks = []
        for i in range(count):
            fork = dataclasses.replace(
                seq,
                sample=first + i,
                key=(base, first + i, 0),
                tokens=seq.tokens.copy(),
                log=seq.log.copy(),
                stream=None if seq.stream is None else seq.stream.copy(),
                limit=limit,
                ending=None,
                watch=self._book.watch_line(seq.request),
                state="waiting",
                slot=None,
                filled=0,
            )
            if seq.ending is not None:  # it was said to its end
                self._restart_text(fork)
            forks.append(fork)
        siblings.extend(forks)
        self._schedule.fork(seq, forks)
        return [fork.sample for fork in forks]

    def release(self, ticket: Ticket, sample: int) -> None:
        """Let go of a held sample: its slot is free. Its completion was given when it ended."""
        self._book.close(self._held(ticket, sample))
        self._book.forget([ticket])

    def commit(self, ticket: Ticket, sample: int) -> None:
        """Keep one sample and let go of all others of its request, without completions for those that still ran."""
        self._alive(ticket, sample)
        for seq in self._book.tickets[ticket]:
            if seq.sample != sample and seq.state != "done":
                self._book.close(seq)

    # --- inside ---

    def _round(self) -> None:
        schedule = self._schedule
        before = schedule.progress
        schedule.fill()
        if self._watches.changed:
            self._device.watch(self._watches.table)
            self._watches.changed = False
        rows, running = schedule.rows()
        if running:
            out = self._device.decode(rows, schedule.enough)
            self._steps += int(out.steps)
            self._live_steps += int(out.live_steps)
            self._calls += 1
            self._book.take(running, out, self.version)
        elif before == schedule.progress and schedule.busy and not self._book.news:
            held = sum(seq is not None for seq in schedule.seats)
            raise RuntimeError(
                f"{len(schedule.waiting)} samples wait, but {held} held ones take all slots or pages. Release some of them."
            )

    def _check(self, request: Request) -> int:
        return check_request(
            request, self.config, vocab_size=self.vocab_size, has_text=self._book.tokenizer is not None
        )

    def _unknown(self, request: Request, count: int) -> dict[str, np.ndarray]:
        """What is logged of tokens that were put in by hand."""
        nothing = lambda *shape: np.full((count, *shape), np.nan, np.float32)  # noqa: E731
        found = {name: nothing() for name in LOGGED}
        if most := request.top_logprobs:
            found |= {"top_tokens": np.full((count, most), -1, np.int32), "top_logp": nothing(most)}
        return found | ({"hidden": nothing(self._device.width)} if self.config.keep_hidden else {})

    def _restart_text(self, seq: Sequence) -> None:
        """The text goes on behind a stop text, or with another last token; what was not said of it comes with the next update."""
        if seq.stream is not None:
            said = seq.stream.text
            seq.stream = seq.stream.after(seq.tokens)
            seq.unsaid = seq.stream.text[len(said) :] if seq.stream.text.startswith(said) else ""

    def _limit(self, seq: Sequence, max_tokens: int | None, more: int = 0) -> int:
        """Most new tokens in all, `more` of them put in by hand."""
        room = self.config.max_length - seq.length - more
        left = seq.limit - len(seq.tokens) - more if max_tokens is None else max_tokens
        if not 1 <= left <= room:
            raise UserError(f"This sample can have {room} more tokens, not {left}. Give max_tokens from 1 to {room}.")
        return len(seq.tokens) + left

    def _alive(self, ticket: Ticket, sample: int) -> Sequence:
        found = next(
            (seq for seq in self._book.tickets.get(ticket, ()) if seq.sample == sample and seq.state != "done"), None
        )
        if found is None:
            raise UserError(f"Sample {sample} of request {ticket.request.id} is not there any more, or never was.")
        return found

    def _held(self, ticket: Ticket, sample: int) -> Sequence:
        seq = self._alive(ticket, sample)
        if seq.state != "held":
            raise UserError(
                f"Sample {sample} of request {ticket.request.id} is {seq.state}, not held. Only a sample that ended by itself and "
                "whose request has hold=True, or that was asked about, can be resumed or released."
            )
        return seq


def _base(key: jax.Array | np.ndarray | int) -> np.ndarray:
    """[2] uint32: the key that the numbers of request and sample are folded into. All 64 bits of a whole number count."""
    if isinstance(key, int | np.integer):
        return np.array([(int(key) >> 32) & 0xFFFFFFFF, int(key) & 0xFFFFFFFF], np.uint32)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(key))
        return data if data.shape == (2,) else np.asarray(jax.random.bits(key, (2,), np.uint32))
    return np.asarray(key, np.uint32)


def _fold(key: tuple[np.ndarray, int, int], number: int) -> np.ndarray:
    """The key of a row with one more number folded in, [2] uint32."""
    base, *numbers = key
    folded = jax.random.wrap_key_data(jnp.asarray(base), impl="threefry2x32")
    for n in (*numbers, number):
        folded = jax.random.fold_in(folded, n)
    return np.asarray(jax.random.key_data(folded))
