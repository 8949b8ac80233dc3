"""Who may write where in the cache: the host's side of the two layouts, behind one interface."""

from typing import Protocol

__all__ = ["Memory", "SlotMemory"]


class Memory(Protocol):
    """Places for the sequences in the slots. A slot's shard is slot // (slots / shards)."""

    keeps: bool
    """What a slot held stays readable after `free`, until the slot is used again."""

    def ensure(self, slot: int, length: int) -> bool:
        """Make places for positions below `length`; False, and nothing changed, when there is no memory for them now."""
        ...

    def share(self, source: int, target: int, length: int) -> list[tuple[int, int]] | None:
        """Give an empty slot the first `length` positions of another of its shard.

        Returns what `Cache.copy` has to copy (rows or pages, within the shard), or None when there is no memory for it now.
        """
        ...

    def free(self, slot: int) -> None:
        """The slot is empty."""
        ...

    def capacity(self, slot: int) -> int:
        """Places the slot has now."""
        ...

    def check(self) -> None:
        """Raises RuntimeError if the books do not balance."""
        ...


class SlotMemory:
    """Every slot has all its places all the time."""

    keeps = True

    def __init__(self, slots: int, shards: int, places: int):
        self._rows, self._places = slots // shards, places

    def ensure(self, slot: int, length: int) -> bool:
        return True

    def share(self, source: int, target: int, length: int) -> list[tuple[int, int]] | None:
        return [(source % self._rows, target % self._rows)]

    def free(self, slot: int) -> None:
        pass

    def capacity(self, slot: int) -> int:
        return self._places

    def check(self) -> None:
        pass
