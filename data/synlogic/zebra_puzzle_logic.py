"""Clues about houses in a row, and a solver that crosses out houses and branches where nothing follows any more.

Helper of `zebra_puzzle` (SynLogic, arXiv:2505.19641). Value v of attribute a is number a*n+v; the houses it may still be in are
a bit mask. A clue is (kind, value, other value); for the kinds "at" and "not at" the last is a house, counted from 0.
"""

import dataclasses
import random
from collections.abc import Sequence

__all__ = ["Clue", "Result", "random_clues", "solve"]

Clue = tuple[str, int, int]


@dataclasses.dataclass
class Result:
    """`solutions`: the house of each value; `order`: the values of the first solution as they became known; `steps`: clues
    looked at."""

    solutions: list[list[int]]
    order: list[int]
    steps: int = 0


def solve(n: int, attributes: int, clues: Sequence[Clue], limit: int = 2) -> Result:
    """Up to `limit` solutions of `n` houses."""
    result = Result([], [])
    full = (1 << n) - 1

    def visit(domains: list[int], order: list[int]) -> None:
        if not _settle(n, domains, clues, order, result):
            return
        open_values = [k for k, domain in enumerate(domains) if domain & (domain - 1)]
        if not open_values:
            if not result.solutions:
                result.order = order
            result.solutions.append([domain.bit_length() - 1 for domain in domains])
            return
        k = min(open_values, key=lambda k: domains[k].bit_count())
        domain = domains[k]
        while domain and len(result.solutions) < limit:
            house = domain & -domain
            domain ^= house
            visit([*domains[:k], house, *domains[k + 1 :]], list(order))

    visit([full] * (n * attributes), [])
    return result


def _settle(n: int, domains: list[int], clues: Sequence[Clue], order: list[int], result: Result) -> bool:
    """Apply all clues until nothing changes; False for a contradiction."""
    while True:
        before = list(domains)
        for clue in clues:
            _apply(clue, domains)
        result.steps += len(clues)
        for start in range(0, len(domains), n):
            _all_different(n, domains, start)
        if not all(domains):
            return False
        order += [k for k, domain in enumerate(domains) if not domain & (domain - 1) and k not in order]
        if domains == before:
            return True


def _apply(clue: Clue, domains: list[int]) -> None:
    kind, x, y = clue
    if kind == "at":
        domains[x] &= 1 << y
    elif kind == "not at":
        domains[x] &= ~(1 << y)
    elif kind == "same":
        domains[x] = domains[y] = domains[x] & domains[y]
    elif kind == "different":
        if not domains[x] & (domains[x] - 1):
            domains[y] &= ~domains[x]
        if not domains[y] & (domains[y] - 1):
            domains[x] &= ~domains[y]
    elif kind == "left":  # somewhere to the left
        lowest = domains[x] & -domains[x]
        domains[y] &= ~((lowest << 1) - 1) if lowest else 0
        domains[x] &= (1 << max(0, domains[y].bit_length() - 1)) - 1
    elif kind == "just left":
        domains[y] &= domains[x] << 1
        domains[x] &= domains[y] >> 1
    else:
        shift = 1 if kind == "beside" else 2  # "one between"
        domains[y] &= domains[x] << shift | domains[x] >> shift
        domains[x] &= domains[y] << shift | domains[y] >> shift


def _all_different(n: int, domains: list[int], start: int) -> None:
    """A known house is no longer free for the others; a house with one candidate left is taken by it."""
    values = range(start, start + n)
    known = 0
    for k in values:
        domain = domains[k]
        if not domain & (domain - 1):
            if known & domain:
                domains[k] = 0
            known |= domain
    once = twice = 0
    for k in values:
        if domains[k] & (domains[k] - 1):
            domains[k] &= ~known
        twice |= once & domains[k]
        once |= domains[k]
    for k in values:
        alone = domains[k] & ~twice
        if alone:
            domains[k] = 0 if alone & (alone - 1) else alone


def random_clues(rng: random.Random, n: int, houses: Sequence[int], kinds: Sequence[str], count: int) -> list[Clue]:
    """`count` draws of true clues of the given kinds, each clue once."""
    found: dict[Clue, None] = {}
    for _ in range(count):
        kind, x, y = rng.choice(kinds), rng.randrange(len(houses)), rng.randrange(len(houses))
        if kind in ("at", "not at"):
            y = houses[x] if kind == "at" else rng.randrange(n)
            if kind == "at" or y != houses[x]:
                found[kind, x, y] = None
            continue
        if kind == "same":  # of a random pair few are in one house
            y = rng.choice([k for k, house in enumerate(houses) if house == houses[x]])
        if kind not in ("left", "just left") and y < x:
            x, y = y, x
        gap = houses[y] - houses[x]
        true = {
            "same": gap == 0 and x != y,
            "different": gap != 0 and x // n != y // n,
            "left": gap > 0,
            "just left": gap == 1,
            "beside": abs(gap) == 1,
            "one between": abs(gap) == 2,
        }
        if true[kind]:
            found[kind, x, y] = None
    return list(found)
