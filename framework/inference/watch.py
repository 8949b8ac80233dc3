"""Which tokens the host wants to look at: lines of the watch table, shared by requests with the same stop texts."""

from collections.abc import Callable

import numpy as np

__all__ = ["WatchTable"]


class WatchTable:
    """Line 0 is empty, the last line is every token: what is left when no line is free."""

    def __init__(self, lines: int, vocab_size: int):
        self.table = np.zeros((lines, vocab_size), bool)
        self.table[-1] = True
        self.changed = True
        self._users: dict[object, int] = {}
        self._line: dict[object, int] = {}

    def line(self, key: object, mask: Callable[[], np.ndarray]) -> int:
        """A line for this key, for one more user; `mask` [V] is only made when there is none yet."""
        if key not in self._line:
            free = set(range(1, len(self.table) - 1)) - set(self._line.values())
            if not free:
                unused = next((k for k in self._line if not self._users[k]), None)
                if unused is None:
                    return len(self.table) - 1
                free = {self._line.pop(unused)}
            self._line[key] = min(free)
            self._users[key] = 0
            self.table[self._line[key]] = mask()
            self.changed = True
        self._users[key] += 1
        return self._line[key]

    def release(self, key: object, line: int) -> None:
        """One user of this line less; it stays until another key needs it. The last line counts no users."""
        if self._line.get(key) == line:
            self._users[key] -= 1
