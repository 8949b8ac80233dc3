"""Equations for cryptarithms: drawing them, and the search for the digits behind letters.

Helper of `cryptarithm` (SynLogic, arXiv:2505.19641).
"""

import random
from collections.abc import Mapping, Sequence

__all__ = ["numeral", "random_equation", "search"]


def random_equation(
    rng: random.Random, count: int, operators: Sequence[str], span: tuple[int, int], short: float
) -> list[int] | None:
    """Numbers of `count` drawn digits whose result is positive; all digits occur and no other does.

    The numbers on the left have `span` (from, to) digits, a share `short` of them one or two; the result is the last.
    """
    digits = rng.sample(range(10), count)
    lengths = [rng.randint(1, 2) if rng.random() < short else rng.randint(*span) for _ in range(len(operators) + 1)]
    signs = None if "*" in operators else [1, *(1 if sign == "+" else -1 for sign in operators)]
    numbers = [0] * len(lengths)
    carry, scale = 0, 1
    for place in range(max(lengths)):
        chosen = _random_column(rng, digits, [length - place for length in lengths], signs, carry)
        if chosen is None:
            return None
        column, carry = chosen
        numbers = [number + digit * scale for number, digit in zip(numbers, column, strict=True)]
        scale *= 10
    result = _value(numbers, operators)
    if result <= 0 or set("".join(map(str, [*numbers, result]))) != set(map(str, digits)):
        return None
    return [*numbers, result]


def _random_column(
    rng: random.Random, digits: Sequence[int], left: Sequence[int], signs: Sequence[int] | None, carry: int
) -> tuple[list[int], int] | None:
    """(one digit for every number that has `left` places, the next carry). In a sum (`signs`) the digit of the result must
    be one of `digits` as well: drawing column by column spares most of the rejections."""
    draw, count = rng.random, len(digits)
    for _ in range(8):
        column = [digits[int(draw() * count)] if places > 0 else 0 for places in left]
        if 0 in column and any(places == 1 and not digit for places, digit in zip(left, column, strict=True)):
            continue
        if signs is None:
            return column, 0
        total = carry
        for sign, digit in zip(signs, column, strict=True):
            total += sign * digit
        if total % 10 in digits:
            return column, total // 10
    return None


def _value(numbers: Sequence[int], operators: Sequence[str]) -> int:
    """The left side, products first."""
    terms = [numbers[0]]
    for sign, number in zip(operators, numbers[1:], strict=True):
        if sign == "*":
            terms[-1] *= number
        else:
            terms.append(number if sign == "+" else -number)
    return sum(terms)


def search(words: Sequence[str], operators: Sequence[str], limit: int) -> tuple[list[dict[str, int]], int]:
    """(assignments that make the equation true, at most `limit`; digits tried)."""
    first = {word[0] for word in words if len(word) > 1}
    find = _search_products if "*" in operators else _search_sums
    return find(words, operators, first, limit)


def _search_sums(
    words: Sequence[str], operators: Sequence[str], first: set[str], limit: int
) -> tuple[list[dict[str, int]], int]:
    """The equation is one sum of weight times digit: the heaviest letters first, cut off where the rest cannot reach 0."""
    weights: dict[str, int] = {}
    for sign, word in zip(["+", *operators, "-"], words, strict=True):
        for place, letter in enumerate(reversed(word)):
            weights[letter] = weights.get(letter, 0) + (10**place if sign == "+" else -(10**place))
    order = sorted(weights, key=lambda letter: (-abs(weights[letter]), letter))
    steps = [weights[letter] for letter in order]
    low = [sum(min(0, 9 * w) for w in steps[i:]) for i in range(len(steps) + 1)]
    high = [sum(max(0, 9 * w) for w in steps[i:]) for i in range(len(steps) + 1)]
    choices = [range(1, 10) if letter in first else range(10) for letter in order]
    found: list[dict[str, int]] = []
    digits = [0] * len(order)
    nodes = 0

    def visit(i: int, total: int, used: int) -> None:
        nonlocal nodes
        if i == len(order):
            found.append(dict(zip(order, digits, strict=True)))
            return
        step, least, most = steps[i], -high[i + 1], -low[i + 1]
        for digit in choices[i]:
            nodes += 1
            after = total + step * digit
            if least <= after <= most and not used >> digit & 1:
                digits[i] = digit
                visit(i + 1, after, used | 1 << digit)
                if len(found) >= limit:
                    return

    visit(0, 0, 0)
    return found, nodes


def _search_products(
    words: Sequence[str], operators: Sequence[str], first: set[str], limit: int
) -> tuple[list[dict[str, int]], int]:
    """From the last digits to the first: when all letters of the last k places are known, the equation holds modulo 10**k."""
    longest = max(map(len, words))
    places = [[word[-k - 1] for word in words if len(word) > k] for k in range(longest)]
    order = list(dict.fromkeys(letter for letters in places for letter in letters))
    # How many places are complete once the first i letters are known.
    complete = [
        next((k for k, letters in enumerate(places) if not set(letters) <= set(order[:i])), longest)
        for i in range(len(order) + 1)
    ]
    found: list[dict[str, int]] = []
    digits: dict[str, int] = {}
    nodes = 0

    def holds(k: int, exact: bool) -> bool:
        *left, right = (int(numeral(word[-k:], digits)) for word in words)
        difference = _value(left, operators) - right
        return difference == 0 if exact else difference % 10**k == 0

    def visit(i: int) -> None:
        nonlocal nodes
        if i == len(order):
            if holds(longest, True):
                found.append(dict(digits))
            return
        for digit in range(order[i] in first, 10):
            if digit not in digits.values() and len(found) < limit:
                nodes += 1
                digits[order[i]] = digit
                k = complete[i + 1]
                if k == complete[i] or holds(k, False):
                    visit(i + 1)
                del digits[order[i]]

    visit(0)
    return found, nodes


def numeral(word: str, digits: Mapping[str, int]) -> str:
    return "".join(str(digits[letter]) for letter in word)
