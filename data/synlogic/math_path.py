"""Math path: fill the hidden digits of an equation (SynLogic, arXiv:2505.19641, task `math_path`).

Compact form: `path ?+?*4=14` with the short answer `2+3*4=14`; the official answer is `[[2+3*4 = 14]]`. The official verifier
compares digits and operators in order and lets Python evaluate the rest, so parentheses may move, division may be inexact, and
any expression that Python counts as true passes, such as `[[2+3*4,14]]`.
The strict one wants the query itself with single digits in the holes, whole numbers at every division, and accepts the
equation without brackets (its one widening). `/` must divide exactly and `%` follows Python's sign rule.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator, Mapping

from data.synlogic import base, boards, parse
from data.synlogic.arithmetic import MAX_EXPRESSION, WHOLE, ExpressionError
from data.synlogic.python_value import python_value
from framework.sample import Sample

__all__ = ["MathPath", "MathPathParams"]

_OPERATORS = re.compile(r"[-+*/%]")
_CANONICAL_HOLES = 3  # up to so many holes the smallest filling is the reference, so that it follows from the question
_ENGLISH = (
    "Replace every ? by one digit so that the equation holds: {0}\n/ must divide without rest and % is the remainder, "
    "as in Python (-1 % 3 is 2). Answer with the whole equation as [[expression = value]].",
    "Some digits of this equation are hidden behind question marks.\n{0}\nFind digits that make it true (one for each, division is "
    "exact, % means modulo with the sign of the divisor) and write the full equation in double square brackets.",
    "Fill in the blanks (one digit from 0 to 9 for each ?): {0}\nAll divisions are exact; % is modulo as in Python, so "
    "that -1 % 3 = 2. Give the completed equation in double square brackets: [[expression = value]]",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathPathParams(base.Params):
    operators: tuple[int, ...]  # one is drawn: how many operators
    hidden_percent: tuple[int, ...]  # one is drawn: chance of each digit to be hidden
    symbols: str = "+-*/%"
    max_parentheses: int = 2


LEVELS: Mapping[str, MathPathParams] = {
    "tiny": MathPathParams(operators=(1, 2), hidden_percent=(60,), symbols="+-*", max_parentheses=0),
    "easy": MathPathParams(operators=(4,), hidden_percent=(100,)),  # the official default
    "normal": MathPathParams(operators=(10,), hidden_percent=(50, 60, 70, 80, 90, 100)),
    "hard": MathPathParams(operators=(12, 14, 16), hidden_percent=(100,)),
}


@dataclasses.dataclass(frozen=True)
class MathPath:
    name: str = "math_path"
    levels: Mapping[str, MathPathParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "digits to find"
    json_answer: bool = False

    def generate(self, seed: int, params: MathPathParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            left = _random_expression(rng, params)
            try:
                value = WHOLE.evaluate(left)
            except ExpressionError:
                return None
            share = rng.choice(params.hidden_percent)
            holes = [char.isdigit() and rng.randrange(100) < share for char in left]
            if not any(holes):
                return None
            query = "".join("?" if hole else char for char, hole in zip(left, holes, strict=True))
            if query.count("?") <= _CANONICAL_HOLES:
                left = next(filled for filled in _fillings(query) if _evaluates_to(filled, value))
            return base.Draft(
                compact=f"path {query}={value}",
                english=tuple(text.format(f"{query} = {value}") for text in _ENGLISH),
                answer=f"{left}={value}",
                meta={"ref_expr": f"{left} = {value}", "query_expr": f"{query} = {value}"},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, sample.meta["ref_expr"])

    def worked(self, sample: Sample) -> str:
        """The single calculations of the filled equation, in the order of evaluation."""
        steps: list[str] = []
        WHOLE.evaluate(sample.meta["ref_expr"].partition("=")[0], steps)
        return " ".join(steps)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        right, query = sample.meta["ref_expr"], sample.meta["query_expr"]
        holes = [i for i, char in enumerate(query) if char == "?"]

        def candidates() -> Iterator[str]:
            for _ in range(50):  # one digit off, mostly; a hole below a factor of 0 may take any digit
                at, digit = rng.choice(holes), rng.choice("0123456789")
                yield _in_form(sample, right[:at] + digit + right[at + 1 :])
            yield _in_form(sample, right + "0")

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        text = _last_double_bracket(answer) if mode == "strict" else _last_on_one_line(answer)
        if text is None and mode == "strict" and "[[" not in answer:
            text = answer
        if text is None or len(text) > MAX_EXPRESSION:
            return False
        query = sample.meta["query_expr"]
        try:
            return _strict(text, query) if mode == "strict" else _official(text, query)
        except ExpressionError:
            return False

    def difficulty(self, sample: Sample) -> float:
        return sample.meta["query_expr"].count("?")

    def show(self, sample: Sample, solved: bool = False) -> str:
        query, filled = sample.meta["query_expr"], sample.meta["ref_expr"]
        marks = "".join("^" if char == "?" else " " for char in query).rstrip()
        return boards.block(f"{filled}\n{marks}" if solved else query)


def _strict(text: str, query: str) -> bool:
    text, query = "".join(text.split()), "".join(query.split())
    if len(text) != len(query):
        return False
    if any(t not in "0123456789" if q == "?" else t != q for t, q in zip(text, query, strict=True)):
        return False
    left, _, right = text.partition("=")
    return WHOLE.evaluate(left) == WHOLE.evaluate(right)


def _official(text: str, query: str) -> bool:
    text = text.replace(" ", "")  # so `1 4` is 14
    given, wanted = re.findall(r"[0-9]", text), re.findall(r"[0-9?]", query)
    if len(given) != len(wanted) or any(w not in ("?", g) for g, w in zip(given, wanted, strict=True)):
        return False
    if _OPERATORS.findall(text) != _OPERATORS.findall(query):
        return False
    # Python reads a = b = c as a chain of comparisons, and compares numbers of different kinds by value.
    return bool(python_value(text.replace("=", "==")))


def _last_double_bracket(text: str) -> str | None:
    found = None
    start = text.find("[[")
    while start >= 0 and (end := text.find("]]", start + 2)) >= 0:
        found = text[start + 2 : end]
        start = text.find("[[", end + 2)
    return found


def _last_on_one_line(text: str) -> str | None:
    """The same, with both ends on one line: the published regular expression does not cross lines."""
    found = [_last_double_bracket(line) for line in text.split("\n")]
    return next((body.strip() for body in reversed(found) if body is not None), None)


def _random_expression(rng: random.Random, params: MathPathParams) -> str:
    count = rng.choice(params.operators)
    terms = [rng.choice("0123456789") for _ in range(count + 1)]
    at = 0
    for _ in range(rng.randint(0, params.max_parentheses)):  # disjoint pairs around 2 or 3 numbers, never around all
        size = rng.randint(2, 3)
        start = rng.randint(at, max(at, count))
        if size > count or start + size > count + 1:
            break
        terms[start], terms[start + size - 1] = f"({terms[start]}", f"{terms[start + size - 1]})"
        at = start + size
    return terms[0] + "".join(rng.choice(params.symbols) + term for term in terms[1:])


def _fillings(query: str) -> Iterator[str]:
    parts = query.split("?")
    for digits in itertools.product("0123456789", repeat=len(parts) - 1):
        yield parts[0] + "".join(digit + part for digit, part in zip(digits, parts[1:], strict=True))


def _evaluates_to(expression: str, value: int) -> bool:
    try:
        return WHOLE.evaluate(expression) == value
    except ExpressionError:
        return False


def _in_form(sample: Sample, equation: str) -> str:
    return equation.replace(" ", "") if sample.meta.get("form") == "compact" else f"[[{equation}]]"
