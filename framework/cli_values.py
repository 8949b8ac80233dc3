"""Values on the command line that several commands take: sizes in bytes, variables of chat templates."""

import contextlib
import re
from collections.abc import Sequence

from framework.errors import UserError

__all__ = ["in_options", "parse_bytes", "template_values"]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str, option: str) -> int:
    """ "2GiB" -> 2147483648, "500MB" -> 500000000."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UserError(f"{option} {text!r:.40} is no size. Type for example {option} 2GiB, 500MB or 1000000.")
    return size


def template_values(words: Sequence[str]) -> dict[str, str | int | float | bool]:
    """enable_thinking=false -> {"enable_thinking": False}."""
    values: dict[str, str | int | float | bool] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(
                f"--template-value {word!r} is not NAME=VALUE. Type for example --template-value enable_thinking=false"
            )
        values[name] = {"true": True, "false": False}.get(text, _number(text))
    return values


def in_options(message: str) -> str:
    """The engine names its own fields: say how they are typed on the command line."""
    names = ("cache_bytes", "max_length", "slots", "layout", "decode_steps", "max_queue")
    typed = [f"engine.{name} is --{name.replace('_', '-')}" for name in names if f"{name}=" in message]
    return f"{message} (Here {', '.join(typed)}.)" if typed else message


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
