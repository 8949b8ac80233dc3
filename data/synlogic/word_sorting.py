r"""Word sorting in a changed alphabet (SynLogic, arXiv:2505.19641, task `word_sorting`).

Some letters are moved to the front of the alphabet; a shorter prefix comes first; decreasing order is the full reverse.
Compact form: `sort zq< ant,zoo,bee` (front letters, `<` increasing or `>` decreasing) with the short answer `zoo,ant,bee`;
the official answer is `\boxed{zoo,ant,bee}`. The strict verifier accepts the bare list as well (its one widening).
"""

import dataclasses
import random
import string
from collections.abc import Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.words import WORDS
from framework.sample import Sample

__all__ = ["WordSorting", "WordSortingParams"]

_ENGLISH = (
    "Sort these words in {1} order, in an alphabet where the letters {2} come first (in this order) and the rest follows as "
    "usual: {0}\nGive the sorted words, separated by commas, in \\boxed{{}}.",
    "Imagine an alphabet that starts with {2} and then goes on normally. Put the words {0} into {1} order.\n"
    "Answer with a comma-separated list in \\boxed{{}}.",
    "The letters {2} are moved to the front of the alphabet, in the order given. Arrange in {1} order: {0}\n"
    "Write the result as \\boxed{{first,second,third}}.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordSortingParams(base.Params):
    front: tuple[int, ...]  # one is drawn: how many letters are moved to the front
    words: tuple[int, ...]  # one is drawn: how many words
    max_letters: int = 20
    distinct_first: bool = False  # no two words begin alike, so the first letter decides


LEVELS: Mapping[str, WordSortingParams] = {
    "tiny": WordSortingParams(front=(1,), words=(3,), max_letters=4, distinct_first=True),
    "easy": WordSortingParams(front=(1, 2), words=(4, 5), max_letters=5),
    "normal": WordSortingParams(front=(2, 3, 4), words=(5, 7, 10, 15)),
    "hard": WordSortingParams(front=(3, 4, 5), words=(20, 25, 30)),
}


@dataclasses.dataclass(frozen=True)
class WordSorting:
    name: str = "word_sorting"
    levels: Mapping[str, WordSortingParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "words to sort"
    json_answer: bool = False

    def generate(self, seed: int, params: WordSortingParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft:
            words = _draw_words(rng, params)
            # One letter begins some word, or the front would change nothing in most short lists.
            initials = sorted({word[0] for word in words})
            first = rng.choice(initials)
            others = rng.sample(string.ascii_lowercase.replace(first, ""), rng.choice(params.front) - 1)
            front = "".join(rng.sample([first, *others], len(others) + 1))
            decreasing = rng.random() < 0.5
            ordered = sorted(words, key=_Order(front), reverse=decreasing)
            direction = "decreasing" if decreasing else "increasing"
            listed = ", ".join(words)
            return base.Draft(
                compact=f"sort {front}{'>' if decreasing else '<'} {','.join(words)}",
                english=tuple(text.format(listed, direction, ", ".join(front)) for text in _ENGLISH),
                answer=",".join(ordered),
                meta={"words": words, "front": front, "decreasing": decreasing},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _sorted(sample))

    def worked(self, sample: Sample) -> str:
        """The letters that decide: the shortest telling beginning of each word, as given and then in order."""
        words, (front, decreasing) = sample.meta["words"], _order_of(sample)
        keys = [_telling_prefix(word, words) for word in words]
        ordered = sorted(keys, key=_Order(front), reverse=decreasing)
        return f"{','.join(keys)}:{','.join(ordered)}"

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        words = _sorted(sample)
        at = rng.randrange(len(words) - 1)
        swapped = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
        plain = sorted(words, reverse=_order_of(sample)[1])  # the front letters forgotten
        candidates = [_in_form(sample, plain), _in_form(sample, swapped)]
        return base.first_rejected(self, sample, candidates if rng.random() < 0.5 else candidates[::-1])

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        """The list in the last box equals the truth, spaces removed; case matters."""
        if parse.too_long(answer):
            return False
        text = parse.last_box(answer)
        if text is None and mode == "strict" and "\\boxed" not in answer:
            text = answer.strip()
        return text is not None and _listed(text) == _listed(sample.answer)

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["words"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        front, decreasing = _order_of(sample)
        rest = "".join(letter for letter in string.ascii_lowercase if letter not in front)
        rows = [("alphabet", f"`{front} {rest}`"), ("order", "decreasing" if decreasing else "increasing")]
        rows.append(("words", ", ".join(sample.meta["words"])))
        if solved:
            rows.append(("sorted", ", ".join(_sorted(sample))))
        return boards.table(("", ""), rows)


def _order_of(sample: Sample) -> tuple[str, bool]:
    """(letters moved to the front, whether the order is decreasing); published records name them otherwise."""
    meta = sample.meta
    if "front" in meta:
        return meta["front"], meta["decreasing"]
    return meta["front_letters"].replace(",", ""), meta["order"] == -1


def _sorted(sample: Sample) -> list[str]:
    front, decreasing = _order_of(sample)
    return sorted(sample.meta["words"], key=_Order(front), reverse=decreasing)


def _listed(text: str) -> list[str]:
    # The full-width comma is official. Only spaces vanish inside of a word, any white space around it.
    return [word.strip() for word in text.replace("，", ",").replace(" ", "").split(",")]


class _Order:
    """Letter positions in the changed alphabet; a list is smaller than its continuations, so shorter prefixes come first."""

    def __init__(self, front: str):
        alphabet = front + "".join(letter for letter in string.ascii_lowercase if letter not in front)
        self._position = {letter: i for i, letter in enumerate(alphabet)}

    def __call__(self, word: str) -> list[int]:
        return [self._position[letter] for letter in word]


def _telling_prefix(word: str, words: Sequence[str]) -> str:
    for size in range(1, len(word)):
        if sum(other.startswith(word[:size]) for other in words) == 1:
            return word[:size]
    return word


def _draw_words(rng: random.Random, params: WordSortingParams) -> list[str]:
    pool = [word for word in WORDS if len(word) <= params.max_letters]
    count = rng.choice(params.words)
    if not params.distinct_first:
        return rng.sample(pool, count)
    letters = rng.sample(sorted({word[0] for word in pool}), count)
    return [rng.choice([word for word in pool if word[0] == letter]) for letter in letters]


def _in_form(sample: Sample, words: Sequence[str]) -> str:
    text = ",".join(words)
    return text if sample.meta.get("form") == "compact" else f"\\boxed{{{text}}}"
