"""Integer arithmetic expressions, read by recursive descent: the safe replacement for `eval` on model text.

    sum     := product (("+" | "-") product)*
    product := signed (("*" | "/" | "//" | "%") signed)*
    signed  := ("+" | "-") signed | power
    power   := atom ("**" signed)?
    atom    := digits | "(" sum ")"

Precedence and associativity are Python's. What an operator means is the caller's: exact fractions or whole numbers for the
strict verifiers, Python's own numbers for the official ones. Length, depth and powers are capped, so a hostile text costs
microseconds.
"""

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Generic, TypeVar

__all__ = ["FRACTIONS", "PYTHON", "WHOLE", "Arithmetic", "ExpressionError", "PythonNumber"]

MAX_EXPRESSION = 1_000  # characters
MAX_DEPTH = 50
MAX_POWER_BITS = 4_096  # 10**10**10 must not be computed

_TOKEN = re.compile(r"[ \t]*([0-9]+|\*\*|//|[-+*/%()])")
_PRODUCTS = ("*", "/", "//", "%")

N = TypeVar("N")
PythonNumber = int | float | complex


class ExpressionError(ValueError):
    """The text is not an expression of the grammar, is too large, or has no value."""


class Arithmetic(Generic[N]):
    """A meaning for numbers and operators. An operator that is missing is a syntax error."""

    def __init__(self, number: Callable[[str], N], negate: Callable[[N], N], ops: Mapping[str, Callable[[N, N], N]]):
        self._number = number
        self._negate = negate
        self._ops = ops

    def evaluate(self, text: str, steps: list[str] | None = None) -> N:
        """The value of `text`; every single calculation is appended to `steps` as "a+b=c". Raises `ExpressionError`."""
        reader = _Reader(_tokens(text))
        try:
            value = self._sum(reader, 0, steps)
        except (ArithmeticError, TypeError, ValueError) as error:  # division by zero, overflow, complex // real
            raise ExpressionError(str(error)) from error
        if reader.peek():
            raise ExpressionError(f"unexpected {reader.peek()!r}")
        return value

    def _apply(self, op: str, left: N, right: N, steps: list[str] | None) -> N:
        if op not in self._ops:
            raise ExpressionError(f"operator {op!r} is not allowed")
        value = self._ops[op](left, right)
        if steps is not None:
            steps.append(f"{left}{op}{right}={value}")
        return value

    def _sum(self, reader: "_Reader", depth: int, steps: list[str] | None) -> N:
        value = self._product(reader, depth, steps)
        while (op := reader.peek()) in ("+", "-"):
            reader.next()
            value = self._apply(op, value, self._product(reader, depth, steps), steps)
        return value

    def _product(self, reader: "_Reader", depth: int, steps: list[str] | None) -> N:
        value = self._signed(reader, depth, steps)
        while (op := reader.peek()) in _PRODUCTS:
            reader.next()
            value = self._apply(op, value, self._signed(reader, depth, steps), steps)
        return value

    def _signed(self, reader: "_Reader", depth: int, steps: list[str] | None) -> N:
        if depth > MAX_DEPTH:
            raise ExpressionError("nested too deeply")
        if reader.peek() in ("+", "-"):
            sign = reader.next()
            value = self._signed(reader, depth + 1, steps)
            return self._negate(value) if sign == "-" else value
        value = self._atom(reader, depth, steps)
        if reader.peek() == "**":
            reader.next()
            value = self._apply("**", value, self._signed(reader, depth + 1, steps), steps)
        return value

    def _atom(self, reader: "_Reader", depth: int, steps: list[str] | None) -> N:
        token = reader.next()
        if token == "(":
            value = self._sum(reader, depth + 1, steps)
            if reader.next() != ")":
                raise ExpressionError("missing )")
            return value
        if not token.isdigit() or (token[0] == "0" and token.strip("0")):  # 007 is a syntax error in Python too
            raise ExpressionError(f"expected a number, got {token!r}")
        return self._number(token)


class _Reader:
    def __init__(self, tokens: list[str]):
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self._at += 1
        return token


def _tokens(text: str) -> list[str]:
    text = text.strip()
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError("too long")
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected character {text[at]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


def _divide_exactly(left: int, right: int) -> int:
    quotient, rest = divmod(left, right)
    if rest:
        raise ExpressionError(f"{left}/{right} is not a whole number")
    return quotient


def _power(left: PythonNumber, right: PythonNumber) -> PythonNumber:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_POWER_BITS:
        raise ExpressionError("power too large")
    return left**right


def _floor_divide(left: PythonNumber, right: PythonNumber) -> PythonNumber:
    if isinstance(left, complex) or isinstance(right, complex):
        raise ExpressionError("complex numbers have no floor")
    return left // right


def _modulo(left: PythonNumber, right: PythonNumber) -> PythonNumber:
    if isinstance(left, complex) or isinstance(right, complex):
        raise ExpressionError("complex numbers have no remainder")
    return left % right


WHOLE: Arithmetic[int] = Arithmetic(
    int,
    operator.neg,
    {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide_exactly, "%": operator.mod},
)
FRACTIONS: Arithmetic[Fraction] = Arithmetic(
    Fraction, operator.neg, {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
)
PYTHON: Arithmetic[PythonNumber] = Arithmetic(
    int,
    operator.neg,
    {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": _floor_divide,
        "%": _modulo,
        "**": _power,
    },
)
