"""Reading the answers of `goods_exchange` (SynLogic, arXiv:2505.19641) as the published verifier does, without `eval`."""

import re

from data.synlogic import parse

__all__ = ["last_tuple_block", "owners_of"]

_SPACE = re.compile(r"\s*")
_FENCE = "```python"
_QUOTED = r"(?:'[^'\\\n]*'|\"[^\"\\\n]*\")"
_PAIR = rf"\(\s*{_QUOTED}\s*,\s*{_QUOTED}\s*\)"
_PLAIN = re.compile(rf"\(\s*{_PAIR}(?:\s*,\s*{_PAIR})+\s*,?\s*\)")  # the usual form, which needs no parser


def last_tuple_block(text: str) -> str:
    """The last block between a line "```python" and a line that starts with "```", if it is in parentheses; else "".

    It is what the pattern ```` ```python\\s*\\n(.*?)\\n``` ```` finds, in linear time.
    """
    block, at = "", text.find(_FENCE)
    while at >= 0:
        begin = at + len(_FENCE)
        space = _SPACE.match(text, begin)
        line = text.rfind("\n", begin, space.end()) if space else -1
        close = text.find("\n```", line + 1) if line >= 0 else -1
        if close >= 0:
            block, at = text[line + 1 : close].strip(), text.find(_FENCE, close + 4)
        elif line >= 0:  # no fence closes behind this line; one may close in it, around white space
            empty = text.startswith("```", line + 1) and text.rfind("\n", begin, line) >= 0
            return "" if empty else _in_parentheses(block)
        else:
            at = text.find(_FENCE, begin)
    return _in_parentheses(block)


def _in_parentheses(block: str) -> str:
    return block if block.startswith("(") and block.endswith(")") else ""


def owners_of(text: str) -> tuple[dict[str, str], bool]:
    """(item by person, whether the text says just that: pairs only, each person once).

    A tuple of pairs of texts is read as a literal and other entries of it are skipped; where that fails, the text is cut at
    brackets, commas and quotes, so that words without quotes are read as well.
    """
    owners: dict[str, str] = {}
    if not text:
        return owners, False
    try:
        pairs = _plain_pairs(text) or parse.literal(text)
    except parse.LiteralError:
        return owners, _cut_pairs(text.strip(), owners)
    if not isinstance(pairs, tuple):
        return owners, False
    clean = True
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            clean = False
            continue
        person, item = pair
        if not (isinstance(person, str) and isinstance(item, str)):
            _cut_pairs(text.strip(), owners)  # what the published verifier makes of numbers
            return owners, False
        clean = clean and person.strip() not in owners
        owners[person.strip()] = item.strip()
    return owners, clean


def _plain_pairs(text: str) -> tuple[tuple[str, str], ...]:
    if _PLAIN.fullmatch(text) is None:
        return ()
    words = [word[1:-1] for word in re.findall(_QUOTED, text)]
    return tuple(zip(words[::2], words[1::2], strict=True))


def _cut_pairs(text: str, owners: dict[str, str]) -> bool:
    """Adds the pairs of a text without quotes to `owners`; True iff there was nothing else in it."""
    clean = True
    for group in _groups(text.removeprefix("(").removesuffix(")")):
        inner = group.strip().removeprefix("(").removesuffix(")")
        parts = _split(inner)
        if len(parts) < 2:
            clean = False
            continue
        person, item = (part.strip().strip("'\"") for part in parts[:2])
        clean = clean and len(parts) == 2 and person not in owners
        owners[person] = item
    return clean


def _groups(text: str) -> list[str]:
    """The bracketed groups at top level, commas between them left out."""
    groups, depth, start = [], 0, []
    for char in text:
        if char == "," and depth == 0:
            continue
        depth += (char == "(") - (char == ")")
        start.append(char)
        if char == ")" and depth == 0:
            groups.append("".join(start))
            start = []
    return groups


def _split(text: str) -> list[str]:
    """Parts between commas that are not inside quotes (a quote after a backslash does not count)."""
    parts, current, quoted = [], [], False
    for char in text:
        if char in "\"'" and (not current or current[-1] != "\\"):
            quoted = not quoted
        if char == "," and not quoted:
            parts.append("".join(current).strip())
            current = []
        else:
            current.append(char)
    return [*parts, "".join(current).strip()] if current else parts
