"""The fields of a JSON request, checked one by one: whoever sends what cannot be done is told, nothing is dropped in silence."""

import json
import math
from collections.abc import Sequence
from typing import Any

from framework.config import nearest
from framework.serve.errors import ApiError

__all__ = ["Fields", "parse_body", "shown"]

_LARGEST = 2**63 - 1


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises ApiError 400 for anything else."""
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, endless digits; brackets without end
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"The body of the request cannot be read as JSON: {why}.") from error
    if not isinstance(body, dict):
        raise ApiError(400, f"The body of the request is {_named(body)}, where an object with fields is needed.")
    return body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


class Fields:
    """Takes fields out of a body; `finish` refuses those that nobody took."""

    def __init__(self, body: dict[str, Any], name: str = ""):
        self._body, self._name = dict(body), name
        self._known: list[str] = []

    def take(self, field: str) -> Any:
        """The value as it came; None if it is absent or null, which mean the same in this API."""
        self._known.append(field)
        return self._body.pop(field, None)

    def peek(self, field: str, default: Any) -> Any:
        """The value, which stays to be taken."""
        return default if self._body.get(field) is None else self._body[field]

    def integer(self, field: str, *, low: int, high: int = _LARGEST) -> int | None:
        """A whole number from `low` to `high`."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():  # what some languages write for whole numbers
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(field, f"{shown(value)} is not a whole number")
        if not low <= value <= high:
            wanted = f"at least {low}" if high == _LARGEST and value < low else f"from {low} to {high}"
            raise self.wrong(field, f"{shown(value)} is out of range: it must be {wanted}")
        return value

    def number(self, field: str, *, low: float, high: float = math.inf, above: bool = False) -> float | None:
        """A number from `low` (or `above` it) to `high`."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(field, f"{shown(value)} is not a number")
        if not low <= value <= high or (above and value == low) or abs(value) > 1e30:
            bound = f"{'above' if above else 'at least'} {low:g}{'' if math.isinf(high) else f' and at most {high:g}'}"
            raise self.wrong(field, f"{shown(value)} is out of range: it must be {bound}")
        return float(value)

    def flag(self, field: str) -> bool:
        """true or false; false if absent."""
        value = self.take(field)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(field, f"{shown(value)} is neither true nor false")
        return bool(value)

    def text(self, field: str) -> str | None:
        """A string."""
        value = self.take(field)
        if value is not None and not isinstance(value, str):
            raise self.wrong(field, f"{shown(value)} is not a string")
        return value

    def inner(self, field: str) -> "Fields":
        """The fields of an object inside this one."""
        value = self.take(field)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(field, f"{shown(value)} is not an object")
        return Fields(value or {}, self._path(field))

    def refuse(self, field: str, why: str, *, harmless: Sequence[Any] = ()) -> None:
        """A field that cannot be honoured: only absent, null and values that ask for nothing pass."""
        value = self.take(field)
        if value is None or any(type(value) is type(h) and value == h for h in harmless):
            return
        if isinstance(value, int | float) and not isinstance(value, bool) and value in harmless:
            return
        raise self.wrong(field, why, code="unsupported_parameter")

    def ignore(self, *fields: str) -> None:
        """Fields that say something about the caller, not about the answer."""
        for field in fields:
            self.take(field)

    def finish(self) -> None:
        """Raises ApiError for a field that is not known, as a misspelt one would be."""
        for field in self._body:
            hint = nearest(field[:80], self._known)
            message = f"Unrecognized request argument supplied: {self._path(field)[:80]}.{hint}"
            raise ApiError(400, message, param=self._path(field)[:80], code="unknown_parameter")

    def wrong(self, field: str, why: str, *, code: str | None = None) -> ApiError:
        """The error for one field; `why` is a clause without a full stop, or whole sentences."""
        path = self._path(field)
        return ApiError(400, f"'{path}': {why}{'' if why.endswith('.') else '.'}", param=path, code=code)

    def _path(self, field: str) -> str:
        return f"{self._name}.{field}" if self._name else field


def shown(value: Any) -> str:
    """A value for an error: short, and of lists and objects the kind alone, for they may be as deep as JSON can be."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value[:70] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}.."


def _named(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
