"""Who has which page of a paged key/value cache: counted on the host, in numpy. The device only gets the table."""

from collections.abc import Iterable

import numpy as np

from framework.errors import UserError

__all__ = ["PageTable"]


class PageTable:
    """Pages of the slots of an engine. A page that several slots begin with is counted, and free when the last of them lets go.

    Slots are split into shards of neighbours, each with its own pages: numbers count within the shard. Page 0 of each is nobody's;
    it stands in the table where a slot has no page.

    Only full pages are shared, and tokens are only added: nobody writes to a page that two slots have.
    """

    keeps = False
    """Pages that a slot let go of may be written by others."""

    def __init__(self, *, slots: int, pages: int, page: int, max_pages: int, shards: int = 1):
        """`pages` of one shard, page 0 included; `page` tokens in each; at most `max_pages` a slot.

        Raises:
            UserError: slots that cannot be dealt out to the shards, or a pool without a page to give.
        """
        if slots < 1 or shards < 1 or slots % shards:
            raise UserError(
                f"slots={slots} cannot be dealt out to shards={shards} evenly. Use a multiple of {max(shards, 1)}."
            )
        if pages < 2 or page < 1 or max_pages < 1:
            raise UserError(
                f"pages={pages} with page={page} and max_pages={max_pages} hold no token: a shard needs 2 pages or more (the first "
                "belongs to nobody), of 1 token or more, and slots of 1 page or more."
            )
        self.page, self.pages, self.shards = page, pages, shards
        self.table = np.zeros((slots, max_pages), np.int32)
        self._held = np.zeros(slots, np.int32)  # pages that a slot has
        self._owners = np.zeros((shards, pages), np.int32)  # slots that have a page
        self._free = [list(range(pages - 1, 0, -1)) for _ in range(shards)]  # the last one is given next

    def ensure(self, slot: int, length: int) -> bool:
        """Give `slot` the pages it lacks for its first `length` tokens. False, and nothing changed, if too few are free."""
        wanted = self._pages_of(length)
        if wanted > self.table.shape[1]:
            raise ValueError(
                f"{length} tokens take {wanted} pages of {self.page}, and a slot has {self.table.shape[1]} at most "
                f"({self.table.shape[1] * self.page} tokens)."
            )
        held = int(self._held[slot])
        if wanted - held > self.free_pages(self.shard(slot)):
            return False
        if wanted > held:
            self._append(slot, [self._take(self.shard(slot)) for _ in range(wanted - held)])
        return True

    def share(self, source: int, target: int, length: int) -> list[tuple[int, int]] | None:
        """Give `target`, which has nothing yet, the first `length` tokens of `source`, in the same shard.

        Full pages are shared. A last page that is partly filled gets a twin, because both will go on writing there.

        Returns:
            The copies (page, twin) to make on the device before either slot goes on, one or none. None, and nothing changed, if
            no page is free.
        """
        shard = self.shard(source)
        if self.shard(target) != shard:
            raise ValueError(
                f"slots {source} and {target} are in shards {shard} and {self.shard(target)}: no page is in both."
            )
        if self._held[target]:
            raise ValueError(
                f"slot {target} has {self._held[target]} pages. Free it before it shares those of {source}."
            )
        wanted, full = self._pages_of(length), length // self.page
        if wanted > self._held[source]:
            raise ValueError(
                f"slot {source} has pages for {self.capacity(source)} tokens, so there are no {length} to share."
            )
        if wanted > full and not self._free[shard]:
            return None
        shared = self.table[source, :full].tolist()
        self._owners[shard, shared] += 1
        twins = [self._take(shard)] if wanted > full else []
        self._append(target, [*shared, *twins])
        return [(int(self.table[source, full]), twin) for twin in twins]

    def free(self, slot: int) -> None:
        """Take all pages from `slot`. Those that no other slot has can be given again."""
        shard, mine = self.shard(slot), self.table[slot, : self._held[slot]].tolist()
        self._owners[shard, mine] -= 1
        self._free[shard].extend(number for number in reversed(mine) if not self._owners[shard, number])
        self.table[slot] = 0
        self._held[slot] = 0

    def free_pages(self, shard: int) -> int:
        """Pages of a shard that nobody has."""
        return len(self._free[shard])

    def capacity(self, slot: int) -> int:
        """Tokens that the pages of `slot` hold."""
        return int(self._held[slot]) * self.page

    def shard(self, slot: int) -> int:
        """The shard of a slot."""
        return slot * self.shards // len(self.table)

    def check(self) -> None:
        """Raise RuntimeError if the books do not balance: every page free or in the table, as often as it is counted."""
        slots = len(self.table) // self.shards
        for shard in range(self.shards):
            mine = range(shard * slots, (shard + 1) * slots)
            owners = np.zeros(self.pages, np.int64)
            for slot in mine:
                held = self.table[slot, : self._held[slot]]
                _require(len(set(held.tolist())) == len(held), f"slot {slot} has a page twice: {held}")
                _require(not self.table[slot, len(held) :].any(), f"slot {slot} has more pages than it counts")
                owners[held] += 1
            free = self._free[shard]
            _require(owners[0] == 0 and 0 not in free, f"page 0 of shard {shard} was given away")
            _require((owners == self._owners[shard]).all(), f"shard {shard} counts {self._owners[shard]} for {owners}")
            _require(len(set(free)) == len(free), f"shard {shard} has a page free twice: {free}")
            _require(not owners[free].any(), f"shard {shard} has a page free that is in use: {free}")
            used = int((owners > 0).sum())
            _require(used + len(free) == self.pages - 1, f"shard {shard} lost pages: {used} used, {len(free)} free")

    def _pages_of(self, length: int) -> int:
        return -(-length // self.page)

    def _take(self, shard: int) -> int:
        number = self._free[shard].pop()
        self._owners[shard, number] = 1
        return number

    def _append(self, slot: int, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        held = int(self._held[slot])
        self.table[slot, held : held + len(numbers)] = numbers
        self._held[slot] = held + len(numbers)


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise RuntimeError(otherwise)
