"""Dyck language: complete a cut bracket sequence (SynLogic, arXiv:2505.19641, task `dyck_language`).

Compact form: `dyck ([{`, answer `([{}])`: the short form is the official one. Repaired: only even total lengths exist (the
official generator silently makes one character less of an odd one) and the wordings show each bracket once.
"""

import dataclasses
import random
import re
from collections.abc import Mapping

from data.synlogic import base, boards, parse
from framework.sample import Sample

__all__ = ["PAIRS", "DyckLanguage", "DyckParams", "balanced_prefix", "stacks"]

PAIRS = ("()", "[]", "{}", "<>")
CLOSER = {pair[0]: pair[1] for pair in PAIRS}

_ENGLISH = (
    "Complete the bracket sequence with closing brackets only, so that every bracket is closed in the right order: {0}\n"
    "Answer with the whole sequence, the given part included, and nothing else.",
    "Here is the beginning of a balanced sequence of brackets.\n{0}\n"
    "Only closing brackets are missing at its end. Add them and give the full sequence, without anything else.",
    "The end of the sequence {0} was cut off; it closed the brackets that are still open and opened no others. Every bracket is "
    "closed by its own kind, the last opened first.\nWrite the complete sequence and nothing else.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DyckParams(base.Params):
    settings: tuple[tuple[int, int, int], ...]  # one is drawn: (bracket types, total length, closers to fill in)
    max_depth: int = 100


LEVELS: Mapping[str, DyckParams] = {
    "tiny": DyckParams(settings=((3, 6, 1), (3, 6, 2), (3, 8, 1), (3, 8, 2), (3, 8, 3))),
    "easy": DyckParams(settings=((2, 10, 2), (3, 10, 3), (3, 12, 3))),
    "normal": DyckParams(settings=((2, 10, 1), (3, 14, 3), (4, 20, 5))),  # the paper's 15 is really 14, see above
    "hard": DyckParams(settings=((4, 30, 8), (4, 40, 10), (4, 50, 12))),
}


@dataclasses.dataclass(frozen=True)
class DyckLanguage:
    name: str = "dyck_language"
    levels: Mapping[str, DyckParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "length of the full sequence"
    json_answer: bool = False

    def generate(self, seed: int, params: DyckParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft:
            types, total, fill = rng.choice(params.settings)
            prefix = balanced_prefix(rng, types, total - fill, fill, params.max_depth)
            full = prefix + _closers(stacks(prefix)[-1])
            return base.Draft(
                compact=f"dyck {prefix}",
                english=tuple(text.format(prefix) for text in _ENGLISH),
                answer=full,
                meta={"full_sequence": full, "prefix": prefix},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return sample.meta["full_sequence"]

    def worked(self, sample: Sample) -> str:
        """The open brackets after each character; the last entry, read backwards, is what must be closed."""
        return " ".join(stack or "." for stack in stacks(_prefix(sample)))

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        full, prefix = sample.meta["full_sequence"], _prefix(sample)
        closers = full[len(prefix) :]
        at = rng.randrange(len(closers))
        wrong = rng.choice([pair[1] for pair in PAIRS[:3] if pair[1] != closers[at]])
        candidates = [full[:-1], prefix + closers[:at] + wrong + closers[at + 1 :], prefix + closers[::-1]]
        rng.shuffle(candidates)
        return base.first_rejected(self, sample, candidates)

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """Equal to the full sequence once white space, written-out escapes and one pair of quotes are gone. Both modes agree."""
        if parse.too_long(answer):
            return False
        text = re.sub(r"\s", "", answer)
        for escape in ("\\n", "\\t", "\\r"):
            text = text.replace(escape, "")
        if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1]
        return text == sample.meta["full_sequence"]

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["full_sequence"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        prefix, full = _prefix(sample), sample.meta["full_sequence"]
        missing = len(full) - len(prefix)
        return boards.block(f"{full}\n{' ' * len(prefix)}{'^' * missing}" if solved else prefix + "_" * missing)


def _prefix(sample: Sample) -> str:
    meta = sample.meta
    return meta["prefix"] if "prefix" in meta else meta["question_sequence"]  # the second in published records


def balanced_prefix(rng: random.Random, types: int, length: int, depth: int, max_depth: int = 100) -> str:
    """A random bracket string of `length` without errors that ends with exactly `depth` open brackets."""
    if (length - depth) % 2 or not 0 <= depth <= min(length, max_depth):
        raise ValueError(f"no bracket string of length {length} ends with {depth} open brackets (depth <= {max_depth})")
    text, stack = "", ""
    for left in range(length, 0, -1):
        may_open = len(stack) < max_depth and len(stack) + 1 - depth <= left - 1
        may_close = bool(stack) and depth - (len(stack) - 1) <= left - 1
        if may_open and (not may_close or rng.random() < 0.5):
            bracket = PAIRS[rng.randrange(types)][0]
            text, stack = text + bracket, stack + bracket
        else:
            text, stack = text + CLOSER[stack[-1]], stack[:-1]
    return text


def stacks(text: str) -> list[str]:
    """The open brackets after each character, up to (and without) the first character that closes nothing."""
    trace, stack = [], ""
    for char in text:
        if char in CLOSER:
            stack += char
        elif stack and CLOSER[stack[-1]] == char:
            stack = stack[:-1]
        else:
            break
        trace.append(stack)
    return trace


def _closers(stack: str) -> str:
    return "".join(CLOSER[bracket] for bracket in reversed(stack))
