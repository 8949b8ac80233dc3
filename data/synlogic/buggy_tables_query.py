"""The question of `buggy_tables` (SynLogic, arXiv:2505.19641): rows that meet conditions, and a statistic of two columns.

All values are computed exactly (fractions, and 50 digits for roots), so that the two decimals of an answer are the same everywhere.
"""

import decimal
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

__all__ = [
    "OPERATORS",
    "STATISTICS",
    "answer_of",
    "difference",
    "is_safe",
    "question_of",
    "selected",
    "short_of",
    "spread",
]

Query = Mapping[str, Any]  # cols_to_compare, stat_type, conditions by column (op and value)
Table = Sequence[Sequence[str | None]]

STATISTICS = {
    "mean": "mean",
    "median": "median",
    "sum": "sum",
    "max": "maximum",
    "min": "minimum",
    "stdev": "sample standard deviation (n - 1 in the denominator)",
    "variance": "sample variance (n - 1 in the denominator)",
}
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
OPERATORS = (*_COMPARE, "between")
_EXACT = decimal.Context(prec=50)


def selected(query: Query, columns: Sequence[str], rows: Table) -> tuple[list[int], list[int]]:
    """The values of the two compared columns in the rows that meet all conditions; an empty cell meets none."""
    at = {column: i for i, column in enumerate(columns)}
    chosen = [
        row for row in rows if all(_holds(row[at[c]], **condition) for c, condition in query["conditions"].items())
    ]
    first, second = ([int(v) for row in chosen if (v := row[at[c]]) is not None] for c in query["cols_to_compare"])
    return first, second


def difference(stat: str, first: Sequence[int], second: Sequence[int]) -> Decimal:
    """The absolute difference of a statistic; 0 where there are too few values for it."""
    if min(len(first), len(second)) < (2 if stat in ("stdev", "variance") else 1):
        return Decimal(0)
    return _EXACT.abs(_EXACT.subtract(_statistic(stat, first), _statistic(stat, second)))


def spread(stat: str, values: Sequence[int]) -> str:
    """One statistic for people, with at most three decimals."""
    few = len(values) < (2 if stat in ("stdev", "variance") else 1)
    return "none" if few else f"{round(float(_statistic(stat, values)), 3):.15g}"


def answer_of(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.01"), context=_EXACT))


def is_safe(value: Decimal) -> bool:
    """Not within 1e-6 of a value where rounding changes: any arithmetic gives the same two decimals."""
    return abs(_EXACT.multiply(value, Decimal(100)) % 1 - Decimal("0.5")) > Decimal("1e-4")


def question_of(query: Query) -> str:
    first, second = query["cols_to_compare"]
    name = STATISTICS[query["stat_type"]]
    conditions = " and ".join(_told(column, **condition) for column, condition in query["conditions"].items())
    rows = f"Take only the rows with {conditions}." if conditions else "Take all rows."
    fewest = "fewer than two values" if query["stat_type"] in ("stdev", "variance") else "no values"
    return (
        f"{rows} What is the absolute difference between the {name} of {first} and the {name} of {second}? Empty cells do not "
        f"count, and a condition on an empty cell is not met. If there are {fewest} in one of the two columns, the answer is 0.00."
    )


def short_of(query: Query, letters: Mapping[str, str]) -> str:
    first, second = (letters[column] for column in query["cols_to_compare"])
    conditions = [_short(letters[column], **condition) for column, condition in query["conditions"].items()]
    return " ".join([query["stat_type"], f"{first}-{second}", *conditions])


def _holds(cell: str | None, op: str, value: Any) -> bool:
    if cell is None:
        return False
    return value[0] <= int(cell) <= value[1] if op == "between" else _COMPARE[op](int(cell), value)


def _statistic(stat: str, values: Sequence[int]) -> Decimal:
    n = len(values)
    if stat == "sum":
        return Decimal(sum(values))
    if stat in ("max", "min"):
        return Decimal(max(values) if stat == "max" else min(values))
    if stat == "median":
        ordered = sorted(values)
        return _decimal(Fraction(ordered[(n - 1) // 2] + ordered[n // 2], 2))
    mean = Fraction(sum(values), n)
    if stat == "mean":
        return _decimal(mean)
    variance = _decimal(sum((value - mean) ** 2 for value in values) / Fraction(n - 1))
    return variance if stat == "variance" else variance.sqrt(_EXACT)


def _decimal(value: Fraction) -> Decimal:
    return _EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))


def _told(column: str, op: str, value: Any) -> str:
    return (
        f"{column} between {value[0]} and {value[1]} (both included)" if op == "between" else f"{column} {op} {value}"
    )


def _short(letter: str, op: str, value: Any) -> str:
    return f"{value[0]}<={letter}<={value[1]}" if op == "between" else f"{letter}{op}{value}"
