"""When the samples of a group are ended: short-m@k (arXiv:2505.17813), decided by length and never by time."""

import dataclasses

__all__ = ["Group"]


@dataclasses.dataclass
class Group:
    """Lengths of the samples that have closed, of one request. See `types.GroupStop`."""

    count: int
    closed: dict[int, int] = dataclasses.field(default_factory=dict)  # sample -> tokens before the closing one

    def close(self, sample: int, length: int) -> None:
        """A sample has closed after so many tokens."""
        self.closed.setdefault(sample, length)

    @property
    def longest(self) -> int | None:
        """T, the length of the last of the `count` shortest; None while fewer have closed."""
        return sorted(self.closed.values())[self.count - 1] if len(self.closed) >= self.count else None

    def ends(self, sample: int, tokens: int) -> int | None:
        """To how many tokens a sample that has `tokens` is cut now; None if it goes on.

        One that has not closed may go on while it could still be among the shortest: it has to close with its next token when
        it is as long as the longest of them. One that has closed goes on if it is among them.
        """
        longest = self.longest
        if longest is None:
            return None
        if sample in self.closed:
            chosen = sorted(self.closed, key=lambda s: (self.closed[s], s))[: self.count]
            # As if it had run beside the others: with an equal length it closes at the same moment, with a longer one never.
            return None if sample in chosen else longest + (self.closed[sample] == longest)
        return longest if tokens > longest else None
