r"""Numbers in model text for the SynLogic task `operation` (arXiv:2505.19641), with the verdicts of `math-verify` and without.

The official verifier is `math_verify.verify(parse(text), parse(answer))` on the whole text. Plain forms (a number or a fraction,
alone, in a box or between dollars, with plain words around it) are judged here with exact fractions and its rules: two exact
numbers must be equal; if one of them is a decimal, both are rounded to six decimals, except that an integer must be met exactly.
Where the precision of its decimals matters (values that round to an integer, ties), and for all other texts, the library is
asked, but only behind guards: it parses for seconds what is deeply nested, and computes what is written as a power or a
factorial. The library's own time limits need signals, which only the main thread has, so they are off.
"""

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from data.synlogic import parse

__all__ = ["agrees", "final_number"]

_NUMBER = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?"
_RATIO = r"-?(?:0|[1-9][0-9]{0,8})/[1-9][0-9]{0,8}"
_LATEX_RATIO = r"-?\\[dt]?frac\{[1-9][0-9]{0,8}\}\{[1-9][0-9]{0,8}\}"
_WORDS = r"[A-Za-z ,.;:!?'\"()*=\n-]*"
_PLAIN = tuple(
    re.compile(form)
    for form in (
        rf"{_WORDS}\\boxed\{{ ?({_NUMBER}|{_RATIO}|{_LATEX_RATIO}) ?\}}{_WORDS}",
        rf"(?:[A-Za-z ,.;:\n]*[ \n])?(?:\*\*)?({_NUMBER})(?:\*\*)?\.?\s*",
        rf"\s*({_RATIO})\s*",
        rf"(?:[A-Za-z ,.;:\n]*[ \n])?\$({_NUMBER}|{_RATIO}|{_LATEX_RATIO})\$\.?\s*",
        rf"(?:[A-Za-z ,.;:\n]*[ \n])?\\\(({_NUMBER}|{_RATIO}|{_LATEX_RATIO})\\\)\.?\s*",
    )
)
_READABLE = re.compile(
    r"(-?)(?:([0-9]{1,40}(?:\.[0-9]{1,40})?)|([0-9]{1,40})/([0-9]{1,40})|\\[dtc]?frac\{([0-9]{1,40})\}\{([0-9]{1,40})\})"
)

_MAX_TEXT = 1_000
_MAX_NUMBERS = 60
_MAX_REGION = 50  # of one formula; the library's parser takes a millisecond per character
_MAX_LETTERS = 12  # of one formula, outside of commands: no product of many symbols
_MAX_DEPTH = 3
_MAX_POWER = 1_000  # of all exponents multiplied
_KNOWN = """
boxed fbox frac dfrac tfrac cfrac text textbf mathrm mathbf mathit left right cdot times div sqrt approx pm quad qquad
displaystyle ldots dots cdots pi implies Rightarrow rightarrow to therefore triangle triangledown nabla diamond Diamond circ
bigcirc star bigstar square Box heartsuit diamondsuit odot oplus otimes le leq ge geq lt gt ne neq
"""
_COMMANDS = frozenset(_KNOWN.split())  # none of them computes anything large
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\{[^{}]*\}|\\[A-Za-z]+")
_REGIONS = re.compile(r"\$\$?([^$]*)\$|\\\((.*?)\\\)|\\\[(.*?)\\\]|\s\[([^][]*)\]\s", re.DOTALL)
_FUNCTION = re.compile("arc|cos|cot|csc|det|exp|gcd|int|lg|lim|ln|log|max|min|sec|sin|sum|tan")  # LaTeX or not
_CALCULATION = re.compile(r"[0-9.\s+\-*/^()×÷]{80}")
_BOLD = re.compile(r"(?:^\s?|(?<=[^0-9)}\]]\s)|(?<=[:：\n]))\*\*")  # opens bold words: nothing stands before it
_POWER = re.compile(r"\*\*|\^")
_EXPONENT = re.compile(
    r"\s*(?:\{\s*-?([0-9]{1,3})\s*\}|\(\s*-?([0-9]{1,3})\s*\)|-?([0-9]{1,3})(?![0-9.]))(?!\s*[)}]*\s*(?:\*\*|\^|!))"
)
_HARMLESS_EXPONENT = re.compile(r"\s*(?:[A-Za-z]|\{[A-Za-z ]{1,20}\}|\{?\\circ|\\boxed|[,.:;!?)。，：；！]|$)")
_BIG_FACTORIAL = re.compile(r"[0-9]{3}\s*!|[)}\]|.]\s*!|[0-9]\s*!\s*!")
_BIG_ROOT = re.compile(r"\\sqrt\[(?![0-9]{1,2}\])")
_LONG_NUMBER = re.compile(r"[0-9]{41}")
_PERCENT_POWER = re.compile(r"%(?:\\right|[\s)}\]])*(?:\^|\*\*)")


def agrees(text: str, answer: str) -> bool:
    """The official verdict: whether the library finds that the text and the answer are the same number."""
    found, right = _plain(text), _plain(answer)
    if found is not None and right is not None:
        verdict = _same(found, right)
        if verdict is not None:
            return verdict
    return _harmless(text) and _harmless(answer) and _library(text, answer)


def final_number(text: str) -> Fraction | None:
    r"""The number in the last `\boxed{}`, or the one that the whole text is; None where it is no plain number."""
    box = parse.last_box_balanced(text)
    if box is None:
        if "\\boxed" in text:
            return None
        box = text
    elif not all(rest.startswith(box + "}") for rest in text.split("\\boxed{")[1:]):
        return None  # boxes that differ are no answer, for the official verifier neither
    match = _READABLE.fullmatch(box.strip().removeprefix("$").removesuffix("$").strip().removeprefix("+"))
    if match is None:
        return None
    top, bottom = match[2] or match[3] or match[5], int(match[4] or match[6] or 1)
    return Fraction(match[1] + top) / bottom if bottom else None


def _plain(text: str) -> tuple[Fraction, bool] | None:
    """(the value, whether it is written as a decimal) of a text in one of the plain forms."""
    if len(text) > parse.MAX_CHARS:
        return None
    for form in _PLAIN:
        match = form.fullmatch(text)
        if match:
            digits = match[1]
            if "frac" in digits:
                top, bottom = re.findall("[0-9]+", digits)
                value = Fraction(int(top), int(bottom))
                return (-value if digits[0] == "-" else value), False
            return Fraction(digits), "." in digits
    return None


def _same(a: tuple[Fraction, bool], b: tuple[Fraction, bool]) -> bool | None:
    """Whether both are equal for the library; None where that depends on the precision of its decimals."""
    (x, x_is_decimal), (y, y_is_decimal) = a, b
    if x == y:
        return True
    if not (x_is_decimal or y_is_decimal) or abs(x - y) > Fraction(1, 500_000):
        return False
    # Decimals are compared after rounding, but not with an integer.
    if any(value.denominator == 1 and not is_decimal for value, is_decimal in (a, b)):
        return False
    rounded = round(x, 6)
    ties = (abs(value * 10**6 % 1 - Fraction(1, 2)) < Fraction(1, 10**6) for value in (x, y))
    if rounded.denominator == 1 or abs(x) > 10**8 or any(ties):
        return None
    return rounded == round(y, 6)


def _harmless(text: str) -> bool:
    """Whether the library judges the text in some milliseconds: it is short, flat, and computes nothing large."""
    if len(text) > _MAX_TEXT or not 1 <= len(re.findall("[0-9]+", text)) <= _MAX_NUMBERS:
        return False
    if any(name not in _COMMANDS for name in _COMMAND.findall(text)):
        return False
    if any(pattern.search(text) for pattern in (_BIG_ROOT, _LONG_NUMBER, _CALCULATION, _PERCENT_POWER)):
        return False
    computed = text
    if not any(sign in text for sign in ("$", "\\(", "\\[")):
        text = _BOLD.sub("", text)
        computed = text.rpartition("}")[0] + "}" if "\\boxed{" in text else text  # what follows is words
    if _BIG_FACTORIAL.search(computed):
        return False
    power = 1
    for match in _POWER.finditer(text):
        exponent = _EXPONENT.match(text, match.end())
        if exponent:
            power *= max(1, int(exponent[1] or exponent[2] or exponent[3]))
        elif not _HARMLESS_EXPONENT.match(text, match.end()):
            return False
    if power > _MAX_POWER:
        return False
    formulas = _formulas(text)
    # The library takes seconds, or never ends, where a percentage is raised to a power or stands under or beside a root.
    if any("%" in formula and ("\\sqrt" in formula or _POWER.search(formula)) for formula in formulas):
        return False
    return all(_small(formula) for formula in formulas)


def _formulas(text: str) -> list[str]:
    """What the library may read as LaTeX: the text of the last box, and everything between dollars or brackets."""
    regions = [next((part for part in match.groups() if part is not None), "") for match in _REGIONS.finditer(text)]
    last = text.rpartition("\\boxed{")[2]
    return [*regions, last.rpartition("}")[0]] if "\\boxed{" in text else regions


def _small(formula: str) -> bool:
    depth = deepest = 0
    for char in formula:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    words = _TEXT.sub("", formula)
    short = len(formula) <= _MAX_REGION and sum(char.isalpha() for char in words) <= _MAX_LETTERS
    return short and deepest <= _MAX_DEPTH and formula.count("\\sqrt") <= 2 and not _FUNCTION.search(formula.lower())


def _library(text: str, answer: str) -> bool:
    import math_verify  # takes a second: only odd texts need it

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    try:
        found: list[Any] = math_verify.parse(text, parsing_timeout=0)
        return bool(math_verify.verify(found, _parsed(answer), timeout_seconds=0))
    except Exception:  # the official verifier takes any error for a wrong answer
        return False


@functools.lru_cache(maxsize=256)
def _parsed(answer: str) -> list[Any]:
    import math_verify

    return math_verify.parse(answer, parsing_timeout=0)
