"""Object counting: whose things are counted? (SynLogic, arXiv:2505.19641, task `object_counting`)

Many sentences say that someone has some objects, some of mine with a story of gains and losses; the question asks for MY
objects of one category, the sum of two categories, or their absolute difference.
Compact form: `count me 3 plums; aunt 4 cats; me 2 dogs ? fruit-animal` with the short answer `1` (a `-` asks for the absolute
difference). The official answer stands in a LaTeX box and is read as `int()` reads it; the last box counts, up to its first
closing brace. The strict verifier wants plain ASCII digits, and accepts the bare number as well (its one widening).
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.object_counting_published import read_question
from data.synlogic.object_names import CATEGORIES, CATEGORY_OF, PEOPLE, PLURALS
from framework.sample import Sample

__all__ = ["ObjectCounting", "ObjectCountingParams", "boxed", "judge_box"]

_MAX_PROMPT = 7_900
_ASIDES = (
    "they were a present",
    "I like them a lot",
    "I keep them at home",
    "they were not cheap",
    "I found them last week",
    "they are rather old",
    "nobody else wants them",
    "I show them to every guest",
)
_BOX = r"Write the number alone into a LaTeX box, like this: \boxed{{12}}."
_ENGLISH = (
    "People talk about what they own.\n\n{0}\n\n{1} Count only what belongs to me, not what others have. " + _BOX,
    "Read this inventory and answer the question at its end.\n\n{0}\n\nQuestion: {1} " + _BOX,
    "Who has how many of what? Here is a list of possessions.\n\n{0}\n\nNow tell me: {1} Things of other people do not count. "
    + _BOX,
    "Let us count objects.\n\n{0}\n\n{1} Add up the right sentences with care. " + _BOX,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectCountingParams(base.Params):
    """Ranges are (smallest, largest); each instance draws one `min_count`, one `min_categories` and one `mine`."""

    min_count: tuple[int, ...] = (5,)
    max_count: int = 100
    min_categories: tuple[int, ...] = (3,)
    max_categories: int = 7
    mine: tuple[tuple[int, int], ...] = ((2, 5),)  # my kinds of objects per category
    others: tuple[int, int] = (25, 40)  # sentences about other people
    stories: tuple[float, float, float] = (0.4, 0.4, 0.2)  # chances of no story, an aside, gains and losses
    names: int = 24  # how many names of a category are in use


LEVELS: Mapping[str, ObjectCountingParams] = {
    "tiny": ObjectCountingParams(
        min_count=(2,), max_count=9, min_categories=(2,), max_categories=2, mine=((1, 2),), others=(1, 2), stories=(1, 0, 0),
        names=4,
    ),
    "easy": ObjectCountingParams(),
    "normal": ObjectCountingParams(
        min_count=tuple(range(5, 61, 5)), min_categories=(3, 4, 5, 6), mine=tuple((n, n + 4) for n in range(2, 7))
    ),
    "hard": ObjectCountingParams(
        min_count=(60,), max_count=999, min_categories=(6,), mine=((6, 9),), others=(40, 50), stories=(0.3, 0.3, 0.4)
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ObjectCounting:
    name: str = "object_counting"
    levels: Mapping[str, ObjectCountingParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )
    measure: str = "sentences and steps of stories told"
    json_answer: bool = False

    def generate(self, seed: int, params: ObjectCountingParams, form: base.Form = "compact") -> Sample:
        return base.emit(self, lambda rng: _draft(rng, params), seed, params, form)

    def solve(self, sample: Sample) -> str:
        return boxed(sample, _count(sample))

    def worked(self, sample: Sample) -> str:
        """My objects of each asked category added up: `fruit 3 animal 2+4=6 6-3=3`."""
        kind, *categories = _query(sample)
        sums = {category: _mine(sample, category) for category in categories}
        parts = []
        for category, counts in sums.items():
            total = f"={sum(counts)}" if len(counts) > 1 else ""
            parts.append(f"{category} {'+'.join(map(str, counts))}{total}")
        totals = [sum(counts) for counts in sums.values()]
        if kind == "sum":
            parts.append(f"{totals[0]}+{totals[1]}={sum(totals)}")
        elif kind == "difference":
            parts.append(f"{max(totals)}-{min(totals)}={max(totals) - min(totals)}")
        return " ".join(parts)

    def perturb(self, sample: Sample, seed: int) -> str:
        """Counts things of others too, forgets a sentence, or is a little off."""
        rng = base.rng_for(self.name, "perturb", seed)
        count = _count(sample)
        numbers = [count + rng.choice((-2, -1, 1, 2))]
        numbers += [count + size for *_, size in rng.sample(_told(sample), min(3, len(_told(sample))))]
        rng.shuffle(numbers)
        return base.first_rejected(self, sample, (boxed(sample, abs(number)) for number in [*numbers, count + 3]))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        return judge_box(sample, answer, mode)

    def difficulty(self, sample: Sample) -> float:
        statements = sample.meta.get("statements")
        return len(_told(sample)) + sum(len(said["steps"]) for said in statements or ())

    def show(self, sample: Sample, solved: bool = False) -> str:
        kind, *categories = _query(sample)
        statements = sample.meta.get("statements")
        story = (
            _story(statements) if statements else "; ".join(f"{who}: {n} {item}" for who, _, item, n in _told(sample))
        )
        text = f"> {story}\n\n**{_question(kind, categories)}**"
        if not solved:
            return text
        rows = [(c, " + ".join(map(str, _mine(sample, c))), sum(_mine(sample, c))) for c in categories]
        return f"{text}\n\n{boards.table(('mine', 'counts', 'total'), rows)}\n\nAnswer: {_count(sample)}"


def boxed(sample: Sample, count: int) -> str:
    return str(count) if sample.meta.get("form") == "compact" else rf"\boxed{{{count}}}"


def judge_box(sample: Sample, answer: str, mode: base.Mode) -> bool:
    """The last box holds the number that is the sample's answer (also the rule of `object_properties`)."""
    truth = _as_int(sample.answer)
    if truth is None or parse.too_long(answer):
        return False
    body = parse.last_box(answer)
    if mode == "official":
        return body is not None and _as_int(body) == truth
    return parse.whole_number(answer if body is None else body) == truth


def _as_int(text: str) -> int | None:
    """What `int()` makes of a text: signs, surrounding white space and `1_000` included."""
    try:
        return int(text.strip())  # strip first: it knows more white space than int()
    except (ValueError, TypeError):
        return None


def _draft(rng: random.Random, params: ObjectCountingParams) -> base.Draft | None:
    low, high = rng.choice(params.min_count), params.max_count
    fewest = rng.choice(params.min_categories)
    categories = rng.sample(sorted(CATEGORIES), rng.randint(fewest, params.max_categories))
    mine = rng.choice(params.mine)
    statements: list[dict[str, Any]] = []
    possessions: dict[str, dict[str, list[list[Any]]]] = {"I": {category: [] for category in categories}}
    for category in categories:
        pool = CATEGORIES[category][: params.names]
        for item in rng.sample(pool, min(len(pool), rng.randint(*mine))):
            size = rng.randint(low, high)
            kind = rng.choices(("none", "aside", "steps"), weights=params.stories)[0]
            aside = rng.choice(_ASIDES) if kind == "aside" else ""
            steps = _steps(rng, size, low, high) if kind == "steps" else []
            statements.append({"who": "I", "item": item, "count": size, "aside": aside, "steps": steps})
            possessions["I"][category].append([item, size, _aside_text(statements[-1])])
    taken = set()
    for _ in range(rng.randint(*params.others)):
        who, category = rng.choice(PEOPLE), rng.choice(categories)
        item = rng.choice(CATEGORIES[category][: params.names])
        if (who, item) in taken:  # nobody is said twice to have the same things
            continue
        taken.add((who, item))
        size = rng.randint(low, high)
        statements.append({"who": who, "item": item, "count": size, "aside": "", "steps": []})
        possessions.setdefault(f"My {who}", {c: [] for c in categories})[category].append([item, size, ""])
    rng.shuffle(statements)
    kind = rng.choice(("sum", "difference", "total"))
    asked = rng.sample(categories, 1 if kind == "total" else 2)
    totals = [sum(size for _, size, _ in possessions["I"][category]) for category in asked]
    answer = abs(totals[0] - totals[1]) if kind == "difference" else sum(totals)
    story, question = _story(statements), _question(kind, asked)
    english = tuple(text.format(story, question) for text in _ENGLISH)
    if max(map(len, english)) > _MAX_PROMPT:
        return None
    meta = {"possessions": possessions, "used_categories": categories, "language": "en"}
    return base.Draft(
        compact=f"count {'; '.join(map(_short, statements))} ? {('-' if kind == 'difference' else '+').join(asked)}",
        english=english,
        answer=str(answer),
        meta={**meta, "statements": statements, "query": [kind, *asked]},
    )


def _steps(rng: random.Random, size: int, low: int, high: int) -> list[int]:
    """What I had at first, then gains and losses (never 0) that end in `size`."""
    levels = [size]
    for _ in range(rng.randint(2, 5) if low < high else 0):
        levels.append(low + (levels[-1] - low + rng.randint(1, high - low)) % (high - low + 1))
    levels.reverse()
    return [levels[0], *(after - before for before, after in itertools.pairwise(levels))]


def _aside_text(statement: Mapping[str, Any]) -> str:
    if statement["aside"]:
        return f" ({statement['aside']})"
    if not statement["steps"]:
        return ""
    level, *changes = statement["steps"]
    text = f" (it began with {level}"
    for change in changes:
        level += change
        text += f"; then {change} came, so {level}" if change > 0 else f"; then {-change} went, so {level}"
    return text + ")"


def _story(statements: Sequence[Mapping[str, Any]]) -> str:
    seen, sentences = set(), []
    for statement in statements:
        who = statement["who"]
        subject, verb = ("I", "have") if who == "I" else (f"My {who}", "has")
        also = "also " if who in seen else ""
        seen.add(who)
        sentences.append(f"{subject} {also}{verb} {statement['count']} {statement['item']}{_aside_text(statement)}.")
    return " ".join(sentences)


def _short(statement: Mapping[str, Any]) -> str:
    who = "me" if statement["who"] == "I" else statement["who"]
    first, *changes = statement["steps"] or [""]
    steps = f"({first}{''.join(f'{change:+d}' for change in changes)})" if changes else ""
    return f"{who} {statement['count']} {statement['item']}{steps}"


def _question(kind: str, categories: Sequence[str]) -> str:
    names = [PLURALS[category] for category in categories]
    if kind == "total":
        return f"How many {names[0]} do I have altogether?"
    if kind == "sum":
        return f"How many {names[0]} and {names[1]} do I have together?"
    return f"What is the absolute difference between my number of {names[0]} and my number of {names[1]}?"


def _query(sample: Sample) -> list[str]:
    """The kind of question and its categories; those of a published record are read from its question."""
    if "query" in sample.meta:
        return list(sample.meta["query"])
    return read_question(sample.question)


def _told(sample: Sample) -> list[tuple[str, str, str, int]]:
    """(who, category, item, number) of every sentence, a story of gains and losses followed step by step."""
    if "statements" in sample.meta:
        return [
            (s["who"], CATEGORY_OF[s["item"]], s["item"], sum(s["steps"]) if s["steps"] else s["count"])
            for s in sample.meta["statements"]
        ]
    return [
        (who, category, item, size)
        for who, owned in sample.meta["possessions"].items()
        for category, entries in owned.items()
        for item, size, _ in entries
    ]


def _mine(sample: Sample, category: str) -> list[int]:
    return [size for who, of, _, size in _told(sample) if who in ("I", "我") and of == category]


def _count(sample: Sample) -> int:
    """From the sentences alone, as a reader of the question would count."""
    kind, *categories = _query(sample)
    first, *rest = [sum(_mine(sample, category)) for category in categories]
    return first if kind == "total" else first + rest[0] if kind == "sum" else abs(first - rest[0])
