"""The changes of `object_properties` (SynLogic, arXiv:2505.19641): what each does to a collection, and how it is told."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ATTRIBUTES", "CHANGES", "THINGS", "Change", "Item", "after", "apply", "phrase", "sentence"]

Item = dict[str, str]  # a value for each attribute, and the item's name
Event = Mapping[str, Any]  # kind, who, old (the value that selects) and new (values by attribute)

# No word belongs to two attributes, so that a value alone says which one is meant.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "sizes": ("small", "medium", "large", "tiny", "huge", "giant", "colossal"),
    "colors": (
        "red", "blue", "green", "gray", "black", "white", "brown", "beige", "cyan", "teal", "purple", "violet", "yellow",
        "orange", "indigo", "maroon", "crimson", "magenta",
    ),
    "countries": (
        "French", "Polish", "German", "Danish", "British", "Chinese", "Italian", "Iranian", "Mexican", "Russian", "Turkish",
        "Japanese", "Canadian", "Brazilian", "Portuguese",
    ),
    "materials": (
        "wood", "clay", "glass", "steel", "paper", "stone", "copper", "rubber", "cotton", "bamboo", "leather", "plastic",
        "ceramic", "concrete", "cardboard",
    ),
    "smells": (
        "mint", "roses", "honey", "smoke", "garlic", "cheese", "coffee", "onions", "vinegar", "popcorn", "vanilla", "coconut",
        "gasoline", "lavender", "chocolate",
    ),
}  # fmt: skip
THINGS = (
    "ball", "pen", "key", "lamp", "vase", "bowl", "fork", "shoe", "book", "bag", "clock", "chair", "plate", "brush", "bottle",
    "candle", "hammer", "ruler", "drill", "mirror", "basket", "bicycle", "whistle", "umbrella",
)  # fmt: skip
_ALL = tuple(ATTRIBUTES)


@dataclasses.dataclass(frozen=True)
class Change:
    """Each item whose attribute `by` has the old value (None: see `fresh`) gets one copy per entry of `copies`, in which the
    named attributes have their new values; the item itself stays only with `keep`."""

    by: str | None
    keep: bool
    copies: tuple[tuple[str, ...], ...]
    told: str

    def needs(self) -> set[str]:
        """The attributes without which the change makes no sense; a copy with all attributes new has those there are."""
        named = {attribute for copy in self.copies if copy != _ALL for attribute in copy}
        return named | ({self.by} if self.by else {"smells", "colors"})


CHANGES: Mapping[str, Change] = {
    "remake": Change(
        "sizes", False, (("materials", "smells"),),
        "{who} took each {old} item and brought back the same thing, but made of {materials} and smelling of {smells}.",
    ),
    "split": Change(
        "sizes", False, (("sizes",), ("colors",)),
        "{who} replaced each {old} item by two copies of it: the first is {sizes} instead, the second is {colors} instead.",
    ),
    "dye": Change(
        "materials", False, (("colors", "smells"),),
        "{who} gave each item made of {old} the color {colors} and the smell of {smells}.",
    ),
    "companion": Change(
        "colors", True, (_ALL,), "For each {old} item {who} added another thing of its sort: {phrase}."
    ),
    "fresh": Change(
        None, True, ((),),
        "{who} looked for all items whose smell and color did not occur together on any item of my first collection, and added "
        "one exact copy of each.",
    ),
    "lost": Change("sizes", False, (), "I lost every {old} item."),
    "rework": Change("colors", False, (("materials",),), "{who} had each {old} item made anew of {materials}."),
    "trade": Change(
        "countries", False, (_ALL,), "{who} took every {old} item and gave me as many new items, each of them {phrase}."
    ),
    "twin": Change(
        "smells", True, (("colors",),), "For each item that smells of {old} I added a twin that is {colors} but otherwise equal."
    ),
    "paint": Change("sizes", False, (("colors",),), "I spilled paint over the {old} items: all of them are {colors} now."),
}  # fmt: skip


def apply(items: Sequence[Item], first: Sequence[Item], event: Event) -> list[Item]:
    """The collection after one change, item by item."""
    change = CHANGES[event["kind"]]
    known = [(item["smells"], item["colors"]) for item in first] if change.by is None else []
    kept: list[Item] = []
    added: list[Item] = []
    for item in items:
        fresh = change.by is None and (item["smells"], item["colors"]) not in known
        selected = fresh if change.by is None else item[change.by] == event["old"]
        if change.keep or not selected:
            kept.append(item)
        if selected:
            for attributes in change.copies:
                new = {attribute: event["new"][attribute] for attribute in attributes if attribute in item}
                added.append({**item, **new, "name": event["new"].get("name", item["name"])})
    return kept + added


def after(first: Sequence[Item], attributes: Sequence[str], events: Sequence[Event]) -> list[Counter[tuple[str, ...]]]:
    """How many items there are of each tuple of values, before the first and after each change: counted, not listed."""
    at = {attribute: i for i, attribute in enumerate(attributes)}
    states = [Counter(tuple(item[attribute] for attribute in attributes) for item in first)]
    for event in events:
        change, before = CHANGES[event["kind"]], states[-1]
        if change.by is None:
            pair = at["smells"], at["colors"]
            known = {tuple(values[i] for i in pair) for values in states[0]}
            chosen = Counter({v: n for v, n in before.items() if tuple(v[i] for i in pair) not in known})
        else:
            chosen = Counter({v: n for v, n in before.items() if v[at[change.by]] == event["old"]})
        now = before.copy() if change.keep else before - chosen
        for changed in change.copies:
            for values, count in chosen.items():
                new = (event["new"][a] if a in changed else v for a, v in zip(attributes, values, strict=True))
                now[tuple(new)] += count
        states.append(now)
    return states


def phrase(values: Mapping[str, str], noun: str) -> str:
    """`a red French ball made of wood that smells of mint`, with the attributes that there are."""
    words = [values[attribute] for attribute in ("sizes", "colors", "countries") if attribute in values]
    text = " ".join([*words, noun])
    text = f"{'an' if text[0] in 'aeiouAEIOU' else 'a'} {text}"
    text += f" made of {values['materials']}" if "materials" in values else ""
    return text + (f" that smells of {values['smells']}" if "smells" in values else "")


def sentence(event: Event) -> str:
    new = dict(event["new"])
    noun = new.pop("name", "one")
    who = f"my {event['who']}"
    text = CHANGES[event["kind"]].told.format(who=who, old=event["old"], phrase=phrase(new, noun), **new)
    return text[0].upper() + text[1:]
