"""Mathador, the game of 24: reach a target with given numbers (SynLogic, arXiv:2505.19641, task `mathador`).

Compact form: `mathador 3,5,8=16` with the short answer `3+5+8`; the official answer puts the expression into a python fence.
The official verifier compares the target with itself, so every well-formed expression with the right numbers passes, `**` and
`//` included. The strict one computes with exact fractions, wants the target, forbids both operators, and accepts an
expression without a fence (its one widening).
"""

import dataclasses
import itertools
import operator
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

from data.synlogic import base, parse
from data.synlogic.arithmetic import FRACTIONS, MAX_EXPRESSION, PYTHON, ExpressionError
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
    "Give one expression in a ```python code block.",
    "Here are some numbers: {0}. Combine all of them, each once, so that the result is {2}. Allowed: {1} and parentheses.\n"
    "Answer with the expression inside a ```python block.",
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
}


@dataclasses.dataclass(frozen=True)
class Mathador:
    name: str = "mathador"
    levels: Mapping[str, MathadorParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

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
            if _find_chain(numbers, params.operators, Fraction(result)) is None:
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
        if any(char not in allowed for char in re.sub(r"[0-9 ]", "", text)):
            return False
        if sorted(int(n) for n in re.findall(r"[0-9]+", text)) != sorted(sample.meta["numbers"]):
            return False
        try:
            if mode == "official":
                PYTHON.evaluate(text)
                return True
            return abs(FRACTIONS.evaluate(text) - Fraction(sample.meta["result"])) <= _TOLERANCE
        except ExpressionError:
            return False


def _solution(sample: Sample) -> Chain:
    meta = sample.meta
    chain = _find_chain(meta["numbers"], meta["operators"], Fraction(meta["result"]))
    if chain is None:
        raise ValueError(f"mathador: no chain reaches {meta['result']} from {meta['numbers']}")
    return chain


def _find_chain(numbers: Sequence[int], operators: Sequence[str], result: Fraction) -> Chain | None:
    """The first left-to-right chain that reaches `result`; one with whole intermediate values if there is one."""
    for whole in (True, False):
        for order in dict.fromkeys(itertools.permutations(numbers)):
            ops = _reach(Fraction(order[0]), order[1:], operators, result, whole)
            if ops is not None:
                return order, ops
    return None


def _reach(
    value: Fraction, rest: Sequence[int], operators: Sequence[str], result: Fraction, whole: bool
) -> tuple[str, ...] | None:
    if not rest:
        return () if value == result else None
    if whole and value.denominator != 1:
        return None
    for op in operators:
        if op != "/" or rest[0]:
            ops = _reach(_APPLY[op](value, Fraction(rest[0])), rest[1:], operators, result, whole)
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
