"""Text and JSON lines of a file, with errors that name the place. Imports no jax: reward workers load this file."""

import json
import re
import shlex
from pathlib import Path

from framework.errors import UserError

__all__ = ["parse_line", "read_text"]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        given = "UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "LATIN1"
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line} is not UTF-8: byte {raw[error.start]:#04x} at position {error.start} of the file. "
            f"Convert it, for example with iconv -f {given} -t UTF-8 {shlex.quote(str(path))} > utf8.jsonl"
        ) from error


# An escape that is half of a character, unless its other half stands beside it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_line(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
        half = _half_character(row) if isinstance(row, dict) and _SURROGATE.search(line) else None
    except RecursionError:  # `from None`: its traceback has a thousand lines
        raise UserError(f"{where} has brackets nested too deep to be read. Write a flat JSON object.") from None
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}). Write one JSON object a line.") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is a {type(row).__name__}, not a JSON object. Write one JSON object a line.")
    if half:
        column, character = half
        raise UserError(
            f"{where}: {column!r} holds {character!r}, half of a character, which cannot be written as text. "
            "Write both halves, such as \\ud83d\\ude00, or leave it out."
        )
    return row


def _half_character(row: dict[str, object]) -> tuple[str, str] | None:
    """(column, character) of the first lone surrogate, at any depth."""
    for column, value in row.items():
        text = json.dumps([column, value], ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return column, text[error.start]
    return None
