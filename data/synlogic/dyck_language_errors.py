"""Dyck language errors: the position of the first bracket error (SynLogic, arXiv:2505.19641, task `dyck_language_errors`).

The answer is 1-based; -1 when there is no error; length + 1 when brackets stay open at the end. Compact form: `dyckerr ([)]`,
answer `3`: the short form is the official one. Repaired: lengths are even, so that balanced sequences exist in the share
asked for (the official generator makes 3-5 % instead of 20 %), and every label is computed from the final text (the official
one stores None for some balanced texts). The paper's length 15 is 16 here for the same reason.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping

from data.synlogic import base, boards, parse
from data.synlogic.dyck_language import PAIRS, balanced_prefix, stacks
from framework.sample import Sample

__all__ = ["DyckErrorsParams", "DyckLanguageErrors"]

_OFFICIAL_VALID = ("valid", "correct", "合法")
_VALID_WORDS = (*_OFFICIAL_VALID, "有效")
_INTEGER = re.compile(r"[+-]?[0-9]{1,6}")
_ENGLISH = (
    "Find the first closing bracket that does not close the last open one in this bracket sequence: {0}\nAnswer with its position, "
    "counted from 1. If there is none, answer -1 when the sequence is balanced, or its length plus 1 when brackets are left open "
    "at the end.",
    "Read the brackets {0} from the left. At which position (the first is 1) does the sequence stop being legal?\n"
    "If it is balanced answer -1. If the only fault is that something is never closed, answer its length plus one.",
    "Check the sequence below from left to right.\n{0}\nGive one integer: the 1-based position of the first bracket that cannot be "
    "right; if all of them can, -1 when all are matched, or length + 1 when some bracket is never closed.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DyckErrorsParams(base.Params):
    settings: tuple[tuple[int, int], ...]  # one is drawn: (bracket types, even length)
    balanced_share: float = 0.2


LEVELS: Mapping[str, DyckErrorsParams] = {
    "tiny": DyckErrorsParams(settings=((3, 6),)),
    "easy": DyckErrorsParams(settings=((2, 8), (3, 8), (3, 10))),
    "normal": DyckErrorsParams(settings=((3, 10), (3, 16), (4, 20), (4, 30))),
    "hard": DyckErrorsParams(settings=((4, 30), (4, 40), (4, 60))),
}


@dataclasses.dataclass(frozen=True)
class DyckLanguageErrors:
    name: str = "dyck_language_errors"
    levels: Mapping[str, DyckErrorsParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "brackets before the error"
    json_answer: bool = False

    def generate(self, seed: int, params: DyckErrorsParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            types, length = rng.choice(params.settings)
            text = balanced_prefix(rng, types, length, 0)
            wants_error = rng.random() >= params.balanced_share
            if wants_error:
                text = _damage(rng, text, types)
            position = first_error(text)
            if wants_error == (position == -1):  # a damaged text may be balanced by chance: keep the share as asked
                return None
            return base.Draft(
                compact=f"dyckerr {text}",
                english=tuple(wording.format(text) for wording in _ENGLISH),
                answer=str(position),
                meta={"is_valid": position == -1, "first_error_pos": position, "sequence": text},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return str(first_error(_sequence(sample)))

    def worked(self, sample: Sample) -> str:
        """Position and open brackets, character by character; `x` marks the error, `ok` a balanced end."""
        trace = [f"{i}{stack or '.'}" for i, stack in enumerate(stacks(_sequence(sample)), start=1)]
        error = first_error(_sequence(sample))
        return " ".join([*trace, "ok" if error == -1 else f"{error}x"])

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        truth = first_error(_sequence(sample))
        last = len(_sequence(sample)) + 1
        near = [truth - 1, truth + 1, -1, last]
        rng.shuffle(near)
        # Further off only when every neighbour is the truth or out of range, which needs no luck.
        plausible: Iterator[str] = (str(n) for n in (*near, *range(1, last)) if n == -1 or 1 <= n <= last)
        return base.first_rejected(self, sample, plausible)

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """Official: "valid" or "correct" anywhere means -1 (so does "invalid"), else the text is "-1" or `int(text)` the truth.

        Strict: these words count only when they are the whole answer, and the integer has ASCII digits.
        """
        if parse.too_long(answer):
            return False
        truth = _truth(sample)
        text = answer.strip()
        if mode == "official":
            if any(word in text.lower() for word in _OFFICIAL_VALID):
                text = "-1"
            if truth == -1:
                return text == "-1"
            try:
                return int(text) == truth
            except ValueError:
                return False
        if text.lower() in _VALID_WORDS:
            return truth == -1
        return _INTEGER.fullmatch(text) is not None and int(text) == truth

    def difficulty(self, sample: Sample) -> float:
        return len(stacks(_sequence(sample)))

    def show(self, sample: Sample, solved: bool = False) -> str:
        text, truth = _sequence(sample), first_error(_sequence(sample))
        mark = "balanced" if truth == -1 else f"{' ' * (truth - 1)}^ {truth}"
        return boards.block(f"{text}\n{mark}" if solved else text)


def first_error(text: str) -> int:
    """The label of a bracket string: 1-based position of the first error, length + 1 if left open, -1 if balanced."""
    trace = stacks(text)
    if len(trace) < len(text):
        return len(trace) + 1
    return len(text) + 1 if trace and trace[-1] else -1


def _sequence(sample: Sample) -> str:
    meta = sample.meta
    return meta["sequence"] if "sequence" in meta else meta["bracket_string"]  # the second in published records


def _truth(sample: Sample) -> int | None:
    """The stored label: None in those published records whose damaged sequence is balanced by chance."""
    return -1 if sample.meta["is_valid"] else sample.meta["first_error_pos"]


def _damage(rng: random.Random, text: str, types: int) -> str:
    """Change one closer, drop one closer (a random bracket is appended), or insert a closer; the length stays."""
    closers = [i for i, char in enumerate(text) if char in ")]}>"]
    at = rng.choice(closers)
    kind = rng.randrange(3)
    if kind == 0 and types > 1:
        wrong = [pair[1] for pair in PAIRS[:types] if pair[1] != text[at]]
        return text[:at] + rng.choice(wrong) + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + 1 :] + rng.choice(PAIRS[rng.randrange(types)])
    where = rng.randrange(len(text))
    return (text[:where] + PAIRS[rng.randrange(types)][1] + text[where:])[: len(text)]
