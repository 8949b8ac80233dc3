"""Goods exchange: who owns what in the end? (SynLogic, arXiv:2505.19641, task `goods_exchange`)

Each of n people owns one item ("red pen"); swaps, gifts and refusals are told one after the other.
Compact form: `goods A1 B2 C3: A-B 2-3 A!C` with the short answer `A3 B1 C2`. People are letters and items numbers; a swap names
each side by its person, its item or both, `A>B>C` is a circle of gifts, and `!` (a refusal) and `?` (a wish) change nothing.
The official answer is a tuple of (person, item) pairs in a python fence, equal up to case and order; words without quotes, entries
that are no pairs and persons named twice (the last one counts) pass too. The strict verifier wants exactly one pair for each
person, and takes the short form as well (its one widening).
The official generator silently drops steps of two kinds (a swap that one side enforces, and the circle); here every step that is
asked for is told, and all kinds occur.
"""

import dataclasses
import itertools
import random
import re
import string
from collections.abc import Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.goods_exchange_answers import last_tuple_block, owners_of
from framework.sample import Sample

__all__ = ["GoodsExchange", "GoodsExchangeParams"]

_MAX_PROMPT = 7_900
_PEOPLE = (
    "Ada", "Ben", "Cleo", "Dan", "Ella", "Finn", "Gina", "Hugo", "Iris", "Jonas", "Kate", "Liam", "Mona", "Nils", "Olga", "Paul",
    "Quinn", "Rita", "Sam", "Tara", "Uwe", "Vera", "Will", "Xenia", "Yara", "Zeno", "Alma", "Boris", "Cora", "Doris", "Emil",
    "Frida", "Greta", "Hana", "Igor", "Judy", "Karl", "Lena", "Max", "Nora",
)  # fmt: skip
_COLORS = (
    "red", "blue", "green", "yellow", "purple", "black", "white", "orange", "pink", "brown", "gray", "golden", "silver", "beige",
    "olive", "violet", "navy", "ivory", "coral", "teal",
)  # fmt: skip
_THINGS = (
    "book", "watch", "pen", "cup", "bag", "phone", "lamp", "hat", "ring", "scarf", "box", "map", "key", "fan", "coin", "vase",
    "knife", "doll", "drum", "flute", "kite", "mug", "plate", "rug", "spoon", "towel", "basket", "candle", "ribbon", "whistle",
)  # fmt: skip
_KINDS: Mapping[str, tuple[str, str, str]] = {
    # kind: (its arguments: p a person, i an item; sentence; compact form)
    "people": ("pp", "{0} and {1} swapped what they had.", "{0}-{1}"),
    "items": ("ii", "The owners of the {0} and the {1} exchanged the two.", "{0}-{1}"),
    "item and person": ("ip", "Whoever had the {0} swapped with {1}.", "{0}-{1}"),
    "trade": ("pii", "{0} traded the {1} for the {2}.", "{0}{1}-{2}"),
    "gifts": ("pipi", "{0} gave the {1} to {2} and was given the {3}.", "{0}{1}-{2}{3}"),
    "exchange": ("pipi", "{0} exchanged the {1} for the {3} of {2}.", "{0}{1}-{2}{3}"),
    "owners": ("ii", "The person with the {0} and the person with the {1} swapped.", "{0}-{1}"),
    "enforced": ("pi", "{0} made the owner of the {1} swap with {0}.", "{0}-{1}"),
    "circle": ("ppp", "{0} gave to {1}, {1} to {2} and {2} to {0}, all at once.", "{0}>{1}>{2}"),
    "refusal": ("pp", "{0} asked {1} to swap, but {1} refused.", "{0}!{1}"),
    "wish": ("pi", "{0} admired the {1}.", "{0}?{1}"),
    "search": ("pi", "{0} looked for the {1} in vain.", "{0}?{1}"),
}
_FORM = (
    "Give the final owners as a tuple of (person, item) pairs in a python code block at the end, in this form:\n"
    "```python\n(('Lou','pink hat'),('Kim','gray cup'))\n```"
)
_ENGLISH = (
    "{0} each own one item, and no two items are alike.\nAt first: {1}.\nThen, one after the other ({3} steps):\n{2}\n"
    "Who owns what after that? " + _FORM,
    "At a swap meeting there are {0}. Everybody always has exactly one item. In the beginning: {1}.\n"
    "These {3} things happen in this order:\n{2}\nFind the item of each person at the end. " + _FORM,
    "Keep track of who has what. The people are {0}, each with one item: {1}.\nWhat happens, in {3} steps:\n{2}\n"
    "Tell me the final owner of every item. " + _FORM,
)
_NO_SWAP = ("refused", "liked", "looking for", "拒绝", "喜欢", "寻找")  # in sentences of published records
_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_SHORT = re.compile(r"[A-Za-z][0-9]{1,3}(?:[ ,]+[A-Za-z][0-9]{1,3})*")

Owners = Mapping[str, str]  # item by person
Event = Sequence[str]  # the kind, then its persons and items


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoodsExchangeParams(base.Params):
    people: tuple[int, ...]  # one is drawn, at least 3
    steps: tuple[int, ...]  # one is drawn


LEVELS: Mapping[str, GoodsExchangeParams] = {
    "tiny": GoodsExchangeParams(people=(3, 4), steps=(2, 3)),
    "easy": GoodsExchangeParams(people=(5, 6, 7), steps=(3, 4, 5, 6)),
    "normal": GoodsExchangeParams(people=tuple(range(20, 31, 2)), steps=tuple(range(10, 101, 10))),
    "hard": GoodsExchangeParams(people=(30, 35), steps=(90, 100)),
}


@dataclasses.dataclass(frozen=True)
class GoodsExchange:
    name: str = "goods_exchange"
    levels: Mapping[str, GoodsExchangeParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )
    measure: str = "steps told"
    json_answer: bool = False

    def generate(self, seed: int, params: GoodsExchangeParams, form: base.Form = "compact") -> Sample:
        if min(params.people) < 3:
            raise ValueError(f"goods_exchange: people={params.people}, but a circle needs at least 3 people.")
        return base.emit(self, lambda rng: _draft(rng, params), seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _replay(sample)[-1])

    def worked(self, sample: Sample) -> str:
        """Who has something else after each step, `A2 B1, -, B3 C1`."""
        people, items = _letters(sample.meta["owns_before"])
        states, changes = _replay(sample), []
        for before, after in itertools.pairwise(states):
            changed = [f"{people[p]}{items[after[p]]}" for p in after if after[p] != before[p]]
            changes.append(" ".join(changed) or "-")
        return ", ".join(changes) or "-"

    def perturb(self, sample: Sample, seed: int) -> str:
        """One step forgotten, or the items of two people mixed up."""
        rng = base.rng_for(self.name, "perturb", seed)
        final = _replay(sample)[-1]
        events = _events(sample)
        candidates = []
        for left_out in rng.sample(range(len(events)), min(3, len(events))):
            kept = [event for i, event in enumerate(events) if i != left_out]
            candidates.append(_after(sample.meta["owns_before"], kept)[-1])
        a, b = rng.sample(sorted(final), 2)
        candidates.append({**final, a: final[b], b: final[a]})
        return base.first_rejected(self, sample, (_in_form(sample, owners) for owners in candidates))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        truth = sample.meta.get("owns_after")
        if not isinstance(truth, str) or parse.too_long(answer):
            return False
        right = owners_of(truth)[0]
        if mode == "strict" and _SHORT.fullmatch(answer.strip()):
            return _same(_short_owners(sample, answer), right)
        given, clean = owners_of(last_tuple_block(answer))
        return _same(given, right) and (mode == "official" or clean)

    def difficulty(self, sample: Sample) -> float:
        return len(sample.meta["operations"])

    def show(self, sample: Sample, solved: bool = False) -> str:
        steps = "\n".join(f"{i}. {text}" for i, text in enumerate(sample.meta["operations"], start=1))
        head, columns = ["person", "at first"], [sample.meta["owns_before"]]
        if solved:
            head, columns = [*head, "in the end"], [*columns, _replay(sample)[-1]]
        rows = [(person, *(column[person] for column in columns)) for person in sample.meta["owns_before"]]
        return f"{boards.table(head, rows)}\n\n{steps}"


def _draft(rng: random.Random, params: GoodsExchangeParams) -> base.Draft | None:
    count = rng.choice(params.people)
    people: list[str] = rng.sample(_PEOPLE, count)
    # Few colors and few kinds of things, so that items are easily mistaken for each other.
    colors = rng.sample(_COLORS, min(len(_COLORS), count + rng.randint(0, 2)))
    things = rng.sample(_THINGS, min(len(_THINGS), count + rng.randint(0, 2)))
    items: list[str] = []
    while len(items) < count:
        item = f"{rng.choice(colors)} {rng.choice(things)}"
        if item not in items:
            items.append(item)
    before = dict(zip(people, items, strict=True))
    has = dict(before)
    events: list[list[str]] = []
    for _ in range(rng.choice(params.steps)):
        kind = rng.choice(sorted(_KINDS))
        a, b, c = rng.sample(people, 3)
        events.append([kind, *_arguments(kind, (a, b, c), has)])
        if kind == "circle":
            has[b], has[c], has[a] = has[a], has[b], has[c]
        elif kind not in ("refusal", "wish", "search"):
            has[a], has[b] = has[b], has[a]
    operations = [_KINDS[kind][1].format(*arguments) for kind, *arguments in events]
    english = tuple(
        text.format(
            f"{', '.join(people[:-1])} and {people[-1]}",
            ", ".join(f"{person} has the {item}" for person, item in before.items()),
            "\n".join(operations),
            len(operations),
        )
        for text in _ENGLISH
    )
    if max(map(len, english)) > _MAX_PROMPT:
        return None
    after = _tuple_of(has)
    return base.Draft(
        compact=_compact(before, events),
        english=english,
        answer=after,
        meta={
            "num_people": count,
            "operator_num": len(operations),
            "names": people,
            "objects": sorted(items),
            "owns_before": before,
            "operations": operations,
            "owns_after": after,
            "is_chinese": False,
            "events": events,
        },
    )


def _arguments(kind: str, people: tuple[str, str, str], has: Owners) -> list[str]:
    """The persons and items an event of this kind names: first those of the first person, then those of the second."""
    a, b, _ = people
    if kind == "circle":
        return list(people)
    by_kind = {"pp": [a, b], "ii": [has[a], has[b]], "ip": [has[a], b], "pi": [a, has[b]], "pii": [a, has[a], has[b]]}
    return by_kind.get(_KINDS[kind][0], [a, has[a], b, has[b]])


def _events(sample: Sample) -> list[Event]:
    meta = sample.meta
    if "events" in meta:
        return list(meta["events"])
    return [_read_event(sentence, [*meta["names"], *meta["objects"]]) for sentence in meta["operations"]]


def _read_event(sentence: str, words: Sequence[str]) -> Event:
    """The event of a published sentence, which are swaps of two sides and refusals: who and what it names, in order."""
    named = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    kind = "wish" if any(sign in sentence for sign in _NO_SWAP) else "people"
    return [kind, *re.findall(named, sentence)]


def _replay(sample: Sample) -> list[dict[str, str]]:
    return _after(sample.meta["owns_before"], _events(sample))


def _after(before: Owners, events: Sequence[Event]) -> list[dict[str, str]]:
    """The owners before the first and after each event, read as the sentences say: a side is found by what it is named by."""
    states = [dict(before)]
    for kind, *arguments in events:
        has = dict(states[-1])
        holder = {item: person for person, item in has.items()}
        sides = list(dict.fromkeys(holder.get(argument, argument) for argument in arguments))
        if kind == "circle":
            moved = dict(zip(sides, sides[-1:] + sides[:-1], strict=True))  # each gets the item of the one before
        else:
            moved = dict(zip(sides, reversed(sides), strict=True)) if "-" in _KINDS[kind][2] else {}
        has.update({person: states[-1][source] for person, source in moved.items()})
        states.append(has)
    return states


def _compact(before: Owners, events: Sequence[Event]) -> str:
    people, items = _letters(before)
    short = people | items
    owned = " ".join(short[person] + short[item] for person, item in before.items())
    told = " ".join(_KINDS[kind][2].format(*(short[argument] for argument in arguments)) for kind, *arguments in events)
    return f"goods {owned}: {told}"


def _letters(before: Owners) -> tuple[dict[str, str], dict[str, str]]:
    """Short names of the people and of the items."""
    people = {person: _LETTERS[i] for i, person in enumerate(before)}
    return people, {item: str(i) for i, item in enumerate(before.values(), start=1)}


def _short_owners(sample: Sample, text: str) -> dict[str, str]:
    """The owners in a short answer; none where a letter, a number or their count does not fit."""
    if "owns_before" not in sample.meta or len(sample.meta["owns_before"]) > len(_LETTERS):
        return {}
    people, items = ({short: full for full, short in names.items()} for names in _letters(sample.meta["owns_before"]))
    tokens = re.findall(r"[A-Za-z][0-9]+", text)
    owners = {people.get(token[0], ""): items.get(token[1:], "") for token in tokens}
    return owners if len(owners) == len(tokens) else {}


def _same(given: Owners, right: Owners) -> bool:
    if len(given) != len(right):
        return False
    by_lower = {person.lower(): item.lower() for person, item in given.items()}
    return all(by_lower.get(person.lower()) == item.lower() for person, item in right.items())


def _tuple_of(owners: Owners) -> str:
    pairs = ",".join(f"('{person}','{item}')" for person, item in owners.items())
    return f"({pairs})"


def _in_form(sample: Sample, owners: Owners) -> str:
    if sample.meta.get("form") == "compact":
        people, items = _letters(sample.meta["owns_before"])
        return " ".join(people[person] + items[item] for person, item in owners.items())
    return f"```python\n{_tuple_of(owners)}\n```"
