"""Mathador, the game of 24: reach a target with given numbers (SynLogic, arXiv:2505.19641, task `mathador`).

Compact form: `mathador 3,5,8=16` with the short answer `3+5+8`; the official answer puts the expression into a python fence.
The official verifier compares the target with itself, so every expression with the right numbers that Python can evaluate passes,
`**` and `//` included. The strict one computes with exact fractions, wants the target, forbids both operators, and accepts an
expression without a fence (its one widening).
"""

import dataclasses
import functools
import itertools
import operator
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

from data.synlogic import base, boards, parse
from data.synlogic.arithmetic import FRACTIONS, MAX_EXPRESSION, ExpressionError
from data.synlogic.python_value import python_value
from framework.sample import Sample

__all__ = ["Mathador", "MathadorParams"]

_APPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_TOLERANCE = Fraction(1, 10**10)
_ENGLISH = (
    "Use each of the numbers {0} exactly once, with the operators {1} and parentheses, to reach {2}.\n"
    "Give one expression, without an equals sign, in a ```python code block.",
    "Here are some numbers: {0}. Combine all of them, each once, so that the result is {2}. Allowed: {1} and parentheses.\n"
    "Answer with just the expression, and no equals sign, inside a ```python block.",
    "Make {2} out of {0}. Every number must be used one time; you may write {1} and brackets.\n"
    "Put the expression, without an equals sign, into a ```python fence.",
)

Chain = tuple[tuple[int, ...], tuple[str, ...]]  # numbers in order, operators between them, computed from left to right


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathadorParams(base.Params):
    count: int  # how many numbers
    candidates: tuple[int, ...] = tuple(range(1, 10))
    operators: tuple[str, ...] = ("+", "-", "*", "/")
    result: int | None = 24  # None: the result of a random chain, at most `max_result`
    max_result: int = 40


LEVELS: Mapping[str, MathadorParams] = {
    "tiny": MathadorParams(count=3, operators=("+", "-", "*"), result=None),
    "easy": MathadorParams(count=4, operators=("+", "-", "*"), result=None),
    "normal": MathadorParams(count=4),
    "hard": MathadorParams(count=5, candidates=tuple(range(1, 14))),
}


@dataclasses.dataclass(frozen=True)
class Mathador:
    name: str = "mathador"
    levels: Mapping[str, MathadorParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "chains tried until one reaches the target"
    json_answer: bool = False

    def generate(self, seed: int, params: MathadorParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            numbers = sorted(rng.choice(params.candidates) for _ in range(params.count))
            result = params.result
            if result is None:
                shuffled = rng.sample(numbers, params.count)
                value = Fraction(shuffled[0])
                for number in shuffled[1:]:
                    op = rng.choice([op for op in params.operators if op != "/" or number])
                    value = _APPLY[op](value, Fraction(number))
                if value.denominator != 1 or not 1 <= value <= params.max_result:
                    return None
                result = int(value)
            if _find_chain(numbers, params.operators, result)[0] is None:
                return None
            listed = ", ".join(map(str, numbers))
            return base.Draft(
                compact=f"mathador {','.join(map(str, numbers))}={result}",
                english=tuple(text.format(listed, " ".join(params.operators), result) for text in _ENGLISH),
                answer="",
                meta={"numbers": numbers, "operators": list(params.operators), "result": result},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _expression(_solution(sample)))

    def worked(self, sample: Sample) -> str:
        """The chain of single calculations, `3+5=8 8*2=16`."""
        numbers, ops = _solution(sample)
        value, steps = Fraction(numbers[0]), []
        for op, number in zip(ops, numbers[1:], strict=True):
            after = _APPLY[op](value, Fraction(number))
            steps.append(f"{value}{op}{number}={after}")
            value = after
        return " ".join(steps)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        numbers, ops = _solution(sample)
        choices = [op for op in sample.meta["operators"] if op in "+-*"] or ["+"]

        def candidates() -> Iterator[str]:
            for _ in range(20):  # the right numbers, other operators: what the official verifier still accepts
                yield _in_form(sample, _expression((numbers, tuple(rng.choice(choices) for _ in ops))))
            yield _in_form(sample, "+".join(map(str, numbers[:-1])))

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        text = parse.last_python_block(answer)
        if text is None and mode == "strict" and "```" not in answer:
            text = answer.strip()
        if text is None or len(text) > MAX_EXPRESSION:
            return False
        allowed = {*sample.meta.get("operators", _APPLY), "(", ")"}
        # Python, and so the published verifier, allows line breaks inside of parentheses.
        if any(char not in allowed for char in re.sub(r"[0-9 ]" if mode == "strict" else r"[0-9\s]", "", text)):
            return False
        if sorted(re.findall(r"[0-9]+", text)) != sorted(map(str, sample.meta["numbers"])):
            return False
        try:
            if mode == "official":
                value = python_value(text)
                return abs(value - value) < _TOLERANCE  # as published: infinity and NaN fail, and so does a tuple
            return abs(FRACTIONS.evaluate(text) - Fraction(sample.meta["result"])) <= _TOLERANCE
        except (ExpressionError, TypeError):
            return False

    def difficulty(self, sample: Sample) -> float:
        meta = sample.meta
        return _find_chain(meta["numbers"], meta["operators"], meta["result"])[1]

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        rows = [("numbers", " ".join(map(str, meta["numbers"]))), ("target", meta["result"])]
        rows.append(("operators", "  ".join(f"`{op}`" for op in meta["operators"])))
        if solved:
            rows.append(("one way", f"`{_expression(_solution(sample))} = {meta['result']}`"))
        return boards.table(("", ""), rows)


def _solution(sample: Sample) -> Chain:
    meta = sample.meta
    chain, _ = _find_chain(meta["numbers"], meta["operators"], meta["result"])
    if chain is None:
        raise ValueError(f"mathador: no chain reaches {meta['result']} from {meta['numbers']}")
    return chain


def _find_chain(numbers: Sequence[int], operators: Sequence[str], result: int) -> tuple[Chain | None, int]:
    """The first left-to-right chain that reaches `result`, and the number of chains computed to their end until then.

    A chain with whole intermediate values comes before any other.
    """
    return _search(tuple(numbers), tuple(operators), Fraction(result))


@functools.lru_cache(maxsize=1024)  # an instance is solved when it is drawn, checked, worked out and perturbed
def _search(numbers: tuple[int, ...], operators: tuple[str, ...], result: Fraction) -> tuple[Chain | None, int]:
    tried = itertools.count()
    for whole in (True, False):
        for order in dict.fromkeys(itertools.permutations(numbers)):
            ops = _reach(Fraction(order[0]), order[1:], operators, result, whole, tried)
            if ops is not None:
                return (order, ops), next(tried)
    return None, next(tried)


def _reach(
    value: Fraction, rest: Sequence[int], operators: Sequence[str], result: Fraction, whole: bool, tried: Iterator[int]
) -> tuple[str, ...] | None:
    if not rest:
        next(tried)
        return () if value == result else None
    if whole and value.denominator != 1:
        return None
    for op in operators:
        if op != "/" or rest[0]:
            ops = _reach(_APPLY[op](value, Fraction(rest[0])), rest[1:], operators, result, whole, tried)
            if ops is not None:
                return op, *ops
    return None


def _expression(chain: Chain) -> str:
    """The chain as text, with parentheses only where a sum is multiplied or divided."""
    numbers, ops = chain
    text, is_sum = str(numbers[0]), False
    for op, number in zip(ops, numbers[1:], strict=True):
        text = f"({text}){op}{number}" if op in "*/" and is_sum else f"{text}{op}{number}"
        is_sum = op in "+-"
    return text


def _in_form(sample: Sample, expression: str) -> str:
    return expression if sample.meta.get("form") == "compact" else f"```python\n{expression}\n```"
