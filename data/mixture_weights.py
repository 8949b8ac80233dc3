"""Shares of a stream as a function of its index: exact proportions, spread evenly, no state and no chance.

Of the first `total` samples, kind 0 has floor(total * its share), and what is left is divided among the others in the same way.
Every count grows with `total` and by one kind a sample, so that the kind of a sample, and how many of its kind came before it,
follow from the index alone: a resumed run goes on exactly where it stopped.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["check_weights", "counts", "turn"]


def counts(total: int, weights: Sequence[float]) -> list[int]:
    """How many of the first `total` samples are of each kind; they add up to `total`."""
    left, result = total, []
    rest = sum(map(Fraction, weights))  # exact: the split must not depend on how a machine rounds
    for weight in weights[:-1]:
        share = Fraction(weight) / rest if rest else Fraction(0)
        result.append(math.floor(left * share))
        left, rest = left - result[-1], rest - Fraction(weight)
    return [*result, left]


def turn(index: int, weights: Sequence[float]) -> tuple[int, int]:
    """(kind of sample number `index`, number of samples of this kind before it)."""
    before, after = counts(index, weights), counts(index + 1, weights)
    kind = next(kind for kind, (a, b) in enumerate(zip(before, after, strict=True)) if b > a)
    return kind, before[kind]


def check_weights(field: str, weights: Sequence[float], names: Sequence[object]) -> None:
    """Raises ValueError unless there is one finite weight of at least 0 for every name, and one above 0."""
    example = f"{field}=({', '.join('1.0' for _ in names)}{',' if len(names) == 1 else ''})"
    if len(weights) != len(names):
        raise ValueError(
            f"{field} has {len(weights)} numbers for {len(names)} entries ({', '.join(map(str, names))}). "
            f"Give one weight for each, for example {example}."
        )
    for name, weight in zip(names, weights, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{field}: the weight of {name} is {weight}. Use a number of at least 0, such as 1.0.")
    if not any(weights):
        raise ValueError(
            f"{field}={tuple(weights)} leaves nothing to draw. Give at least one weight above 0: {example}."
        )
