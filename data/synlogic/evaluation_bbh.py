"""BBH verdicts: the answer is searched for in the whole text (SynLogic, arXiv:2505.19641, evaluation).

Two places are looked at. First the rest of the line after "the answer is ", without the line's last character, which the
published pattern takes for a full stop; "the" is there only a character of "the|T" before the space. Then the whole text.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence

from framework.sample import Sample

__all__ = ["BBH"]

Judge = Callable[[Sample, str], bool]

_STATED = re.compile(r"[the|T] answer is (.*).")
_STATED_NUMBER = re.compile(r"[the|T] answer is ([-0-9]+)(?=.)")  # so a number that ends the text loses its last digit
_NUMBER = re.compile(r"[-0-9]+")
_BOOLEAN = re.compile(r"\b(?:true|false)\b", re.IGNORECASE)
_VALIDITY = re.compile(r"\b(?:valid|invalid)\b", re.IGNORECASE)
_CHOICE = re.compile(r"\([A-Z]\)")
_YES_NO = re.compile(r"\b(?:Yes|No|yes|no)\b")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_PLAUSIBLE = (r"no|not plausible", r"yes|plausible")
_TRUTHFUL = (
    r"no|does not tell the truth|is not telling the truth",
    r"yes|tells the truth|is telling the truth",
)


def _stated(text: str) -> str | None:
    match = _STATED.search(text)
    return match[1].strip() if match else None


def _first(pattern: re.Pattern[str], text: str) -> str:
    """The first match in the stated answer, else in the whole text, else ""."""
    match = pattern.search(_stated(text) or "") or pattern.search(text)
    return match[0] if match else ""


def _boolean(sample: Sample, text: str) -> bool:
    """This verifier alone reads a full response: the first answer block after the thinking, or all of that part."""
    if "</think>" in text:
        text = text.split("</think>")[1]
    block = _ANSWER.search(text) if "</answer>" in text else None
    return _first(_BOOLEAN, block[1].strip() if block else text) == sample.answer


def _yes_no(sample: Sample, text: str) -> bool:
    stated = (_stated(text) or "").lower()
    if stated not in ("yes", "no"):
        match = _YES_NO.search(text)
        stated = match[0] if match else ""
    return stated.capitalize() == sample.answer


def _choice(sample: Sample, text: str) -> bool:
    return _first(_CHOICE, text) == sample.answer


def _validity(sample: Sample, text: str) -> bool:
    return _first(_VALIDITY, text).lower() == sample.answer.lower()


def _brackets(sample: Sample, text: str) -> bool:
    stated = _stated(text)
    return (text if stated is None else stated).split() == sample.answer.split()


def _integer(sample: Sample, text: str) -> bool:
    matches = _STATED_NUMBER.search(text), _NUMBER.search(text)
    candidates = [match[match.lastindex or 0] for match in matches if match]
    numbers = [number for number in map(_int, [*candidates, text]) if number is not None]
    return bool(numbers) and numbers[0] == _int(sample.answer)


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _denial_first(sample: Sample, text: str, *, patterns: tuple[str, str]) -> bool:
    """A "no" beats any "yes", in the stated answer and then in the whole text."""
    found = ""
    for part in (_stated(text) or "", text):
        for verdict, pattern in zip(("no", "yes"), patterns, strict=True):
            if not found and re.search(rf"\b(?:{pattern})\b", part, re.IGNORECASE):
                found = verdict
    return found == sample.answer.lower()


def _words(sample: Sample, text: str) -> bool:
    """The listed words in the order of their last occurrences."""
    _, listed, rest = sample.question.partition("List:")
    if not listed:
        return False
    rest = rest.partition("List:")[0]
    words = rest.partition("\n")[0].split()
    found = _last_occurrences(words, _stated(text) or "") or _last_occurrences(words, text)
    return found == sample.answer.split()


def _last_occurrences(words: Sequence[str], text: str) -> list[str]:
    pattern = "|".join(rf"\b{re.escape(word)}\b" for word in words)
    matches = re.findall(pattern, text) if words else []
    return list(dict.fromkeys(reversed(matches)))[::-1]


BBH: Mapping[str, Judge] = {
    "boolean_expressions": _boolean,
    "causal_judgement": _yes_no,
    "date_understanding": _choice,
    "disambiguation_qa": _choice,
    "dyck_languages": _brackets,
    "formal_fallacies": _validity,
    "geometric_shapes": _choice,
    "hyperbaton": _choice,
    "logical_deduction_five_objects": _choice,
    "logical_deduction_seven_objects": _choice,
    "logical_deduction_three_objects": _choice,
    "movie_recommendation": _choice,
    "multistep_arithmetic_two": _integer,
    "navigate": _yes_no,
    "object_counting": _integer,
    "penguins_in_a_table": _choice,
    "reasoning_about_colored_objects": _choice,
    "ruin_names": _choice,
    "salient_translation_error_detection": _choice,
    "snarks": _choice,
    "sports_understanding": functools.partial(_denial_first, patterns=_PLAUSIBLE),
    "temporal_sequences": _choice,
    "tracking_shuffled_objects_five_objects": _choice,
    "tracking_shuffled_objects_seven_objects": _choice,
    "tracking_shuffled_objects_three_objects": _choice,
    "web_of_lies": functools.partial(_denial_first, patterns=_TRUTHFUL),
    "word_sorting": _words,
}
