"""Which candidates become records: the first distinct ones of each (task, level), whatever was made by whom in which order.

Everything here is a function of the streams of candidates alone, which is why the output does not depend on workers.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from data.synlogic.build.shard import Candidate

__all__ = ["Group", "Outcome", "select", "shards_missing"]

IDLE = 2_000  # candidates in a row that add nothing, before a task is said to have no more
_IDLE_FAILURE = 100  # a candidate without an instance has cost thousands of draws, and counts for more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """One task at one level, and how many records of it are wanted. Validation records are chosen first."""

    task: str
    level: str
    train: int
    validation: int

    @property
    def wanted(self) -> int:
        return self.train + self.validation

    @property
    def shard_size(self) -> int:
        """Candidates a shard: many shards for a progress bar and a restart, not so many that files become a burden."""
        return min(max(self.wanted // 64, 16), 1024)


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What a group has come to so far. The counts are those up to its last record, not of all that was made."""

    picked: list[int]  # numbers of candidates
    drawn: int = 0
    duplicates: int = 0
    too_long: int = 0
    failed: int = 0
    oracle_rejected: int = 0
    redrawn: int = 0
    exhausted: bool = False


def select(groups: Sequence[Group], made: Sequence[Sequence[Sequence[Candidate]]], max_chars: int) -> list[Outcome]:
    """For each group its outcome, from `made`: the shards of each group in order, without a gap.

    The validation records of all groups come first, so that they do not depend on how many training records are wanted. A
    question that was picked before is a duplicate, in whatever group: an outcome is final when all of them are.
    """
    seen: set[str] = set()
    outcomes = [Outcome(picked=[]) for _ in groups]
    for upto in ([group.validation for group in groups], [group.wanted for group in groups]):
        for outcome, shards, wanted in zip(outcomes, made, upto, strict=True):
            _pick(outcome, itertools.chain.from_iterable(shards), wanted, max_chars, seen)
    return outcomes


def _pick(outcome: Outcome, stream: Iterable[Candidate], wanted: int, max_chars: int, seen: set[str]) -> None:
    """Go on in the stream of a group, after what `outcome` has of it, until `wanted` records are picked."""
    idle = 0
    for candidate in itertools.islice(stream, outcome.drawn, None):
        if len(outcome.picked) >= wanted or outcome.exhausted:
            break
        number = outcome.drawn
        outcome.drawn += 1
        outcome.oracle_rejected += candidate.rejected
        outcome.redrawn += candidate.redrawn
        idle += 1
        if not candidate.digest:
            outcome.failed += 1
            idle += _IDLE_FAILURE - 1
        elif candidate.chars > max_chars:
            outcome.too_long += 1
        elif candidate.digest in seen:
            outcome.duplicates += 1
        else:
            seen.add(candidate.digest)
            outcome.picked.append(number)
            idle = 0
        if idle >= IDLE:
            outcome.exhausted = True


def shards_missing(group: Group, outcome: Outcome) -> int:
    """How many more shards to make before looking again; 0 when the group is done."""
    missing = group.wanted - len(outcome.picked)
    if outcome.exhausted or not missing:
        return 0
    rate = max(len(outcome.picked) / outcome.drawn, 0.02) if outcome.drawn else 1.0
    # At most doubled: the rate of the first shards may be far from that of the next.
    candidates = min(math.ceil(missing / rate), max(outcome.drawn, IDLE)) if outcome.drawn else missing
    return max(math.ceil(candidates / group.shard_size), 1)
