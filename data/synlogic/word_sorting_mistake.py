r"""Word sorting mistake: the first wrong step of a radix sort told in thoughts (SynLogic, arXiv:2505.19641, task
`word_sorting_mistake`).

Compact form: `check ant,bee,ace: 1aba 2ant?ace<bee 3nc 4ace<ant<bee` with the short answer `no`, or the number of the first wrong
thought. Odd thoughts read letters (`-` where a word has ended), even ones state the order so far, `?` between words that are
still to be sorted. The official answer is `\boxed{4}` or `\boxed{No}`; `Sample.answer` is the published answer, a number or null,
as JSON. The strict verifier accepts the answer without a box as well (its one widening) and reads ASCII digits only. Repaired: a
mistake is made at a step that exists and can be wrong, so the share of clean texts is the one asked for.
"""

import dataclasses
import json
import random
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.words import WORDS
from framework.sample import Sample

__all__ = ["WordSortingMistake", "WordSortingMistakeParams"]

_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    *("eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth"),
)
_MAX_PROMPT = 7_800  # characters, so that a prompt fits the paper's 2,048 tokens
_SHORT = re.compile(r"(?i:no)|[0-9]{1,6}")
_ENGLISH = (
    "The words {0} are put into alphabetical order, letter by letter, in numbered thoughts. Words that are not yet told "
    "apart stand in square brackets with ? between them.\n{1}\nAt most one thought makes a mistake (a misread letter, "
    "groups in the wrong order, joined or repeated); later thoughts build on it. Write the number of the first wrong "
    "thought as \\boxed{{N}}, or \\boxed{{No}} if all of them are right.",
    "Somebody sorts these words alphabetically: {0}.\n{1}\nEach thought either reads one letter of some words (with its "
    "place in the alphabet, 0 where the word has ended) or states the order reached so far. Which thought is the first "
    "wrong one? Answer \\boxed{{number}}, or \\boxed{{No}} when there is no mistake.",
    "Find the first mistake in a sorting of {0}.\nWords are grouped by their first letter, then each group of two or more "
    "by its next letter, and so on.\n{1}\nGive the number of the earliest thought that misreads a letter or orders the "
    "groups wrongly in \\boxed{{}}; if nothing is wrong write \\boxed{{No}}.",
)

# JSON: ["read", position, words, letters] or ["have", groups of words].
Step = list[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordSortingMistakeParams(base.Params):
    words: tuple[int, ...]  # one is drawn: how many words
    max_letters: int = 20
    mistake_rate: float = 0.9
    last_step: int = 10  # a mistake is made in one of the first steps, as published


LEVELS: Mapping[str, WordSortingMistakeParams] = {
    "tiny": WordSortingMistakeParams(words=(3,), max_letters=4, mistake_rate=0.8),
    "easy": WordSortingMistakeParams(words=(5,)),
    "normal": WordSortingMistakeParams(words=(5, 10, 15, 20)),
    "hard": WordSortingMistakeParams(words=(20, 25, 30), last_step=30),
}


@dataclasses.dataclass(frozen=True)
class WordSortingMistake:
    name: str = "word_sorting_mistake"
    levels: Mapping[str, WordSortingMistakeParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )
    measure: str = "thoughts to check"
    json_answer: bool = True

    def generate(self, seed: int, params: WordSortingMistakeParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            words = rng.sample([word for word in WORDS if len(word) <= params.max_letters], rng.choice(params.words))
            steps = _sorting(words)
            if rng.random() < params.mistake_rate:
                steps = _sorting(words, rng, rng.choice(_spoilable(steps)[: params.last_step]))
            english = tuple(text.format(", ".join(words), _told(steps)) for text in _ENGLISH)
            if not steps or max(map(len, english)) > _MAX_PROMPT:
                return None
            return base.Draft(
                compact=f"check {','.join(words)}: {_compact(steps)}",
                english=english,
                answer=json.dumps(_first_mistake(words, steps)),
                meta={"words": words, "steps": steps},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        """Found by sorting again; published records have their steps as a text only, and there it is the stored answer."""
        meta = sample.meta
        mistake = _first_mistake(meta["words"], meta["steps"]) if "steps" in meta else json.loads(sample.answer)
        return _in_form(sample, mistake)

    def worked(self, sample: Sample) -> str:
        """The right thoughts up to the first difference, then the thought that differs with an `x`."""
        words, steps = sample.meta["words"], sample.meta["steps"]
        mistake, right = _first_mistake(words, steps), _sorting(words)
        return _compact(right) + " ok" if mistake is None else f"{_compact(right[:mistake])} {mistake}x"

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        others: list[int | None] = [None, *range(1, len(sample.meta["steps"]) + 1)]
        rng.shuffle(others)
        return base.first_rejected(self, sample, (_in_form(sample, other) for other in others))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """The last box holds the number of the mistake, or "no" where there is none; case does not matter."""
        if parse.too_long(answer):
            return False
        box = parse.last_box(answer)
        if box is None and mode == "strict" and "\\boxed" not in answer:
            box = answer
        if box is None:
            return False
        given, stored = box.strip(), json.loads(sample.answer)
        truth = "no" if stored is None else str(stored).lower()
        if mode == "strict" and _SHORT.fullmatch(given) is None:
            return False
        if given.isdigit():  # a superscript is a digit, too, but no number
            return _int(given) is not None and _int(given) == _int(truth)
        return given.lower() == truth

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["steps"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        steps = sample.meta["steps"]
        mistake = _first_mistake(sample.meta["words"], steps) if solved else None
        lines = [("x " if i == mistake else "  ") + _thought(i, step) for i, step in enumerate(steps, start=1)]
        lines += ["", f"first mistake: {'none' if mistake is None else mistake}"] if solved else []
        return boards.block("\n".join([" ".join(sample.meta["words"]), *(line.rstrip() for line in lines)]))


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _first_mistake(words: Sequence[str], steps: Sequence[Step]) -> int | None:
    """The number of the first step that differs from a correct sorting: up to there both are the same."""
    pairs = zip(steps, _sorting(words), strict=False)
    return next((number for number, (given, right) in enumerate(pairs, start=1) if given != right), None)


def _sorting(words: Sequence[str], rng: random.Random | None = None, wrong: int = 0) -> list[Step]:
    """The steps of sorting `words`, step number `wrong` spoiled by `rng`; no steps if it then never ends."""
    steps: list[Step] = []
    state, position = [list(words)], 0
    while any(len(group) > 1 for group in state):
        if position == len(_ORDINALS):
            return []
        done: list[list[str]] = []
        for at, group in enumerate(state):
            if len(group) == 1:
                done.append(group)
                continue
            letters = [word[position : position + 1] for word in group]
            if rng and len(steps) + 1 == wrong:
                letters = _misread(rng, letters)
            steps.append(["read", position, group, letters])
            found = [[w for w, c in zip(group, letters, strict=True) if c == letter] for letter in sorted(set(letters))]
            if rng and len(steps) + 1 == wrong:
                found = _disordered(rng, found)
            done = [*done, *found]
            steps.append(["have", [*done, *state[at + 1 :]]])
        state, position = done, position + 1
    return steps


def _spoilable(steps: Sequence[Step]) -> list[int]:
    """The numbers of the steps that a mistake can be made at: readings, and orders of at least two new groups."""
    pairs = zip(steps[::2], range(1, len(steps), 2), strict=True)
    return [number for read, first in pairs for number in (first, first + 1)[: min(2, len(set(read[3])))]]


def _misread(rng: random.Random, letters: Sequence[str]) -> list[str]:
    """One letter read as another, more often one that another word of the group has."""
    at = rng.choice([i for i, letter in enumerate(letters) if letter])
    near = sorted(set(letters) - {"", letters[at]})
    anywhere = string.ascii_lowercase.replace(letters[at], "")
    other = rng.choice(near if near and rng.random() < 0.7 else anywhere)
    return [other if i == at else letter for i, letter in enumerate(letters)]


def _disordered(rng: random.Random, groups: Sequence[list[str]]) -> list[list[str]]:
    """Two groups swapped, joined, or one of them repeated."""
    a, b = rng.sample(range(len(groups)), 2)
    kind, out = rng.randrange(3), list(groups)
    if kind == 0:
        out[a], out[b] = out[b], out[a]
    elif kind == 1:
        out[a] = out[a] + out[b]
        del out[b]
    else:
        out.insert(a, out[b])
    return out


def _compact(steps: Sequence[Step]) -> str:
    return " ".join(f"{number}{_short(step)}" for number, step in enumerate(steps, start=1))


def _short(step: Step) -> str:
    if step[0] == "read":
        return "".join(letter or "-" for letter in step[3])
    return "<".join("?".join(group) for group in step[1])


def _told(steps: Sequence[Step]) -> str:
    thoughts = [_thought(number, step) for number, step in enumerate(steps, start=1)]
    return "\n".join([*thoughts, "All words are sorted."])


def _thought(number: int, step: Step) -> str:
    if step[0] == "have":
        return f"Thought {number}: We now have {' < '.join(map(_group, step[1]))}."
    _, position, words, letters = step
    letter = f"the {_ORDINALS[position]} letter"
    start = f"Look at {letter} of each word" if position == 0 else f"Sort {_group(words)} by {letter}"
    places = (string.ascii_lowercase.find(c) + 1 if c else 0 for c in letters)
    read = (f'"{word}": "{c}" ({place})' for word, c, place in zip(words, letters, places, strict=True))
    return f"Thought {number}: {start}. {', '.join(read)}."


def _group(words: Sequence[str]) -> str:
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"[{' ? '.join(quoted)}]"


def _in_form(sample: Sample, mistake: int | None) -> str:
    if sample.meta.get("form") == "compact":
        return "no" if mistake is None else str(mistake)
    return f"\\boxed{{{'No' if mistake is None else mistake}}}"
