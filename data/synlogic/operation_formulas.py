"""Formulas with custom operators for the SynLogic task `operation` (arXiv:2505.19641): exact values and random drawing.

All operators, `**` too, go from left to right among equals; a higher precedence goes first. Values are fractions. A definition is
a JSON object with the field names of published records: `{"conditions": [{"condition": "x is even", "operation": "x + y"}],
"default_operation": "2 * x - y", "precedence": 4, "associativity": "left"}`.
"""

import functools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["CONDITIONS", "FormulaError", "Step", "draw_operation", "evaluate", "tokens"]

Definitions = Mapping[str, Mapping[str, Any]]
Step = tuple[Fraction, str, Fraction, Fraction]  # left, operator, right, result

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "**": 3}
_TOKEN = re.compile(r"\s*(abs|\*\*|[0-9]+|[xy]|[-+*/%()]|[^\s\w()])")
_MAX_VALUE = 10**7
_MAX_BOTTOM = 10_000
_MAX_EXPONENT = 6
_POINTS = ((2, 1), (3, 1), (2, 4), (3, 4), (8, 1), (2, 7), (8, 7))  # to see on what a formula depends


def _whole(*values: Fraction) -> bool:
    return all(value.denominator == 1 for value in values)


# Parity and divisibility are for whole numbers: where a value is not whole, such a condition does not hold.
CONDITIONS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "x and y are both even": lambda x, y: _whole(x, y) and x % 2 == 0 == y % 2,
    "x and y are both odd": lambda x, y: _whole(x, y) and x % 2 == 1 == y % 2,
    "x is even": lambda x, y: _whole(x) and x % 2 == 0,
    "x is odd": lambda x, y: _whole(x) and x % 2 == 1,
    "y is even": lambda x, y: _whole(y) and y % 2 == 0,
    "y is odd": lambda x, y: _whole(y) and y % 2 == 1,
    "x is greater than y": lambda x, y: x > y,
    "x is less than y": lambda x, y: x < y,
    "x equals y": lambda x, y: x == y,
    "x is a multiple of 3": lambda x, y: _whole(x) and x % 3 == 0,
    "y is a multiple of 3": lambda x, y: _whole(y) and y % 3 == 0,
    "x is a multiple of 5": lambda x, y: _whole(x) and x % 5 == 0,
    "y is a multiple of 5": lambda x, y: _whole(y) and y % 5 == 0,
    "x + y is even": lambda x, y: _whole(x + y) and (x + y) % 2 == 0,
    "x + y is odd": lambda x, y: _whole(x + y) and (x + y) % 2 == 1,
}


class FormulaError(ValueError):
    """The formula has no value, or one that is too large to compute by hand."""


@functools.lru_cache(maxsize=1024)
def tokens(formula: str) -> tuple[str, ...]:
    found = _TOKEN.findall(formula)
    if "".join(found) != "".join(formula.split()):
        raise FormulaError(f"{formula!r} has signs that are neither numbers nor operators")
    return tuple(found)


def evaluate(
    formula: str,
    definitions: Definitions,
    variables: Mapping[str, Fraction] | None = None,
    top: list[Step] | None = None,
    work: list[Step] | None = None,
) -> Fraction:
    """The value of a formula; `top` collects its own steps, `work` every step inside of definitions as well."""
    values: list[Fraction] = []
    waiting: list[str] = []

    def apply() -> None:
        op = waiting.pop()
        right, left = values.pop(), values.pop()
        result = _apply(left, op, right, definitions, work)
        values.append(result)
        for steps in (top, work):
            if steps is not None:
                steps.append((left, op, right, result))

    def rank(op: str) -> int:
        return PRECEDENCE.get(op) or definitions[op]["precedence"]

    for token in tokens(formula):
        if token.isdigit():
            values.append(Fraction(int(token)))
        elif token in ("x", "y"):
            values.append((variables or {})[token])
        elif token in ("(", "abs"):
            waiting.append(token)
        elif token == ")":
            while waiting[-1] != "(":
                apply()
            waiting.pop()
            if waiting and waiting[-1] == "abs":
                waiting.pop()
                values.append(abs(values.pop()))
        else:
            while waiting and waiting[-1] not in ("(", "abs") and rank(waiting[-1]) >= rank(token):
                apply()
            waiting.append(token)
    while waiting:
        apply()
    return values.pop()


def _apply(left: Fraction, op: str, right: Fraction, definitions: Definitions, work: list[Step] | None) -> Fraction:
    if op in definitions:
        definition = definitions[op]
        formula = definition["default_operation"]
        for branch in definition["conditions"]:
            if CONDITIONS[branch["condition"]](left, right):
                formula = branch["operation"]
                break
        return evaluate(formula, definitions, {"x": left, "y": right}, work=work)
    if op in ("/", "%") and not right:
        raise FormulaError("division by zero")
    if op == "**":
        too_large = right.denominator != 1 or abs(right.numerator) > _MAX_EXPONENT or (not left and right < 0)
        if too_large or abs(left.numerator) > _MAX_VALUE:
            raise FormulaError("a power that nobody would compute")
        result = left ** int(right)
    else:
        result = {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
            "/": lambda: left / right,
            "%": lambda: left % right,
        }[op]()
    if abs(result.numerator) > _MAX_VALUE * result.denominator or result.denominator > _MAX_BOTTOM:
        raise FormulaError("too large")
    return result


def draw_operation(
    rng: random.Random, size: int, operators: Sequence[str], weights: Sequence[float], known: Sequence[str],
    bracket_rate: float, abs_rate: float, definitions: Definitions,
) -> str:  # fmt: skip
    """A random formula in which both x and y matter, with at most one of the `known` custom operators."""
    while True:
        variables = rng.randint(2, size)
        parts = [rng.choice("xy") for _ in range(variables)]
        parts += [str(rng.randint(1, 5)) for _ in range(rng.randint(0, size - variables))]
        rng.shuffle(parts)
        signs = rng.choices(operators, weights=weights, k=len(parts) - 1)
        if known and rng.random() < 0.2 * len(signs):
            signs[rng.randrange(len(signs))] = rng.choice(known)
        if rng.random() < bracket_rate:
            first, last = sorted(rng.sample(range(len(parts)), 2))
            whole = (first, last) == (0, len(parts) - 1)
            absolute = rng.random() < abs_rate
            if absolute or not whole:
                parts[first] = ("abs(" if absolute else "(") + parts[first]
                parts[last] += ")"
        formula = parts[0] + "".join(f" {sign} {part}" for sign, part in zip(signs, parts[1:], strict=True))
        if _both_matter(formula, definitions):
            return formula


def _both_matter(formula: str, definitions: Definitions) -> bool:
    """Whether the value changes with x and with y, on a few points."""
    values: dict[tuple[int, int], Fraction] = {}
    by_x = by_y = False
    for x, y in _POINTS:
        try:
            value = evaluate(formula, definitions, {"x": Fraction(x), "y": Fraction(y)})
        except FormulaError:
            continue
        by_x |= any(value != other for point, other in values.items() if point[1] == y)
        by_y |= any(value != other for point, other in values.items() if point[0] == x)
        if by_x and by_y:
            return True
        values[x, y] = value
    return False
