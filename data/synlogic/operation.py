r"""Operation: compute with newly defined operators (SynLogic, arXiv:2505.19641, task `operation`).

One to four symbols get a formula in x and y, some with a condition, and a precedence beside that of + - * / % and **; an
expression with them has to be evaluated. Compact form: `@4:2*x+y; 3@4+1` (precedence, then the formula; `[x is even]` a
condition, `|` otherwise) with the short answer `11`; the official answer is `\boxed{11}`. The reference answer is exact, a whole
number or a fraction such as `-7/3`. The official verifier is `math-verify` on the whole text, about six decimals compared, see
`operation_verdicts`. The strict one compares the number in the last box with exact fractions (with six decimals where a
published record stores a decimal), and accepts a bare number as well (its one widening). The official generator tests
conditions only where both operands are integers; here they are tested on all values, and the rules say what holds for fractions.
"""

import dataclasses
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.operation_formulas import CONDITIONS, FormulaError, Step, draw_operation, evaluate
from data.synlogic.operation_verdicts import agrees, final_number
from framework.sample import Sample

__all__ = ["Operation", "OperationParams"]

_WEIGHTS = {"+": 0.3, "-": 0.3, "*": 0.25, "/": 0.1, "**": 0.05}
_RULES = (
    "abs(a) is the absolute value; a % b = a - b * floor(a / b). Parentheses come first, then operators in this order of "
    "precedence: {0}; those of equal precedence, ** included, from left to right. x and y stand for the whole operands. Even, odd "
    "and multiple are said of whole numbers only: for other numbers such a condition does not hold."
)
_ENGLISH = (
    "New operators are defined:\n{0}\n\n{1}\n\nCompute {2}. Put the exact value, a whole number or a fraction a/b, into "
    "\\boxed{{}}.",
    "These symbols have the following meaning.\n{0}\n\nRules: {1}\n\nWhat is the value of {2}?\n"
    "Answer with \\boxed{{value}}; write a value that is not whole as a fraction in lowest terms.",
    "Evaluate the expression {2}\n\nwhere\n{0}\n\n{1}\n\nGive the result as \\boxed{{number}}, exactly: 5, -12 or 7/3, not "
    "rounded.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperationParams(base.Params):
    symbols: tuple[int, ...]  # one is drawn: how many operators are defined
    size: tuple[int, ...]  # one is drawn: most operands of a formula
    extra: tuple[int, ...] = (0, 1, 2)  # one is drawn: operators of the expression beside one of each symbol
    condition_rate: float = 0.5
    bracket_rate: float = 0.3
    abs_rate: float = 0.4
    operators: tuple[str, ...] = ("+", "-", "*", "/", "**")  # of the formulas
    around: tuple[str, ...] = ("+", "-", "*", "/", "%", "**")  # of the expression
    signs: str = "△▽◇○☆◎□♡♢⊕⊗⊙"
    max_bottom: int = 1_000  # largest denominator of the answer
    max_value: int = 100_000


LEVELS: Mapping[str, OperationParams] = {
    "tiny": OperationParams(
        symbols=(1,),
        size=(3,),
        extra=(0, 1),
        condition_rate=0.0,
        bracket_rate=0.0,
        operators=("+", "-", "*"),
        around=("+", "-"),
        signs="@#&",
        max_bottom=1,
    ),
    "easy": OperationParams(symbols=(1, 2), size=(4,)),
    "normal": OperationParams(symbols=(1, 2, 3, 4), size=(3, 4, 5), extra=(1, 2)),
    "hard": OperationParams(symbols=(4,), size=(5,), extra=(2, 3, 4)),
}


@dataclasses.dataclass(frozen=True)
class Operation:
    name: str = "operation"
    measure: str = "calculations, those inside of definitions included"
    json_answer: bool = False
    levels: Mapping[str, OperationParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: OperationParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            definitions = _draw_definitions(rng, params)
            signs = list(definitions)
            signs += [rng.choice((*params.around, *definitions)) for _ in range(rng.choice(params.extra))]
            rng.shuffle(signs)
            numbers = [rng.randint(1, 10) for _ in range(len(signs) + 1)]
            expression = str(numbers[0]) + "".join(f" {s} {n}" for s, n in zip(signs, numbers[1:], strict=True))
            try:
                result = evaluate(expression, definitions)
            except FormulaError:
                return None
            if abs(result) >= params.max_value or result.denominator > params.max_bottom:
                return None
            told = "\n".join(_told(sign, definitions) for sign in definitions)
            rules = _RULES.format(_order(definitions))
            compact = "; ".join(f"{sign}{_short(definitions[sign])}" for sign in definitions)
            return base.Draft(
                compact=f"{compact}; {expression.replace(' ', '')}",
                english=tuple(text.format(told, rules, expression) for text in _ENGLISH),
                answer=str(result),
                meta={"expression": expression, "symbol_definitions": definitions},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _value(sample))

    def worked(self, sample: Sample) -> str:
        """The operators of the expression in order of evaluation: `3@4=10 10+1=11`."""
        steps: list[Step] = []
        _value(sample, top=steps)
        return " ".join(f"{_operand(a)}{op}{_operand(b)}={result}" for a, op, b, result in steps)

    def perturb(self, sample: Sample, seed: int) -> str:
        """A value that another order of evaluation or a slip gives."""
        rng = base.rng_for(self.name, "perturb", seed)
        right = _value(sample)
        steps: list[Step] = []
        _value(sample, top=steps)

        def candidates() -> Iterator[str]:
            slips = [result for _, _, _, result in steps] + [-right, right + 1, right - 1, right * 2]
            rng.shuffle(slips)
            for slip in [*slips, right + 10]:
                yield _in_form(sample, slip)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        if mode == "official":
            return agrees(answer, sample.answer)
        found = final_number(answer)
        if found is None:
            return False
        try:
            right = Fraction(sample.answer)
        except (ValueError, ZeroDivisionError):
            return False
        if not any(sign in sample.answer for sign in ".e"):
            return found == right
        return abs(found - right) <= Fraction(1, 2_000_000)  # a stored decimal is rounded itself

    def difficulty(self, sample: Sample) -> float:
        work: list[Step] = []
        _value(sample, work=work)
        return float(len(work))

    def show(self, sample: Sample, solved: bool = False) -> str:
        definitions, expression = sample.meta["symbol_definitions"], sample.meta["expression"]
        told = "\n".join(f"- {_told(sign, definitions)}" for sign in definitions)
        shown = f"{told}\n\nPrecedence: {_order(definitions)}\n\n{boards.block(expression)}"
        if not solved:
            return shown
        steps: list[Step] = []
        result = _value(sample, top=steps)
        rows = [(f"{_operand(a)} {op} {_operand(b)}", value) for a, op, b, value in steps]
        return f"{shown}\n\n{boards.table(('step', 'value'), rows)}\n\nValue: **{result}**"


def _value(sample: Sample, top: list[Step] | None = None, work: list[Step] | None = None) -> Fraction:
    return evaluate(sample.meta["expression"], sample.meta["symbol_definitions"], top=top, work=work)


def _draw_definitions(rng: random.Random, params: OperationParams) -> dict[str, dict[str, Any]]:
    """Each symbol may use the ones before it."""
    definitions: dict[str, dict[str, Any]] = {}
    weights = [_WEIGHTS[op] for op in params.operators]
    size = rng.choice(params.size)
    for sign in rng.sample(params.signs, rng.choice(params.symbols)):

        def formula() -> str:
            return draw_operation(
                rng,
                size,
                params.operators,
                weights,
                list(definitions),
                params.bracket_rate,
                params.abs_rate,
                definitions,
            )

        conditions = []
        if rng.random() < params.condition_rate:
            conditions.append({"condition": rng.choice(tuple(CONDITIONS)), "operation": formula()})
        definitions[sign] = {
            "conditions": conditions,
            "default_operation": formula(),
            "associativity": "left",
            "precedence": rng.randint(1, 5),
        }
    return definitions


def _told(sign: str, definitions: Mapping[str, Mapping[str, Any]]) -> str:
    definition = definitions[sign]
    default = definition["default_operation"]
    told = "".join(f"{branch['operation']} if {branch['condition']}, " for branch in definition["conditions"])
    return f"x {sign} y = {told}{'otherwise ' if told else ''}{default}"


def _order(definitions: Mapping[str, Mapping[str, Any]]) -> str:
    """All operators by precedence: `△ > ** > * = / = % = ◇ > + = -`."""
    ranks: dict[int, list[str]] = {3: ["**"], 2: ["*", "/", "%"], 1: ["+", "-"]}
    for sign, definition in definitions.items():
        ranks.setdefault(definition["precedence"], []).append(sign)
    return " > ".join(" = ".join(ranks[rank]) for rank in sorted(ranks, reverse=True))


def _short(definition: Mapping[str, Any]) -> str:
    told = "".join(f"[{one['condition']}]{one['operation'].replace(' ', '')}|" for one in definition["conditions"])
    return f"{definition['precedence']}:{told}{definition['default_operation'].replace(' ', '')}"


def _operand(value: Fraction) -> str:
    """An operand of a written step: negative values and fractions in parentheses."""
    return str(value) if value.denominator == 1 and value >= 0 else f"({value})"


def _in_form(sample: Sample, value: Fraction) -> str:
    return str(value) if sample.meta.get("form") == "compact" else f"\\boxed{{{value}}}"
