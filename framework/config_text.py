"""A config as JSON, as readable text, and the difference of two configs. Imports no jax.

A dataclass is an object with its type's name under "__type__"; a function or class is the string "module:qualname"; tuples
and lists are lists; an infinite or undefined float is "inf", "-inf" or "nan".
"""

import dataclasses
import enum
import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from framework.errors import UserError

__all__ = ["Json", "diff", "diff_json", "format_value", "join", "reference", "to_json", "to_text"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

TYPE = "__type__"
USER_MODULE = re.compile(r"^maypole_user_(?P<stem>.+)_[0-9a-f]{8}$")


class Bare(str):
    """A string that text shows without quotes: a function, an enum member, `inf`. JSON sees a plain string."""

    __slots__ = ()


def reference(value: Callable[..., object]) -> str:
    """`module:qualname` of a function or class; one from a user's `mine.py` reads `mine.py:name` on every machine."""
    module, name = getattr(value, "__module__", None) or "?", getattr(value, "__qualname__", None) or "?"
    user = USER_MODULE.match(module)
    return f"{user['stem']}.py:{name}" if user else f"{module}:{name}"


def to_json(config: object, path: str = "") -> Json:
    """The config as JSON types, see the top of this file. A field that holds anything else is a `UserError`."""
    if isinstance(config, enum.Enum):
        return Bare(f"{type(config).__qualname__}.{config.name}")
    if config is None or isinstance(config, bool | str):
        return config
    if isinstance(config, int):
        return int(config)
    if isinstance(config, float):
        return float(config) if math.isfinite(config) else Bare(float(config))
    if isinstance(config, os.PathLike):
        return os.fspath(config)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {f.name: to_json(getattr(config, f.name), join(path, f.name)) for f in dataclasses.fields(config)}
        return {TYPE: type(config).__qualname__, **fields}
    if isinstance(config, tuple | list):
        return [to_json(item, join(path, str(i))) for i, item in enumerate(config)]
    if isinstance(config, Mapping):
        return {str(key): to_json(item, join(path, str(key))) for key, item in config.items()}
    if isinstance(config, set | frozenset):
        return sorted((to_json(item, path) for item in config), key=json.dumps)
    return _object_to_json(config, path)


def _object_to_json(value: object, path: str) -> Json:
    if isinstance(value, functools.partial):
        args, keywords = to_json(value.args, path), to_json(value.keywords, path)
        return {TYPE: "partial", "func": to_json(value.func, path), "args": args, "keywords": keywords}
    if callable(value) and hasattr(value, "__qualname__"):
        return Bare(reference(value))
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        return to_json(item(), path)  # a numpy scalar
    if "dtype" in type(value).__name__.lower():
        return Bare(value)
    raise UserError(
        f"The config field {path or 'value'} holds a {type(value).__name__}, which cannot be written to a file. Configs "
        f"hold numbers, strings, functions, tuples and other config dataclasses; make the object in `build()`."
    )


def to_text(config: object) -> str:
    """Readable text, one field a line, the same on every machine: what `config.txt` and golden files hold."""
    return "\n".join(_lines(to_json(config), label="", depth=0)) + "\n"


def _lines(value: Json, label: str, depth: int) -> Iterator[str]:
    head = "  " * depth + (f"{label} = " if label else "")
    children = _children(value)
    nested = _type(value) is not None or any(_children(child) for child in children.values())
    if not children or not nested:
        yield head + format_value(value)
        return
    yield head + (_type(value) or f"{len(children)} items")
    for name, child in children.items():
        yield from _lines(child, name, depth + 1)


def _type(value: Json) -> str | None:
    return str(value[TYPE]) if isinstance(value, dict) and TYPE in value else None


def _children(value: Json) -> dict[str, Json]:
    """The named parts: fields of a config, items of a tuple or mapping; nothing for a leaf."""
    if isinstance(value, list):
        return {str(i): item for i, item in enumerate(value)}
    return {name: item for name, item in value.items() if name != TYPE} if isinstance(value, dict) else {}


def format_value(value: Json) -> str:
    """One JSON form on one line, close to Python."""
    if isinstance(value, list):
        inner = ", ".join(map(format_value, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        if kind := _type(value):
            return f"{kind}({', '.join(f'{k}={format_value(v)}' for k, v in _children(value).items())})"
        return "{" + ", ".join(f"{k}: {format_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and not isinstance(value, Bare):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def diff(a: object, b: object) -> list[str]:
    """One line a differing field: `rollout.group_size: 8 -> 16`."""
    return diff_json(to_json(a), to_json(b))


def diff_json(a: Json, b: Json, path: str = "") -> list[str]:
    """`diff` of two configs that are already JSON, for example one read from `config.json`."""
    if a == b and isinstance(a, bool) == isinstance(b, bool):
        return []
    parts_a, parts_b = _children(a), _children(b)
    resized = isinstance(a, list) and isinstance(b, list) and len(a) != len(b)
    if not parts_a or not parts_b or _type(a) != _type(b) or type(a) is not type(b) or resized:
        return [f"{path or 'config'}: {format_value(a)} -> {format_value(b)}"]
    lines: list[str] = []
    for name in [*parts_a, *(n for n in parts_b if n not in parts_a)]:
        where = join(path, name)
        if name not in parts_b:
            lines.append(f"{where}: {format_value(parts_a[name])} -> (no such field)")
        elif name not in parts_a:
            lines.append(f"{where}: (no such field) -> {format_value(parts_b[name])}")
        else:
            lines += diff_json(parts_a[name], parts_b[name], where)
    return lines


def join(path: str, name: str) -> str:
    """`rollout` and `group_size` -> `rollout.group_size`."""
    return f"{path}.{name}" if path else name
