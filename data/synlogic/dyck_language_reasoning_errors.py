"""Dyck language reasoning errors: which steps of a stack trace are wrong? (SynLogic, arXiv:2505.19641, task
`dyck_language_reasoning_errors`).

Thought 1 is an introduction, thought 2 says that the stack is empty, then comes one thought for each bracket with the stack after
it, and the last thought says whether the stack is empty at the end. A wrong thought does not spoil the later ones. Compact form:
`reason ([]): 3( 4[ 5( 6. 7ok` (number and stack; `.` is an empty stack, the end is `ok` or `open`) with the answer `4` for its
one error there, or `no`: the short form is the official one. The official verifier deletes everything but digits and commas, so
"1 2" is 12, "-3" is 3 and any text without digits means that nothing is wrong. The strict one wants numbers with commas, or words
that say so; an empty answer says nothing. Repaired: every label is recomputed from the thoughts, lengths are even, and some
traces have no error.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.dyck_language import CLOSER, PAIRS, balanced_prefix, stacks
from framework.sample import Sample

__all__ = ["DyckLanguageReasoningErrors", "DyckReasoningParams"]

_UNCLEAR = ("unclear", "不确定", "不知道")
_NO_ERROR = ("no", "none", "no error", "no errors", "no mistake", "no mistakes", "all correct", "无问题", "无错误")
_NUMBERS = re.compile(r"(?:thoughts?\s+)?[0-9]{1,6}(?:\s*[,，]\s*(?:thought\s+)?[0-9]{1,6})*", re.IGNORECASE)
_NOT_DIGITS = re.compile(r"[^0-9,]")
_THOUGHT = re.compile(r"[^:]*:\s*(\S) ; [^:]*: (.*)", re.DOTALL)  # the word for the stack may be Chinese
_MAX_DIGITS = 4_300  # longer numbers are an error for `int`, which the published verifier takes for "no numbers"
_ENGLISH = (
    "Somebody reads the bracket sequence {0} from the left and notes the stack of open brackets after each one.\n{1}\nA thought "
    "is wrong if its stack is not the right one for the sequence read so far, or if the last one is untrue. Each is judged on its "
    'own.\nAnswer with the numbers of all wrong thoughts, separated by commas (like 3,7), or "no errors".',
    "Check this trace of a stack for {0}: an opening bracket is pushed, a closing bracket removes its partner from the top.\n{1}\n"
    "List the numbers of the thoughts that state a wrong stack or a wrong conclusion, comma separated. A mistake is not carried "
    "on, so compare each thought with the true stack. If there are none, answer: no errors",
    "Which of the following thoughts are mistaken? They track the unclosed brackets while reading {0}.\n{1}\nThought N is mistaken "
    "when the stack it shows (or what it concludes) is not true at this point, whatever the thoughts before it say.\nGive only the "
    'numbers with commas between them, for example 4,9, or write "no errors".',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DyckReasoningParams(base.Params):
    settings: tuple[tuple[int, int], ...]  # one is drawn: (bracket types, even length)
    errors: tuple[int, ...]  # one is drawn: how many thoughts are wrong


LEVELS: Mapping[str, DyckReasoningParams] = {
    "tiny": DyckReasoningParams(settings=((3, 4), (3, 6)), errors=(0, 1, 1, 1, 1, 2)),
    "easy": DyckReasoningParams(settings=((2, 8), (3, 8)), errors=(0, *(1,) * 9)),
    # The published 15 is 16: the official generator rounds up too.
    "normal": DyckReasoningParams(settings=((2, 10), (2, 16), (3, 10), (3, 16)), errors=(0, *(1,) * 19)),
    "hard": DyckReasoningParams(settings=((3, 20), (4, 20), (4, 30)), errors=(0, 1, 2, 3, 4, 5)),
}


@dataclasses.dataclass(frozen=True)
class DyckLanguageReasoningErrors:
    name: str = "dyck_language_reasoning_errors"
    levels: Mapping[str, DyckReasoningParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )
    measure: str = "thoughts to check"
    json_answer: bool = False

    def generate(self, seed: int, params: DyckReasoningParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft:
            types, length = rng.choice(params.settings)
            text = balanced_prefix(rng, types, length, 0)
            shown, closed = list(stacks(text)), True
            for at in sorted(rng.sample(range(length + 1), rng.choice(params.errors))):
                if at == length:
                    closed = False
                else:
                    shown[at] = _spoiled(rng, shown[at], types)
            thoughts = _thoughts(text, shown, closed)
            wrong = _wrong_thoughts(text, thoughts)
            trace = " ".join(f"{i}{stack or '.'}" for i, stack in enumerate(shown, start=3))
            return base.Draft(
                compact=f"reason {text}: {trace} {length + 3}{'ok' if closed else 'open'}",
                english=tuple(wording.format(text, "\n".join(thoughts)) for wording in _ENGLISH),
                answer=",".join(map(str, wrong)),
                meta={"dyck_sequence": text, "thoughts": thoughts, "error_indices": wrong},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _wrong_thoughts(sample.meta["dyck_sequence"], sample.meta["thoughts"]))

    def worked(self, sample: Sample) -> str:
        """The right stack for each thought; `x` marks the ones that say something else."""
        text = sample.meta["dyck_sequence"]
        wrong = _wrong_thoughts(text, sample.meta["thoughts"])
        right = [*(stack or "." for stack in stacks(text)), "ok"]
        return " ".join(f"{i}{stack}{'x' if i in wrong else ''}" for i, stack in enumerate(right, start=3))

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        right = _wrong_thoughts(sample.meta["dyck_sequence"], sample.meta["thoughts"])
        last = len(sample.meta["thoughts"])

        def candidates() -> Iterator[str]:
            for _ in range(20):
                other = rng.randint(3, last)  # one thought more or less, or a neighbour in its place
                if right and rng.random() < 0.5:
                    moved = rng.choice(right)
                    yield _in_form(sample, sorted({i for i in right if i != moved} | {max(3, moved - 1)}))
                else:
                    yield _in_form(sample, sorted(set(right) ^ {other}))

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """The set of numbers equals the set of wrong thoughts; see the module's text for what the modes read as numbers."""
        if parse.too_long(answer):
            return False
        numbers = _official_numbers(answer) if mode == "official" else _strict_numbers(answer)
        return numbers == sorted(set(sample.meta["error_indices"]))

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["thoughts"]) - 2

    def show(self, sample: Sample, solved: bool = False) -> str:
        wrong = _wrong_thoughts(sample.meta["dyck_sequence"], sample.meta["thoughts"]) if solved else []
        lines = [
            f"{'x' if i in wrong else ' '} {thought}" for i, thought in enumerate(sample.meta["thoughts"], start=1)
        ]
        lines += ["", f"wrong: {', '.join(map(str, wrong)) or 'none'}"] if solved else []
        return boards.block("\n".join([sample.meta["dyck_sequence"], *(line.rstrip() for line in lines)]))


def _official_numbers(text: str) -> list[int] | None:
    if any(word in text.lower() for word in _UNCLEAR):
        return None
    parts = [part for part in _NOT_DIGITS.sub("", text.replace("，", ",")).split(",") if part]
    return [] if any(len(part) > _MAX_DIGITS for part in parts) else sorted(set(map(int, parts)))


def _strict_numbers(text: str) -> list[int] | None:
    """Numbers with commas between them or words for none, not an empty text; quotes or brackets may be around, "Thought" before."""
    text = text.strip()
    if len(text) >= 2 and text[0] + text[-1] in ('""', "''", "[]", "()"):
        text = text[1:-1].strip()
    text = text.removesuffix(".")
    if text.lower() in _NO_ERROR:
        return []
    if _NUMBERS.fullmatch(text) is None:
        return None
    return sorted({int(digits) for digits in re.findall("[0-9]+", text)})


def _thoughts(text: str, shown: Sequence[str], closed: bool) -> list[str]:
    said = ["We read the sequence bracket by bracket and keep track of the stack.", "stack: empty"]
    said += [f"{char} ; stack: {stack or 'empty'}" for char, stack in zip(text, shown, strict=True)]
    said.append(f"The sequence has ended. The stack is {'' if closed else 'not '}empty.")
    return [f"Thought {i}: {thought}" for i, thought in enumerate(said, start=1)]


def _wrong_thoughts(text: str, thoughts: Sequence[str]) -> list[int]:
    """The numbers of the wrong thoughts, in order, found by reading them (Chinese ones of published records too)."""
    right = stacks(text)
    wrong = []
    for number, (thought, stack) in enumerate(zip(thoughts[2:-1], right, strict=True), start=3):
        match = _THOUGHT.fullmatch(thought)
        if match is None or match[2] != (stack or ("空" if "栈" in thought else "empty")):
            wrong.append(number)
    open_at_end = bool(right and right[-1])
    says_open = "not empty" in thoughts[-1] or "不为空" in thoughts[-1]
    return [*wrong, len(thoughts)] if says_open != open_at_end else wrong


def _spoiled(rng: random.Random, stack: str, types: int) -> str:
    """Another stack: one bracket too few, one too many (open or closed), or one of another kind."""
    openers = [pair[0] for pair in PAIRS[:types]]
    brackets = [*openers, *(CLOSER[bracket] for bracket in openers)]
    kind = rng.randrange(3) if stack else 1
    if kind == 0:
        return stack[:-1]
    if kind == 1:
        return stack + rng.choice(brackets)
    at = rng.randrange(len(stack))
    return stack[:at] + rng.choice([bracket for bracket in brackets if bracket != stack[at]]) + stack[at + 1 :]


def _in_form(sample: Sample, numbers: Sequence[int]) -> str:
    if numbers:
        return ",".join(map(str, numbers))
    return "no" if sample.meta.get("form") == "compact" else "no errors"
