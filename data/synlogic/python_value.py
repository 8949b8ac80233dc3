"""The value of a small Python expression, without `eval`: what two official verifiers let Python compute.

The official verifiers of the tasks `mathador` and `math_path` (SynLogic, arXiv:2505.19641) evaluate the answer as Python. Their
accept set therefore has comparisons, tuples, floats, line breaks inside of parentheses and more. Here the text is parsed by
`ast` and only numbers, texts, collections of them, operators and comparisons have a value; a name, a call or an attribute is an
error. Length, powers and shifts are capped, so a hostile text costs microseconds.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from data.synlogic.arithmetic import MAX_EXPRESSION, MAX_POWER_BITS, ExpressionError

__all__ = ["python_value"]

_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def python_value(text: str) -> Any:
    """The value Python gives to `text`. Raises `ExpressionError` where it has none, is code, or is too large."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError("too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `1if`, of `(1)(2)` and of odd escapes
            tree = ast.parse(text, mode="eval")
        return _value(tree.body)
    # ArithmeticError: division by zero, overflow. TypeError: 1 < 2j. ValueError: a null character, a negative shift.
    except (SyntaxError, ArithmeticError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(str(error)) from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left), _value(right))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compared(left, ops, comparators)
        case ast.BoolOp(op=op, values=values):
            return _joined(isinstance(op, ast.Or), values)
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Set(elts=items):
            return {_value(item) for item in items}
        case _:
            raise ExpressionError(f"{type(node).__name__} is code, not a value")


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if not isinstance(left, (int, float, complex)) or not isinstance(right, (int, float, complex)):
        raise ExpressionError("only numbers are computed with")
    if isinstance(left, int) and isinstance(right, int):
        power = isinstance(op, ast.Pow) and abs(left) > 1 and left.bit_length() * abs(right) > MAX_POWER_BITS
        if power or (isinstance(op, ast.LShift) and left.bit_length() + abs(right) > MAX_POWER_BITS):
            raise ExpressionError("the number becomes too large")
    apply = _BINARY.get(type(op))
    if apply is None:
        raise ExpressionError(f"{type(op).__name__} is no operator of numbers")
    return apply(left, right)


def _compared(first: ast.expr, ops: list[ast.cmpop], rest: list[ast.expr]) -> Any:
    """A chain of comparisons, which ends at the first false one."""
    left, verdict = _value(first), True
    for op, node in zip(ops, rest, strict=True):
        right = _value(node)
        compare = _COMPARE.get(type(op))
        if compare is None:
            raise ExpressionError(f"{type(op).__name__} compares objects, not values")
        verdict = compare(left, right)
        if not verdict:
            return verdict
        left = right
    return verdict


def _joined(any_of: bool, nodes: list[ast.expr]) -> Any:
    """`or` and `and`: the first operand that decides, else the last one."""
    value = None
    for node in nodes:
        value = _value(node)
        if bool(value) is any_of:
            return value
    return value
