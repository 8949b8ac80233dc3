"""What was handed in and what has become of it: the samples of each request, the rules that end them, and the news of a round."""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many

import numpy as np

from framework.inference.config import EngineConfig
from framework.inference.decode import ENDED, Decoded
from framework.inference.groups import Group
from framework.inference.schedule import Schedule
from framework.inference.sequence import Ending, Sequence
from framework.inference.text import TextStream, token_texts, watch_mask
from framework.inference.types import FinishReason, Request, TextDecoder, Ticket, Update
from framework.inference.watch import WatchTable

__all__ = ["LOGGED", "Book", "OnTokens"]

LOGGED = ("logp", "logp_untempered", "entropy")
"""Fields of `sequence.Log` that every token has."""

OnTokens = Callable[[Update], None]


class Book:
    """Tickets with their samples until the last of them is done."""

    def __init__(self, schedule: Schedule, config: EngineConfig, watches: WatchTable, tokenizer: TextDecoder | None):
        self.schedule, self.config, self.watches, self.tokenizer = schedule, config, watches, tokenizer
        self.tickets: dict[Ticket, list[Sequence]] = {}
        self.groups: dict[Ticket, Group] = {}
        self.callbacks: dict[Ticket, OnTokens] = {}
        self.news: list[Update] = []
        self.generated = self._handed_in = 0
        self._texts: list[str] | None = None

    # --- coming in ---

    def hand_in(self, request: Request, base: np.ndarray, limit: int, on_tokens: OnTokens | None) -> Ticket:
        """New samples behind all that wait."""
        ticket = Ticket(request)
        self._handed_in += 1
        stops = (*request.stop_tokens, *(() if request.ignore_stop else self.config.stop_tokens))
        self.tickets[ticket] = [
            Sequence(
                ticket=ticket,
                sample=sample,
                key=(base, int(request.id), sample),
                limit=limit,
                stops=tuple(dict.fromkeys(stops)),
                order=self._handed_in,
                stream=self._stream(request),
                watch=self.watch_line(request),
            )
            for sample in range(request.samples)
        ]
        if on_tokens is not None:
            self.callbacks[ticket] = on_tokens
        if request.group is not None:
            self.groups[ticket] = Group(request.group.count)
        self.schedule.add(self.tickets[ticket])
        return ticket

    def _stream(self, request: Request) -> TextStream | None:
        if self.tokenizer is None:
            return None
        return TextStream(self.tokenizer.decode, request.stop, min_tokens=request.min_tokens)

    def watch_line(self, request: Request) -> int:
        """The line of the watch table with the tokens after which a sample of this request has to be looked at."""
        if not request.stop and request.group is None:
            return 0
        return self.watches.line(*self._watch_of(request))

    def _watch_of(self, request: Request) -> tuple[object, Callable[[], np.ndarray]]:
        closing = None if request.group is None else request.group.token
        vocab_size = self.watches.table.shape[1]

        def mask() -> np.ndarray:
            found = np.zeros(vocab_size, bool)
            if request.stop and self.tokenizer is not None:
                if self._texts is None:
                    self._texts = token_texts(self.tokenizer, vocab_size)  # pyright: ignore[reportArgumentType]
                found = watch_mask(vocab_size, self._texts.__getitem__, request.stop)
            if closing is not None:
                found[closing] = True
            return found

        return (request.stop, closing), mask

    # --- new tokens ---

    def take(self, running: Many[Sequence], out: Decoded, version: int) -> None:
        """Give every sample its new tokens, then end those that have ended."""
        for seq in running:
            b = seq.slot
            n = int(out.length[b])
            new = {name: np.asarray(getattr(out, name)[b, :n]) for name in ("tokens", *LOGGED)}
            if most := seq.request.top_logprobs:
                new |= {name: np.asarray(getattr(out, name)[b, :n, :most]) for name in ("top_tokens", "top_logp")}
            kept = {"hidden": np.asarray(out.hidden[b, :n])} if self.config.keep_hidden else {}
            seq.log.add({name: value for name, value in (new | kept).items() if name != "tokens"})
            self.generated += n
            seq.filled += n
            seq.version = version
            if seq.request.group is not None:
                closing = np.flatnonzero(new["tokens"] == seq.request.group.token)
                if len(closing):
                    self.groups[seq.ticket].close(seq.sample, len(seq.tokens) + int(closing[0]))
            seq.tokens.extend(new["tokens"].tolist())
            self._settle(seq, new, ENDED[int(out.ended[b])], bool(out.asked[b]))
        for ticket in {seq.ticket for seq in running if seq.ticket in self.groups}:
            self._cut(ticket)

    def _settle(self, seq: Sequence, new: dict[str, np.ndarray], ended: str, asked: bool) -> None:
        """One sample after a call: its text, then the first rule that ends it."""
        text = None
        if seq.stream is not None:
            text = seq.unsaid + seq.stream.push(new["tokens"][:-1] if ended == "stop" else new["tokens"])
            seq.unsaid = ""
            if seq.stream.stopped is not None:
                self.end(seq, "stop", stop=seq.stream.stopped[1], new=new, text=text)
                return
        if ended == "stop":
            self.end(seq, "stop", stop=seq.tokens[-1], new=new, text=text)
        elif ended == "error":
            message = (
                f"the model gave NaN or infinite logits while generating (weights version {seq.version}). "
                "The weights are damaged: go back to an earlier checkpoint and lower the learning rate."
            )
            self.end(seq, "error", error=message, new=new, text=text)
        elif ended == "length" and len(seq.tokens) >= seq.limit:
            self.end(seq, "length", new=new, text=text)
        else:
            if asked:
                seq.state = "held"
            self.news.append(seq.update(new, text=text, asked=asked))

    def _cut(self, ticket: Ticket) -> None:
        """End the samples of a group that can no longer be among its shortest."""
        group = self.groups[ticket]
        for seq in self.tickets[ticket]:
            if seq.state == "done":
                continue
            seq.cap = None
            if group.ends(seq.sample, len(seq.tokens)) is not None:
                self.end(seq, "group")
            elif group.longest is not None and seq.sample not in group.closed:
                seq.cap = group.longest + 1

    # --- going out ---

    def end(
        self,
        seq: Sequence,
        reason: FinishReason,
        *,
        stop: int | str | None = None,
        error: str | None = None,
        new: dict[str, np.ndarray] | None = None,
        text: str | None = None,
    ) -> None:
        """A sample has ended: its completion is in the news, its slot is free unless the request holds it."""
        if seq.stream is not None:
            text = seq.unsaid + (text or "") + seq.stream.finish()
            seq.unsaid = ""
        if reason in ("stop", "length") and seq.request.hold:
            seq.state = "held"
        else:
            self.close(seq)
        if seq.ending is not None and seq.ticket not in self.groups:  # held, and its completion was given when it ended
            return
        seq.ending = Ending(reason, stop, error)
        if seq.ticket in self.groups:
            self.news.append(seq.update(new, text=text))
            self._end_group(seq.ticket)
        else:
            self.news.append(seq.update(new, text=text, completion=seq.completion()))

    def _end_group(self, ticket: Ticket) -> None:
        """The completions of a group come together, when its last sample has ended: only then is it known which are shortest."""
        members, group = self.tickets[ticket], self.groups[ticket]
        if any(seq.ending is None and seq.state != "done" for seq in members):
            return
        for seq in members:
            if seq.ending is None:  # `commit` let go of it
                continue
            length = group.ends(seq.sample, len(seq.tokens))
            if length is not None and seq.ending.reason not in ("abort", "error"):
                seq.ending = Ending("group", length=length)
            self.news.append(seq.update(completion=seq.completion(self.tokenizer)))

    def close(self, seq: Sequence) -> None:
        """The sample is over: its slot is free."""
        self.schedule.remove(seq)
        if seq.watch:
            self.watches.release(self._watch_of(seq.request)[0], seq.watch)
            seq.watch = 0

    def forget(self, tickets: Iterable[Ticket]) -> None:
        """Strike out requests whose samples are all done and have said so."""
        pending = {update.ticket for update in self.news}
        for ticket in tickets:
            if ticket not in pending and all(seq.state == "done" for seq in self.tickets.get(ticket, ())):
                for table in (self.tickets, self.groups, self.callbacks):
                    table.pop(ticket, None)
