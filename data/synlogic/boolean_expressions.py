r"""Boolean expressions: which options are true? (SynLogic, arXiv:2505.19641, task `boolean_expressions`).

Compact form: `bool A:!T B:3<5&T` with the short answer `B`; the official answer is `\boxed{B}`. The strict verifier accepts
the bare letters as well (its one widening) and ignores `\text{..}` inside the box; the official one fails on both. Repaired in
the generator: comparisons use comparison operators only, and no contested fact is in the list.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterable, Mapping

from data.synlogic import base, boards, parse
from data.synlogic import boolean_trees as trees
from framework.sample import Sample

__all__ = ["BooleanExpressions", "BooleanParams"]

_LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_ENGLISH = 500  # official: longer expressions are drawn again
# Letters and what may stand between and around them in a box, such as `\{A,\, C\}` or `(A), (C).`; possessive, so one pass.
_LETTERS = re.compile(r"(?:[\s,;.(){}$\\]*+[A-Za-z])++[\s,;.(){}$\\]*+")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm)\{([^{}]*)\}")
_ENGLISH = (
    "Which of these boolean expressions are true?\n{0}\nGive the letters of all true expressions, separated by commas, in "
    "\\boxed{{}}.",
    "Evaluate every option below with the usual rules for not, and, or.\n{0}\nPut the labels of all options that are true, "
    "comma separated, into \\boxed{{}}.",
    "Find out which of the following statements hold.\n{0}\nWrite the letters of those that hold, with commas between them, in "
    "\\boxed{{}}.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BooleanParams(base.Params):
    depths: tuple[int, ...]  # one is drawn for the whole instance
    options: tuple[int, ...]
    growth: trees.Growth = trees.Growth()
    max_chars: int = 500  # of a compact expression; a longer one is drawn again


LEVELS: Mapping[str, BooleanParams] = {
    "tiny": BooleanParams(
        depths=(1, 2),
        options=(2, 3),
        growth=trees.Growth(fact_share=0.0, digits_only=True, max_nots=1),
        max_chars=6,
    ),
    "easy": BooleanParams(
        depths=(2,), options=(3, 4), growth=trees.Growth(fact_share=0.0, digits_only=True, max_nots=2), max_chars=40
    ),
    "normal": BooleanParams(depths=(2, 3, 4), options=(4, 5, 6)),
    "hard": BooleanParams(depths=(4, 5), options=(6, 7, 8)),
}


@dataclasses.dataclass(frozen=True)
class BooleanExpressions:
    name: str = "boolean_expressions"
    levels: Mapping[str, BooleanParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "operators and operands of all options"
    json_answer: bool = False

    def generate(self, seed: int, params: BooleanParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            depth, count = rng.choice(params.depths), rng.choice(params.options)
            options = [trees.grow(rng, depth, params.growth) for _ in range(count)]
            texts = [trees.render(tree, compact=True) for tree in options]
            if len(set(texts)) < count or max(map(len, texts)) > params.max_chars:
                return None
            answer = _joined(trees.value(tree) for tree in options)
            wordy = [trees.render(tree, compact=False) for tree in options]
            if not answer or max(map(len, wordy)) > _MAX_ENGLISH:  # at least one option is true
                return None
            lines = [f"{label}. {text}" for label, text in zip(_LABELS, wordy, strict=False)]
            return base.Draft(
                compact="bool " + " ".join(f"{label}:{text}" for label, text in zip(_LABELS, texts, strict=False)),
                english=tuple(wording.format("\n".join(lines)) for wording in _ENGLISH),
                answer=answer,
                meta={"options": options},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _joined(trees.value(tree) for tree in sample.meta["options"]))

    def worked(self, sample: Sample) -> str:
        """Every option evaluated step by step."""
        options = zip(_LABELS, sample.meta["options"], strict=False)
        return " ".join(f"{label}:{'='.join(trees.reduction(tree))}" for label, tree in options)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        labels = _LABELS[: len(sample.meta["options"])]
        right = set(sample.answer.split(","))
        # One verdict wrong: the most likely slip. At least one letter remains, and no two such sets are equal.
        flips = [right ^ {label} for label in labels if right ^ {label}]
        rng.shuffle(flips)
        return base.first_rejected(self, sample, (_in_form(sample, ",".join(sorted(flip))) for flip in flips))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        r"""Official: the set of ASCII letters in the last `\boxed{}` is the set of true labels; case does not matter."""
        if parse.too_long(answer):
            return False
        box = parse.last_box_balanced(answer)
        if mode == "strict":
            text = _TEXT.sub(r"\1", answer if box is None and "\\boxed" not in answer else box or "").strip()
            # Short before the regular expression: twenty-six labels and their separators fit easily.
            if len(text) > 200 or _LETTERS.fullmatch(text) is None:
                return False
            box = text
        if box is None:
            return False
        return _letters(box) == _letters(sample.answer)

    def difficulty(self, sample: Sample) -> float:
        return sum(_size(tree) for tree in sample.meta["options"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        rows = []
        for label, tree in zip(_LABELS, sample.meta["options"], strict=False):
            verdict = (str(trees.value(tree)).lower(),) if solved else ()
            rows.append((label, f"`{trees.render(tree, compact=False)}`", *verdict))
        return boards.table(("", "expression", *(("value",) if solved else ())), rows)


def _size(tree: trees.Tree) -> int:
    """The nodes of a tree; a comparison is one."""
    return 1 + (sum(map(_size, tree[1:])) if tree[0] in ("not", "and", "or") else 0)


def _letters(text: str) -> set[str]:
    return {char.lower() for char in text if char.isascii() and char.isalpha()}


def _joined(values: Iterable[bool]) -> str:
    return ",".join(itertools.compress(_LABELS, values))


def _in_form(sample: Sample, letters: str) -> str:
    return letters if sample.meta.get("form") == "compact" else f"\\boxed{{{letters}}}"
