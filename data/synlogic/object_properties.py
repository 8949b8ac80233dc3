"""Object properties: how many items of a changed collection fit? (SynLogic, arXiv:2505.19641, task `object_properties`)

A collection of items with size, color, origin, material and smell goes through some changes out of ten (repainting, losing,
copying, trading, ...). Asked: how many items have one value or another in the end.
Compact form: `props red small, blue large; lost small; paint large red ? red|small` with the short answer `1`; each change
names the value that selects items, then the new values. The official answer stands in a LaTeX box and is judged as in
`object_counting`; the strict verifier accepts the bare number as well (its one widening).
In the official generator a trade brings items with unstated values that count nevertheless, and losing every item crashes; here the
values of traded items are told, and an empty collection is a collection.
"""

import dataclasses
import itertools
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards
from data.synlogic.object_counting import boxed, judge_box
from data.synlogic.object_names import PEOPLE
from data.synlogic.object_properties_changes import (
    ATTRIBUTES,
    CHANGES,
    THINGS,
    Item,
    after,
    apply,
    phrase,
    sentence,
)
from framework.sample import Sample

__all__ = ["ObjectProperties", "ObjectPropertiesParams"]

_MAX_PROMPT = 7_900
_PREDICATES = {
    "sizes": "are {}",
    "colors": "are {}",
    "countries": "are {}",
    "materials": "are made of {}",
    "smells": "smell of {}",
}
_LISTED = {
    "sizes": "their sizes are",
    "colors": "their colors are",
    "countries": "their origins are",
    "materials": "their materials are",
    "smells": "their smells are",
}
# How the question of a published record names the attributes, in english or chinese.
_PUBLISHED_NAMES = {
    "size": "sizes",
    "color": "colors",
    "material": "materials",
    "smell": "smells",
    "origin": "countries",
    "尺寸": "sizes",
    "颜色": "colors",
    "材质": "materials",
    "气味": "smells",
    "产地": "countries",
}
_PUBLISHED_CONDITION = re.compile(rf"({'|'.join(_PUBLISHED_NAMES)})(?: is |是)([^?？或]+?)(?= or |[?？或])")
_BOX = r"Write the number alone into a LaTeX box, like this: \boxed{{7}}."
_ENGLISH = (
    "My collection of odd items has changed a lot.\n\n{0}\n\n{1} " + _BOX,
    "Follow the changes of a collection step by step.\n\n{0}\n\nQuestion: {1} " + _BOX,
    "Some people collect strange things, and so do I.\n\n{0}\n\n{1} " + _BOX,
    "Keep a list of items and their properties while you read.\n\n{0}\n\nNow the question: {1} " + _BOX,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectPropertiesParams(base.Params):
    items: tuple[int, ...]  # one is drawn
    changes: tuple[int, ...]  # one is drawn, at most the number of kinds that fit the attributes
    values: int = 7  # of each attribute
    attributes: tuple[str, ...] = tuple(ATTRIBUTES)
    hint: float = 0.3  # chance, after each change, to be told how many items of each material there are


LEVELS: Mapping[str, ObjectPropertiesParams] = {
    "tiny": ObjectPropertiesParams(items=(2, 3), changes=(1, 2), values=3, attributes=("colors", "sizes"), hint=0),
    "easy": ObjectPropertiesParams(items=tuple(range(10, 16)), changes=(2, 3)),
    "normal": ObjectPropertiesParams(items=(10, 15, 20, 25, 30), changes=(2, 3, 4, 5, 6)),
    "hard": ObjectPropertiesParams(items=(30, 35, 40), changes=(6, 7, 8)),
}


@dataclasses.dataclass(frozen=True)
class ObjectProperties:
    name: str = "object_properties"
    levels: Mapping[str, ObjectPropertiesParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )
    measure: str = "items before, between and after the changes"
    json_answer: bool = False

    def generate(self, seed: int, params: ObjectPropertiesParams, form: base.Form = "compact") -> Sample:
        return base.emit(self, lambda rng: _draft(rng, params), seed, params, form)

    def solve(self, sample: Sample) -> str:
        return boxed(sample, sum(_fits(sample)))

    def worked(self, sample: Sample) -> str:
        """The number of items at each time, the last items if they are few, and the fits: `2 1; blue large; blue 1 small 0`."""
        states = _states(sample)
        last = [" ".join(values) for values in states[-1].elements()]
        listed = f" {', '.join(last)};" if 0 < len(last) <= 8 else ""
        conditions = zip(_query(sample), _fits(sample), strict=True)
        fits = " ".join(f"{value} {'+' if i else ''}{count}" for i, ((_, value), count) in enumerate(conditions))
        return f"{' '.join(str(state.total()) for state in states)};{listed} {fits}"

    def perturb(self, sample: Sample, seed: int) -> str:
        """A change forgotten, an item that fits twice counted twice, or a little off."""
        rng = base.rng_for(self.name, "perturb", seed)
        count = sum(_fits(sample))
        numbers = [sum(_fits(sample, left_out)) for left_out in range(len(sample.meta.get("changes", ())))]
        numbers += [count + 1, max(0, count - 1)]
        rng.shuffle(numbers)
        return base.first_rejected(self, sample, (boxed(sample, number) for number in numbers))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        return judge_box(sample, answer, mode)

    def difficulty(self, sample: Sample) -> float:
        return sum(state.total() for state in _states(sample))

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta, attributes = sample.meta, _attributes(sample)
        rows = [(item["name"], *(item[a] for a in attributes)) for item in meta["initial_collection"]]
        told = "\n".join(f"{i}. {sentence(event)}" for i, event in enumerate(meta.get("changes", ()), start=1))
        text = f"{boards.table(('item', *attributes), rows)}\n\n{told}\n\n**{_question(_query(sample))}**"
        if not solved:
            return text
        final = [(count, *values) for values, count in sorted(_states(sample)[-1].items())]
        return f"{text}\n\n{boards.table(('how many', *attributes), final)}\n\nAnswer: {sum(_fits(sample))}"


def _draft(rng: random.Random, params: ObjectPropertiesParams) -> base.Draft | None:
    names = params.attributes
    pools = {a: rng.sample(ATTRIBUTES[a], min(params.values, len(ATTRIBUTES[a]))) for a in names}
    first, special = _first(rng, params, pools)
    kinds = [kind for kind, change in CHANGES.items() if change.needs() <= set(names)]
    items, told, events = first, [], []
    for kind in rng.sample(kinds, min(len(kinds), rng.choice(params.changes))):
        event = _event(rng, kind, items, pools)
        events.append(event)
        items = apply(items, first, event)
        told.append(sentence(event))
        if "materials" in names and rng.random() < params.hint:
            told.append(_hint(items))
    asked = rng.sample(names, rng.randint(2, len(names)))
    query = [[a, rng.choice(_values(items, a) or pools[a])] for a in asked]
    answer = sum(any(item[a] == value for a, value in query) for item in items)
    story = f"{_opening(first, special, names)}\n\nThen, one after the other: {' '.join(told)}"
    english = tuple(text.format(story, _question(query)) for text in _ENGLISH)
    if max(map(len, english)) > _MAX_PROMPT:
        return None
    short_items = ", ".join(" ".join(item[a] for a in names) for item in first)
    short_events = "; ".join(
        " ".join([e["kind"], *([e["old"]] if e["old"] else []), *(e["new"][a] for a in names if a in e["new"])])
        for e in events
    )
    return base.Draft(
        compact=f"props {short_items}; {short_events} ? {'|'.join(value for _, value in query)}",
        english=english,
        answer=str(answer),
        meta={
            "initial_collection": first,
            "language": "english",
            "attributes": list(names),
            "changes": events,
            "query": query,
        },
    )


def _first(
    rng: random.Random, params: ObjectPropertiesParams, pools: Mapping[str, Sequence[str]]
) -> tuple[list[Item], str]:
    """The first collection, and the attribute whose values are told in runs ("the first 2 are red")."""
    count = rng.choice(params.items)
    special = rng.choice(params.attributes)
    items = [{**{a: rng.choice(pools[a]) for a in params.attributes}, "name": rng.choice(THINGS)} for _ in range(count)]
    runs = min(count, rng.randint(min(3, params.values), len(pools[special])))
    ends = [*sorted(rng.sample(range(1, count), runs - 1)), count]
    values = rng.sample(pools[special], runs)
    for i, item in enumerate(items):
        item[special] = values[sum(end <= i for end in ends)]
    return items, special


def _event(rng: random.Random, kind: str, items: Sequence[Item], pools: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A change of items that there are (of any, if there are none), to values other than the one that selects them."""
    change = CHANGES[kind]
    old = rng.choice(_values(items, change.by) or pools[change.by]) if change.by else ""
    attributes = [a for a in pools if any(a in copy for copy in change.copies)]
    new = {a: rng.choice([value for value in pools[a] if value != old]) for a in attributes}
    if kind == "trade":
        new["name"] = rng.choice(THINGS)
    return {"kind": kind, "who": rng.choice(PEOPLE), "old": old, "new": new}


def _values(items: Sequence[Item], attribute: str) -> list[str]:
    return list(dict.fromkeys(item[attribute] for item in items))


def _opening(items: Sequence[Item], special: str, names: Sequence[str]) -> str:
    described = [phrase({a: item[a] for a in names if a != special}, item["name"]) for item in items]
    runs = [(value, len(list(group))) for value, group in itertools.groupby(item[special] for item in items)]
    parts = [
        f"{value} for the {'next' if i else 'first'} {f'{count} items' if count > 1 else 'item'}"
        for i, (value, count) in enumerate(runs)
    ]
    return f"At first I had {len(items)} items: {', '.join(described)}. In this order {_LISTED[special]} {', '.join(parts)}."


def _hint(items: Sequence[Item]) -> str:
    counts = Counter(item["materials"] for item in items)
    listed = ", ".join(f"{count} of {material}" for material, count in counts.items())
    return f"By then I had {listed or 'nothing at all'}."


def _question(query: Sequence[Sequence[str]]) -> str:
    conditions = ", or ".join(_PREDICATES[attribute].format(value) for attribute, value in query)
    return f"How many of the items that I have in the end {conditions}? An item that fits more than once counts once."


def _attributes(sample: Sample) -> list[str]:
    return list(sample.meta.get("attributes", ATTRIBUTES))


def _query(sample: Sample) -> list[list[str]]:
    """The conditions (attribute, value); those of a published record are read from its question."""
    if "query" in sample.meta:
        return list(sample.meta["query"])
    found = _PUBLISHED_CONDITION.findall(sample.meta["question"])
    return [[_PUBLISHED_NAMES[name], value.strip()] for name, value in found]


def _states(sample: Sample, left_out: int | None = None) -> list[Counter[tuple[str, ...]]]:
    """How many items there are of each kind at each time (one change may be left out; published records have no changes)."""
    meta, attributes = sample.meta, _attributes(sample)
    if "changes" in meta:
        events = [event for i, event in enumerate(meta["changes"]) if i != left_out]
        return after(meta["initial_collection"], attributes, events)
    collections = (meta["initial_collection"], meta["final_collection"])
    return [Counter(tuple(item[a] for a in attributes) for item in items) for items in collections]


def _fits(sample: Sample, left_out: int | None = None) -> list[int]:
    """For each condition of the question, how many items fit it and none before it."""
    left = _states(sample, left_out)[-1]
    counts = []
    for attribute, value in _query(sample):
        i = _attributes(sample).index(attribute)
        fitting = Counter({values: count for values, count in left.items() if values[i] == value})
        counts.append(fitting.total())
        left -= fitting
    return counts
