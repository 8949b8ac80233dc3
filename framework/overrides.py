"""Change a config from the command line: `--rollout.group_size 16`, `--arms.0.loss.beta 2`, `--arms.kl_cov.loss.beta 2`.

The value of a field is read by tyro according to its type hint. A field that may hold one of several configs keeps the type it
has; functions, and which config stands in a field, are changed in a Python file instead.
"""

import contextlib
import dataclasses
import difflib
import enum
import io
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from framework.config_text import format_value, join, to_json
from framework.errors import UserError

__all__ = ["Field", "apply_overrides", "config_fields", "describe_type", "replace_path"]

C = TypeVar("C")
_SIMPLE = (bool, int, float, str, type(None))
_COLLECTIONS = (tuple, list, set, frozenset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One settable or fixed place of a config."""

    path: str
    value: Any
    hint: Any
    """Its type, narrowed to what can be typed on a command line; None when it cannot be set there."""
    owner: type | None
    """The dataclass whose field this is, or None for an item of a tuple or mapping."""


def config_fields(config: object) -> list[Field]:
    """Every place of a config that is not itself a config, in the order of the source."""
    return list(_walk(config, hint=type(config), path="", owner=None))


def _walk(value: Any, hint: Any, path: str, owner: type | None) -> Iterator[Field]:
    if parts := _parts(value, hint):
        for name, part, part_hint in parts:
            part_owner = type(value) if dataclasses.is_dataclass(value) else None
            yield from _walk(part, part_hint, join(path, name), part_owner)
    else:
        yield Field(path=path, value=value, hint=_typable(hint, value), owner=owner)


def _parts(value: Any, hint: Any) -> list[tuple[str, Any, Any]]:
    """Name, value and type of the parts that are set one by one; nothing for a value that is set as a whole."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return [(f.name, getattr(value, f.name), hints.get(f.name, Any)) for f in dataclasses.fields(value) if f.init]
    if isinstance(value, Mapping) and value:
        return [(str(key), item, type(item)) for key, item in value.items()]
    if isinstance(value, tuple | list) and any(dataclasses.is_dataclass(i) or callable(i) for i in value):
        return [(str(i), item, type(item)) for i, item in enumerate(value)]
    return []


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError):  # a name only type checkers see: the type of the value stands in
        return {}


def _typable(hint: Any, value: Any) -> Any:
    """The part of a type hint that text can express, or None."""
    if hint in (Any, object):
        hint = type(value)
    if isinstance(hint, type) and (hint in _SIMPLE or issubclass(hint, enum.Enum | Path)):
        return hint
    if hasattr(hint, "__value__") or hasattr(hint, "__supertype__"):  # `type X = int` and NewType
        return _typable(getattr(hint, "__value__", None) or hint.__supertype__, value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _typable(args[0], value)
    if origin is Literal:
        return hint
    if origin in (typing.Union, types.UnionType):
        members = [member for arg in args if (member := _typable(arg, None)) is not None]
        return typing.Union[tuple(members)] if any(m is not type(None) for m in members) else None  # noqa: UP007
    if origin in _COLLECTIONS or origin in (Sequence, typing.get_origin(typing.Sequence[int])):
        inner = [arg if arg is Ellipsis else _typable(arg, None) for arg in args]
        return hint if inner and None not in inner else None
    return None


def replace_path(config: C, path: str, value: object) -> C:
    """A copy of the config with one field changed: `replace_path(config, "rollout.group_size", 16)`."""
    names = path.replace("-", "_").split(".")
    return _replace(config, names, value, done="")


def _replace(node: Any, names: Sequence[str], value: object, done: str) -> Any:
    if not names:
        return value
    key = _find(node, names[0], done)
    here = join(done, names[0])
    if isinstance(node, Mapping):
        return {**node, key: _replace(node[key], names[1:], value, here)}
    if isinstance(node, tuple | list):
        items = [_replace(item, names[1:], value, here) if i == key else item for i, item in enumerate(node)]
        return type(node)(items)
    return dataclasses.replace(node, **{key: _replace(getattr(node, key), names[1:], value, here)})


def _find(node: Any, name: str, done: str) -> Any:
    """The field, index or key that `name` stands for; a wrong one is an error that shows what there is."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        choices: dict[str, Any] = {f.name: f.name for f in dataclasses.fields(node) if f.init}
    elif isinstance(node, Mapping):
        choices = {str(key).replace("-", "_"): key for key in node}
    elif isinstance(node, tuple | list):
        choices = {str(i): i for i in range(len(node))}
        labels = [str(getattr(item, "name", "")).replace("-", "_") for item in node]
        choices |= {label: i for i, label in enumerate(labels) if label and labels.count(label) == 1}
    else:
        choices = {}
    if name in choices:
        return choices[name]
    wrong = join(done, name)
    if not choices:
        raise UserError(f"There is no field {wrong}: {done or 'the config'} is {_show(node)} and has no fields.")
    here = [join(done, choice) for choice in difflib.get_close_matches(name, list(choices), n=2, cutoff=0.6)]
    deeper = [f.path for f in config_fields(node) if f.path.split(".")[-1] == name] if not here and not done else []
    hint = f" Did you mean {' or '.join([*here, *deeper][:4])}?" if here or deeper else ""
    raise UserError(f"There is no field {wrong}.{hint} {type(node).__name__} has: {', '.join(choices)}.")


def _show(value: object) -> str:
    return format_value(to_json(value))


def describe_type(hint: Any) -> str:
    """A type in words: `int`, `float or None`, `one of "a", "b"`, `any number of str`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return "True or False"
    if hint is type(None):
        return "None"
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe_type, args))
    if origin is not None:
        inner = [describe_type(arg) for arg in args if arg is not Ellipsis]
        return (
            f"{len(inner)} values: {', '.join(inner)}"
            if origin is tuple and Ellipsis not in args
            else f"any number of {inner[0]}"
        )
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    return getattr(hint, "__name__", str(hint))


def apply_overrides(config: C, argv: Sequence[str]) -> C:
    """A copy of the config with every `--field.sub value` of `argv` applied, in order."""
    for name, words in _options(argv):
        config = _apply(config, name, words)
    return config


def _options(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    options: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options.append((name, [value] if equals else []))
        elif options:
            options[-1][1].append(word)
        else:
            raise UserError(f"What should {word!r} change? A config field is set with --field.sub value.")
    return options


def _apply(config: C, name: str, words: list[str]) -> C:
    path = _canonical(config, name)
    field = next((f for f in config_fields(config) if f.path == path), None)
    if field is None:
        inner = [f"--{f.path}" for f in config_fields(config) if f.path.startswith(f"{path}.") and f.hint is not None]
        advice = f" Set one of its fields: {', '.join(inner[:8])}." if inner else ""
        raise UserError(f"--{path} holds a whole config and cannot be set at once.{advice} {_write_a_file(path)}")
    if field.hint is None:
        what = "a function" if isinstance(field.value, Callable) else "fixed"
        raise UserError(
            f"--{path} is {what} ({_show(field.value)}) and cannot be set on the command line. {_write_a_file(path)}"
        )
    return replace_path(config, path, _parse(field, words))


def _canonical(config: object, name: str) -> str:
    """The path with names of tuple items turned into indices."""
    node, parts = config, []
    names = name.replace("-", "_").split(".")
    for i, part in enumerate(names):
        key = _find(node, part, ".".join(names[:i]))
        node = getattr(node, key) if dataclasses.is_dataclass(node) else node[key]  # pyright: ignore[reportIndexIssue]
        parts.append(str(key))
    return ".".join(parts)


def _write_a_file(path: str) -> str:
    top = path.partition(".")[0]
    return (
        f"To put something else there, write it in a Python file, mine.py: `mine = dataclasses.replace(config, {top}=...)`, "
        f"and type: maypole run path/to/mine.py:mine"
    )


def _parse(field: Field, words: list[str]) -> Any:
    import tyro  # here and not above: 70 ms that the first line of a run should not wait for

    optional = type(None) in typing.get_args(field.hint)
    if field.hint is bool or bool in typing.get_args(field.hint):
        words = [word.capitalize() if word.lower() in ("true", "false") else word for word in words] or ["True"]
    if optional:
        words = ["None" if word.lower() == "none" else word for word in words]
    holder = dataclasses.make_dataclass("Value", [("value", field.hint)])
    try:
        marks = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
        with contextlib.redirect_stderr(io.StringIO()):  # tyro's own message would name the holder, not the field
            return tyro.cli(holder, args=["--value", *words], config=marks, console_outputs=False).value
    except SystemExit:
        given = " ".join(words) or "nothing"
        raise UserError(
            f"--{field.path} expects {describe_type(field.hint)}, got {given!r}. It was {_show(field.value)}."
        ) from None
