"""Cryptarithm: letters stand for different digits, find the equation (SynLogic, arXiv:2505.19641, task `cryptarithm`).

No number of two or more digits starts with 0, and exactly one assignment makes the equation true. Compact form:
`crypt AB+BA=CC`; the short answer is the equation in digits without spaces, `12+21=33`, which official accepts as well.
Official: the last `digits (+|-|* digits)... = digits` anywhere in the text equals the reference with spaces removed, so the
order of the operands matters, and a later check of the result overrides the right equation. Strict does not let it be a
piece of something longer, such as `12+21=33.5`, `12+21=33+1` or `5-12+21=33`.
"""

import dataclasses
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.cryptarithm_equations import numeral, random_equation, search
from framework.sample import Sample

__all__ = ["Cryptarithm", "CryptarithmParams"]

# Possessive: a chain is read once, as long as it goes. No shorter or later piece of it can be followed by "=".
_CHAIN = re.compile(r"\d++(?:\s*+[-+*]\s*+\d++)*+")
_RESULT = re.compile(r"\s*=\s*-?\d+")
_BEFORE = re.compile(r"(?:\w[ \t]{0,9}[-+*/^]\s{0,9}|\d[.,])\Z")
_AFTER = re.compile(r"\s*[-+*/^]\s*\d|\s*=|[.,]\d|[A-Za-z_]")
_DRAWS = 400  # equations per call of `draw`
_ENGLISH = (
    "Solve the letter puzzle {0}. Equal letters are equal digits, different letters are different digits, and a number of two or "
    'more digits does not start with 0.\nEnd with the line "The answer is <equation in digits>", numbers in the given order.',
    "In {0} every letter hides one digit from 0 to 9. No two letters hide the same digit; leading zeros are not allowed. Which "
    "equation is it?\nWrite the equation with digits, operands in the same order, on the last line: The answer is ...",
    "Replace letters by digits so that {0} holds: one digit for each letter, never the same digit for two letters, no leading "
    'zero in numbers longer than one digit.\nFinish with "The answer is " and the numeric equation, in the order given.',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CryptarithmParams(base.Params):
    letters: tuple[int, ...]  # one is drawn: how many different letters
    operations: tuple[int, ...] = (1,)  # one is drawn: how many operators stand on the left
    operators: str = "+-"  # the published levels 1 and 2; level 3 has "+-*"
    lengths: tuple[int, int] = (3, 6)  # digits of a number on the left, from and to
    short: float = 0.1  # share of numbers with one or two digits


LEVELS: Mapping[str, CryptarithmParams] = {
    "tiny": CryptarithmParams(letters=(2, 3), lengths=(1, 3), short=0.0),
    "easy": CryptarithmParams(letters=(3,), operations=(1, 2)),
    "normal": CryptarithmParams(letters=(4,), operations=(1, 2)),
    "hard": CryptarithmParams(letters=(8,)),
}


@dataclasses.dataclass(frozen=True)
class Cryptarithm:
    name: str = "cryptarithm"
    measure: str = "search nodes of the oracle (digits tried until two solutions or all are known)"
    json_answer: bool = False
    levels: Mapping[str, CryptarithmParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: CryptarithmParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            count, operations = rng.choice(params.letters), rng.choice(params.operations)
            for _ in range(_DRAWS):
                operators = [rng.choice(params.operators) for _ in range(operations)]
                numbers = random_equation(rng, count, operators, params.lengths, params.short)
                if numbers is None:
                    continue
                digits = sorted(set("".join(map(str, numbers))))
                names = rng.sample(string.ascii_uppercase, count)
                table = str.maketrans(dict(zip(digits, names, strict=True)))
                words = [str(number).translate(table) for number in numbers]
                if len(search(words, operators, 2)[0]) == 1:
                    break
            else:
                return None
            equation = _equation(words, operators, " ")
            return base.Draft(
                compact=f"crypt {_equation(words, operators, '')}",
                english=tuple(text.format(equation) for text in _ENGLISH),
                answer=_equation(list(map(str, numbers)), operators, " "),
                meta={
                    "letter_words": words,
                    "operators": operators,
                    "num_letter": count,
                    "operator_num": operations,
                },
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The digit of every letter: `A1 B2 C3`."""
        return " ".join(f"{letter}{digit}" for letter, digit in sorted(_solution(sample).items()))

    def perturb(self, sample: Sample, seed: int) -> str:
        """Two letters exchanged, or one letter with another digit."""
        rng = base.rng_for(self.name, "perturb", seed)
        digits = _solution(sample)

        def candidates() -> Iterator[str]:
            letters = sorted(digits)
            for _ in range(20):
                a, b = rng.choice(letters), rng.choice(letters)
                changed = {**digits, a: digits[b], b: digits[a]} if a != b else {**digits, a: rng.randrange(1, 10)}
                yield _in_form(sample, changed)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        start, end = _last_equation(answer)
        found = answer[start:end].replace(" ", "") == sample.answer.replace(" ", "")
        if mode == "official" or not found:
            return found
        return start < end and not (_BEFORE.search(answer[max(0, start - 20) : start]) or _AFTER.match(answer, end))

    def difficulty(self, sample: Sample) -> float:
        return float(search(sample.meta["letter_words"], sample.meta["operators"], 2)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        words, operators = sample.meta["letter_words"], sample.meta["operators"]
        lines = [words]
        if solved:
            digits = _solution(sample)
            lines.append([numeral(word, digits) for word in words])
        width = max(map(len, words)) + 2
        rows = [
            "   ".join(f"{sign}{line[i]:>{width}}" for line in lines) for i, sign in enumerate([" ", *operators, "="])
        ]
        return boards.block("\n".join(rows))


def _last_equation(text: str) -> tuple[int, int]:
    """Where the last equation starts and ends; (0, 0) when there is none."""
    found, position = (0, 0), 0
    while chain := _CHAIN.search(text, position):
        position = chain.end()
        result = _RESULT.match(text, position)
        if result and not chain[0].isdigit():
            found, position = (chain.start(), result.end()), result.end()
    return found


def _solution(sample: Sample) -> dict[str, int]:
    found, _ = search(sample.meta["letter_words"], sample.meta["operators"], 1)
    if not found:
        raise ValueError(f"cryptarithm: no digits solve {sample.meta['letter_words']}")
    return found[0]


def _equation(terms: Sequence[str], operators: Sequence[str], space: str) -> str:
    signs = [*operators, "="]
    return terms[0] + "".join(f"{space}{sign}{space}{term}" for sign, term in zip(signs, terms[1:], strict=True))


def _in_form(sample: Sample, digits: Mapping[str, int]) -> str:
    terms = [numeral(word, digits) for word in sample.meta["letter_words"]]
    if sample.meta.get("form") == "compact":
        return _equation(terms, sample.meta["operators"], "")
    return f"The answer is {_equation(terms, sample.meta['operators'], ' ')}"
