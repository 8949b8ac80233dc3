"""Who sits where: seats samples in the slots of the cache, reads their prompts, and says what each row does next."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence as Many

import numpy as np

from framework.inference.config import EngineConfig
from framework.inference.decode import Rows
from framework.inference.device import Device
from framework.inference.memory import Memory
from framework.inference.rows import as_rows, flat_arrays, row_table
from framework.inference.sequence import Sequence
from framework.inference.types import Ticket

__all__ = ["Schedule"]


class Schedule:
    """Seats are slots of the cache, split over the shards. Samples wait in the order they came; none overtakes the first one."""

    def __init__(self, device: Device, config: EngineConfig):
        self.device, self.config = device, config
        self.waiting: collections.deque[Sequence] = collections.deque()
        self.seats: list[Sequence | None] = [None] * device.rows
        self.prompt_tokens = self.retracted = 0
        self._memory: Memory = device.memory
        self._per_shard = device.rows // device.shards
        # Longest free first: what a slot held last stays readable a while for others of the same request.
        self._free = [
            collections.deque(range(r * self._per_shard, (r + 1) * self._per_shard)) for r in range(device.shards)
        ]
        self._prefix: dict[int, tuple[Ticket, int]] = {}  # slot -> whose prompt it holds, and how many tokens of it
        self._table = row_table(device.rows, config.max_stop_tokens)

    # --- what there is ---

    @property
    def busy(self) -> bool:
        """Something waits or runs; held samples do not count."""
        return bool(self.waiting) or any(seq is not None and seq.state != "held" for seq in self.seats)

    @property
    def enough(self) -> int:
        """After how many ended rows a call should come back: few when others wait for a slot, so that none stays empty long."""
        return max(1, self.device.rows // 16) if self.waiting else self.device.rows + 1

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Behind all that wait."""
        self.waiting.extend(sequences)

    def remove(self, seq: Sequence) -> None:
        """Wherever it is: it is done."""
        if seq.slot is None:
            if seq.state == "waiting":
                self.waiting.remove(seq)
        else:
            self._leave(seq)
        seq.state = "done"

    def restart(self, seq: Sequence) -> None:
        """A held sample goes on."""
        seq.state = "running" if seq.unfilled == 0 else "filling"
        seq.ending = None
        self._write_row(seq)

    def fork(self, seq: Sequence, forks: Many[Sequence]) -> None:
        """Seat forks beside their origin, sharing its cache, while slots are free; the others wait and read it again."""
        copies: list[tuple[int, int]] = []
        for fork in forks:
            # Of one that is half read there is nothing to share yet.
            shard = None if seq.slot is None or seq.unfilled else self._shard(seq.slot)
            pairs = None
            if shard is not None and self._free[shard]:
                slot = self._free[shard][0]
                pairs = self._memory.share(seq.slot, slot, seq.filled)  # pyright: ignore[reportArgumentType]
            if pairs is None or shard is None:
                self.waiting.append(fork)
                continue
            self._sit(fork, self._free[shard].popleft())
            fork.filled = seq.filled
            copies += pairs
            self.restart(fork)
        if copies:
            shard = self._shard(seq.slot)  # pyright: ignore[reportArgumentType]
            self.device.copy([copies if r == shard else [] for r in range(self.device.shards)])

    def forget(self) -> None:
        """The weights have changed: prompts that were read are not shared any more, and those that are half read begin again."""
        self._prefix.clear()
        for seq in self.seats:
            if seq is not None and seq.state == "filling" and not seq.tokens:
                seq.filled = 0

    def read_again(self) -> None:
        """The cache is lost: everybody who has a seat reads its tokens again, held samples when they go on."""
        self._prefix.clear()
        for seq in self.seats:
            if seq is not None:
                seq.filled = 0
                if seq.state == "running" and seq.unfilled:
                    seq.state = "filling"

    # --- seats ---

    def _shard(self, slot: int) -> int:
        return slot // self._per_shard

    def _sit(self, seq: Sequence, slot: int) -> None:
        seq.slot, self.seats[slot] = slot, seq
        self._prefix.pop(slot, None)
        self._write_row(seq)

    def _leave(self, seq: Sequence) -> None:
        slot = seq.slot
        assert slot is not None
        self.seats[slot], seq.slot = None, None
        self._memory.free(slot)
        if not self._memory.keeps:
            self._prefix.pop(slot, None)
        self._table["live"][slot] = False
        self._free[self._shard(slot)].append(slot)

    def _seat_waiting(self) -> None:
        while self.waiting and any(self._free):
            seq = self.waiting[0]
            if not self._seat(seq):
                return
            self.waiting.popleft()

    def _seat(self, seq: Sequence) -> bool:
        own = [slot for free in self._free for slot in free if self._holds_prompt(slot, seq)]
        if own and self._memory.keeps:  # a free slot that still holds this very prompt
            slot = own[0]
            self._free[self._shard(slot)].remove(slot)
            prefix = self._prefix[slot]
            self._sit(seq, slot)
            self._prefix[slot] = prefix
            seq.filled = seq.length - 1
        else:
            for shard in sorted(range(len(self._free)), key=lambda r: -len(self._free[r])):
                if self._free[shard] and self._memory.ensure(self._free[shard][0], self._first_need(seq, shard)):
                    self._sit(seq, self._free[shard].popleft())
                    break
            else:
                return False
        seq.state = "running" if seq.unfilled == 0 else "filling"
        self._write_row(seq)
        return True

    def _first_need(self, seq: Sequence, shard: int) -> int:
        """Places to have before it is seated: none for one that will share its prompt."""
        return 0 if self._source(seq, shard) is not None else seq.length + 1

    def _holds_prompt(self, slot: int, seq: Sequence) -> bool:
        return not seq.tokens and self._prefix.get(slot) == (seq.ticket, len(seq.request.prompt) - 1)

    def _source(self, seq: Sequence, shard: int) -> int | None:
        """A slot of the shard that holds the prompt of this sample."""
        if seq.tokens:
            return None
        slots = range(shard * self._per_shard, (shard + 1) * self._per_shard)
        return next((s for s in slots if s != seq.slot and self._holds_prompt(s, seq)), None)

    # --- reading prompts ---

    @property
    def progress(self) -> tuple[int, int]:
        """Changes when somebody was seated for good, or something was read."""
        return len(self.waiting), self.prompt_tokens

    def fill(self) -> None:
        """Seat what waits and read prompts. Rows that can be decoded now do not wait for more than one call of it."""
        self._seat_waiting()
        self._fit_cache()
        stalls = any(seq is not None and seq.state == "running" for seq in self.seats)
        while True:
            self._share_prompts()
            leaders = self._leaders()
            if not any(leaders):
                break
            first = min((seqs[0] for seqs in leaders if seqs), key=lambda seq: (seq.filled == 0, seq.slot))
            if self._is_short(first):
                self._read_flat(leaders)
            else:
                self._read_part(leaders)
            if stalls:
                self._share_prompts()
                break

    def _is_short(self, seq: Sequence) -> bool:
        return seq.filled == 0 and seq.unfilled <= self.config.prefill_tokens

    def _leaders(self) -> list[list[Sequence]]:
        """By shard, the samples whose tokens have to be read: one for each prompt."""
        leaders: list[dict[object, Sequence]] = [{} for _ in range(self.device.shards)]
        for seq in self.seats:
            if seq is not None and seq.state == "filling":
                name = id(seq) if seq.tokens else seq.ticket
                mine = leaders[self._shard(seq.slot)]  # pyright: ignore[reportArgumentType]
                if name not in mine or seq.filled > mine[name].filled:
                    mine[name] = seq
        return [list(mine.values()) for mine in leaders]

    def _share_prompts(self) -> None:
        """Give samples the prompt that another one of their request has read."""
        pairs: list[list[tuple[int, int]]] = [[] for _ in range(self.device.shards)]
        given: list[Sequence] = []  # no source for others yet: all copies are made at the same moment
        for seq in self.seats:
            if seq is None or seq.state != "filling" or seq.tokens or seq.filled:
                continue
            shard = self._shard(seq.slot)  # pyright: ignore[reportArgumentType]
            source = self._source(seq, shard)
            if source is None:
                continue
            self._memory.free(seq.slot)  # pyright: ignore[reportArgumentType]
            shared = self._memory.share(source, seq.slot, seq.length - 1)  # pyright: ignore[reportArgumentType]
            if shared is None:
                self._retract(seq)
                continue
            pairs[shard] += shared
            given.append(seq)
        self.device.copy(pairs)
        for seq in given:
            self._filled(seq, seq.length - 1)

    def _filled(self, seq: Sequence, places: int) -> None:
        assert seq.slot is not None
        seq.filled = places
        if seq.unfilled == 0:
            seq.state = "running"
            if not seq.tokens:
                self._prefix[seq.slot] = (seq.ticket, places)
            self._write_row(seq)

    def _read_flat(self, leaders: Many[Many[Sequence]]) -> None:
        """Short prompts one after another in one row a shard, as many as `prefill_tokens` holds."""
        chosen: list[list[Sequence]] = []
        for seqs in leaders:
            mine, used = [], 0
            for seq in seqs:
                fits = used + seq.unfilled <= self.config.prefill_tokens
                if self._is_short(seq) and fits and self._has_places(seq):
                    mine.append(seq)
                    used += seq.unfilled
            chosen.append(mine)
        used = max(sum(seq.unfilled for seq in mine) for mine in chosen)
        if not used:
            return
        size = next(n for n in self.config.prefill_lengths if n >= used)
        tokens, positions, segments, rows = flat_arrays(self.device.shards, size, self.config.pad_token)
        for r, mine in enumerate(chosen):
            at = 0
            for number, seq in enumerate(mine, start=1):
                n = seq.unfilled
                tokens[r, at : at + n] = seq.context(0, n)
                positions[r, at : at + n] = np.arange(n)
                segments[r, at : at + n] = number
                rows[r, at : at + n] = seq.slot % self._per_shard  # pyright: ignore[reportOptionalOperand]
                at += n
                self.prompt_tokens += n
        self._fit_cache()
        self.device.prefill(tokens, positions, segments, rows)
        for seq in (seq for mine in chosen for seq in mine):
            self._filled(seq, seq.length - 1)

    def _read_part(self, leaders: Many[Many[Sequence]]) -> None:
        """The next tokens of one longer sample a shard."""
        chosen = [next((seq for seq in seqs if not self._is_short(seq)), None) for seqs in leaders]
        chosen = [seq if seq is not None and self._has_places(seq) else None for seq in chosen]
        most = max((seq.unfilled for seq in chosen if seq is not None), default=0)
        if not most:
            return
        lengths = self.config.prefill_lengths
        size = lengths[0] if most <= lengths[0] else lengths[-1]
        rows = np.full(self.device.shards, -1, np.int32)
        tokens, positions, _, _ = flat_arrays(self.device.shards, size, self.config.pad_token)
        positions[:] = -1
        parts: list[tuple[Sequence, int]] = []
        for r, seq in enumerate(chosen):
            if seq is None:
                continue
            n = min(seq.unfilled, size)
            rows[r] = seq.slot % self._per_shard  # pyright: ignore[reportOptionalOperand]
            tokens[r, :n] = seq.context(seq.filled, seq.filled + n)
            positions[r, :n] = np.arange(seq.filled, seq.filled + n)
            self.prompt_tokens += n
            parts.append((seq, n))
        self._fit_cache()
        self.device.extend(rows, tokens, positions)
        for seq, n in parts:
            self._filled(seq, seq.filled + n)

    # --- memory ---

    def _fit_cache(self) -> None:
        """Rows as long as the longest needs in the next call; shorter again only when half of it would do."""
        needs = [seq.length + self._steps_of(seq) for seq in self.seats if seq is not None]
        need = min(max(needs, default=1), self.config.capacity)
        length = next(n for n in self.config.cache_lengths if n >= need)
        if length > self.device.length or 2 * length <= self.device.length:
            self._prefix = {slot: entry for slot, entry in self._prefix.items() if entry[1] <= length}
            self.device.resize(length)

    def _steps_of(self, seq: Sequence) -> int:
        """Most new tokens of the next call."""
        return 0 if seq.state == "held" else max(min(self.config.decode_steps, _limit(seq) - len(seq.tokens)), 1)

    def _retract(self, seq: Sequence) -> None:
        """Back to the head of the queue, its memory free: it will be read again with the tokens it has."""
        self._leave(seq)
        seq.state, seq.filled = "waiting", 0
        self.waiting.appendleft(seq)
        self.retracted += 1

    def _has_places(self, seq: Sequence) -> bool:
        """Places for all that is about to be read; one for which there are none gives up its seat for now."""
        if self._memory.ensure(seq.slot, seq.length):  # pyright: ignore[reportArgumentType]
            return True
        self._retract(seq)
        return False

    def _make_room(self) -> None:
        """Places for the tokens of the next call, oldest samples first; the youngest of the shard gives way."""
        running = [seq for seq in self.seats if seq is not None and seq.state == "running"]
        for seq in sorted(running, key=_age):
            while seq.slot is not None and not self._memory.ensure(seq.slot, seq.length - 1 + self._steps_of(seq)):
                shard = self._shard(seq.slot)
                youngest = max((s for s in running if s.slot is not None and self._shard(s.slot) == shard), key=_age)
                if youngest is not seq or self._memory.capacity(seq.slot) < seq.length:
                    self._retract(youngest)
                else:
                    break  # it makes do with the places that it has

    # --- rows ---

    def rows(self) -> tuple[Rows, list[Sequence]]:
        """What every row does in the next call, and the samples that run."""
        self._make_room()
        self._fit_cache()
        running = [seq for seq in self.seats if seq is not None and seq.state == "running"]
        table = self._table
        table["live"][:] = False
        for seq in running:
            b = seq.slot
            table["live"][b] = True
            table["token"][b] = seq.next_token
            table["place"][b] = seq.length - 1
            table["count"][b] = len(seq.tokens)
            room = self._memory.capacity(b) - seq.length + 1  # pyright: ignore[reportArgumentType]
            table["limit"][b] = min(_limit(seq), len(seq.tokens) + room)
        # Copies: a call may still read what the next one would write.
        return as_rows(table), running

    def _write_row(self, seq: Sequence) -> None:
        """What stays the same while it sits."""
        b, request, table = seq.slot, seq.request, self._table
        base, first, second = seq.key
        table["base"][b], table["request"][b], table["sample"][b] = base, first, second
        table["temperature"][b], table["top_p"][b], table["min_p"][b] = (
            request.temperature,
            request.top_p,
            request.min_p,
        )
        table["top_k"][b] = min(request.top_k, 2**31 - 1)
        table["minimum"][b] = request.min_tokens
        table["stops"][b] = -1
        table["stops"][b, : len(seq.stops)] = seq.stops
        table["watch"][b], table["top"][b] = seq.watch, request.top_logprobs > 0


def _limit(seq: Sequence) -> int:
    return seq.limit if seq.cap is None or seq.cap < len(seq.tokens) else min(seq.limit, seq.cap)


def _age(seq: Sequence) -> tuple[int, int]:
    """Older ones first: as they were handed in."""
    return (seq.order, seq.sample)
