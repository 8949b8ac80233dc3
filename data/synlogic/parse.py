"""Reading model text: tags, boxes, fences, and literals without `eval`. Every function is linear in the text.

The official verifiers of SynLogic (arXiv:2505.19641) run Python's `eval` on eight kinds of answers; here a literal is read by
`ast.literal_eval` after a look at its tokens, so that code, deep nesting and huge numbers end in a `LiteralError` within
microseconds. A text longer than `MAX_CHARS` is never parsed.
"""

import ast
import json
import re
import warnings
from typing import Any

__all__ = [
    "MAX_CHARS",
    "LiteralError",
    "extract_answer",
    "fences",
    "has_format",
    "json_value",
    "last_box",
    "last_box_balanced",
    "last_python_block",
    "literal",
    "too_long",
    "too_many_values",
    "whole_number",
]

MAX_CHARS = (
    20_000  # an honest answer has a few hundred characters; a longer one is an attack on the parser or a runaway
)
MAX_DEPTH = 50
_MAX_DIGITS = 300  # of one number
_MAX_VALUES = 2_500  # of a literal: a grid of 30 x 30 cells counts 930, and Python needs up to 15 microseconds for each

_PYTHON_FENCE = re.compile(r"```python(.*?)```", re.DOTALL)
# Possessive, and a quote that is never closed is found once and not again from each of its characters.
_QUOTED = re.compile(r"'(?:[^'\\\n]++|\\.)*+('?)|\"(?:[^\"\\\n]++|\\.)*+(\"?)")
_COMMENT = re.compile(r"#[^\n]*")
# What may stand outside of quoted texts and comments. Names other than these are code, not data. Atomic and possessive: a long
# number can be cut into numbers in exponentially many ways, and all of them would be tried for a text that is none.
_TOKENS = re.compile(
    r"(?>[][(){},:\s]|True\b|False\b|None\b|[-+]?[ ]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]{1,3})?)*+"
)
_SIGNED = re.compile(r"[+-]?[0-9]{1,300}")


class LiteralError(ValueError):
    """The text is not a literal, or too large or too deep for one."""


def too_long(text: str) -> bool:
    return len(text) > MAX_CHARS


def too_many_values(text: str) -> bool:
    """Whether Python's parser would need more than some 40 milliseconds for this literal: it counts commas and brackets."""
    return sum(map(text.count, ",[({")) > _MAX_VALUES


def extract_answer(text: str) -> str:
    """The text of the first answer block after the thinking, or "" (the official helper, card section 2.2).

    Only the part between the first and the second think-end tag counts, so an answer inside the thinking is ignored and a
    second think-end tag before the answer loses it.
    """
    if "</think>" in text:
        text = text.split("</think>")[1]
    _, opened, rest = text.partition("<answer>")
    body, closed, _ = rest.partition("</answer>")
    return body.strip() if opened and closed else ""


def has_format(text: str) -> bool:
    """True iff `text` is exactly one think block, then exactly one answer block, with only white space around them.

    The paper asks for both pairs of tags; its trainer's code is not published. This is the strict reading.
    """
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    if any(text.count(tag) != 1 for tag in tags):
        return False
    before, thinks, between, answer = (text.find(tag) for tag in tags)
    ordered = before < thinks < between < answer
    gaps = (text[:before], text[thinks + len("</think>") : between], text[answer + len("</answer>") :])
    return ordered and not any(gap.strip() for gap in gaps)


def last_python_block(text: str) -> str | None:
    """The stripped text of the last closed ```python fence, or None."""
    blocks = _PYTHON_FENCE.findall(text)
    return blocks[-1].strip() if blocks else None


def fences(text: str) -> list[tuple[str, str]]:
    """(language, body) of every closed fence from left to right; the language is "" when the fence names none."""
    parts = text.split("```")
    found = []
    for body in parts[1 : len(parts) - (len(parts) % 2 == 0) : 2]:
        head, newline, rest = body.partition("\n")
        named = bool(newline) and re.fullmatch(r"[A-Za-z0-9_+-]*[ \t\r]*", head[:40]) is not None
        found.append((head.strip(), rest) if named else ("", body))
    return found


def last_box_balanced(text: str) -> str | None:
    r"""Variant A: the content of the last `\boxed{`, nested braces matched; None when there is none or it is unbalanced."""
    _, found, rest = text.rpartition(r"\boxed{")
    depth = 1
    for i, char in enumerate(rest if found else ""):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[:i]
    return None


def last_box(text: str) -> str | None:
    r"""Variant B: the content of the last `\boxed{` up to the first `}`; None when there is none."""
    _, found, rest = text.rpartition(r"\boxed{")
    body, closed, _ = rest.partition("}")
    return body if found and closed else None


def whole_number(text: str) -> int | None:
    """The integer that `text` is, as `int()` reads it ("+5", " 05 "), ASCII digits only; None for anything else."""
    text = text.strip()
    return int(text) if _SIGNED.fullmatch(text) else None


def literal(text: str) -> Any:
    """The value of a Python literal: numbers, quoted texts, True, False, None, and lists, tuples, sets, dictionaries of them.

    Raises:
        LiteralError: anything else, and texts too long, too deep or with numbers too long to be an answer.
    """
    text = text.strip()
    # A quote that is never closed stays one quote, which no literal may have.
    bare = _COMMENT.sub("", _QUOTED.sub(lambda found: "''" if found[1] or found[2] else "'", text))
    tokens = bare.replace("''", "")
    if too_long(text) or "\0" in text or _TOKENS.fullmatch(tokens) is None or _too_deep(tokens):
        raise LiteralError("not a literal")
    if too_many_values(tokens):
        raise LiteralError("too many values")
    if re.search(rf"[0-9]{{{_MAX_DIGITS}}}", tokens):
        raise LiteralError("a number is too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes, and of `[1](2)`, which is refused right after
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:  # TypeError: {[]: 1}
        raise LiteralError(str(error)) from error


def json_value(text: str) -> Any:
    """The value of a JSON text. Raises `LiteralError` where it is none, too long, or too deep."""
    if too_long(text) or _too_deep(text):
        raise LiteralError("too long or too deep")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LiteralError(str(error)) from error


def _too_deep(text: str) -> bool:
    depth = deepest = 0
    for char in re.findall(r"[][(){}]", text):
        depth += 1 if char in "[({" else -1
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH
