"""The worlds of the SynLogic task `web_of_lies` (arXiv:2505.19641): who may tell the truth, given what everyone says.

A fact is a JSON object: `{"type": "simple", "speaker_id": 0, "target_id": 1, "claim": true}` (0 says that 1 tells the truth),
`"at_least_one"` with two `target_ids` (claim false: neither of them), `"same_type"` (claim false: of different kinds), and
`"narration"`, a fact without a speaker. A set of worlds is an integer of 2^n bits: bit w stands for the world in which person i
tells the truth iff bit i of w is set. So all worlds are tried at once.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MAX_PEOPLE", "deductions", "settled", "truth"]

MAX_PEOPLE = 20

Fact = Mapping[str, Any]


def truth(facts: Sequence[Fact], people: int) -> list[bool | None]:
    """Who tells the truth in all worlds that agree with the facts (True), in none (False), or in some only (None)."""
    known = _followed(facts)  # only for speed: the worlds of the others are far fewer
    others = [i for i in range(people) if i not in known]
    if len(others) > MAX_PEOPLE:
        raise ValueError(f"web_of_lies: {len(others)} people make more worlds than the oracle tries (2^{MAX_PEOPLE})")
    own, everything = _tells(len(others))
    tells = [everything if known.get(i) else 0 for i in range(people)]
    for person, worlds_of_truth in zip(others, own, strict=True):
        tells[person] = worlds_of_truth
    worlds = everything
    for fact in facts:
        worlds &= _agrees(fact, tells, everything)
    if not worlds:
        raise ValueError("web_of_lies: no world agrees with the facts")
    return [True if worlds & one == worlds else (None if worlds & one else False) for one in tells]


def deductions(facts: Sequence[Fact], people: int) -> list[tuple[int, bool]]:
    """Everyone who is settled, in an order in which each follows from one fact and the ones before, as far as possible."""
    known = _followed(facts)
    rest = [(i, value) for i, value in enumerate(truth(facts, people)) if value is not None and i not in known]
    return [*known.items(), *rest]


def _followed(facts: Sequence[Fact]) -> dict[int, bool]:
    """Who is settled by single facts, one after the other."""
    known: dict[int, bool] = {}
    found = True
    while found:
        found = False
        for fact in facts:
            for person, value in settled(fact, known):
                known[person] = value
                found = True
    return known


def settled(fact: Fact, known: Mapping[int, bool]) -> list[tuple[int, bool]]:
    """What a single fact tells about the people in it who are not known yet."""
    people = _people(fact)
    tells, everything = _tells(len(people))
    worlds = _agrees(_renamed(fact, people), tells, everything)
    for i, person in enumerate(people):
        if person in known:
            worlds &= tells[i] if known[person] else everything ^ tells[i]
    new = []
    for i, person in enumerate(people):
        if person not in known and (worlds & tells[i] == worlds or not worlds & tells[i]):
            new.append((person, bool(worlds & tells[i])))
    return new


@functools.cache
def _tells(people: int) -> tuple[tuple[int, ...], int]:
    """(for each person, the worlds in which they tell the truth; all worlds)."""
    size = 1 << people
    everything = (1 << size) - 1
    # In the worlds counted by w, person i alternates between runs of 2^i lies and 2^i truths.
    return tuple((everything // ((1 << (1 << i)) + 1)) << (1 << i) for i in range(people)), everything


def _agrees(fact: Fact, tells: Sequence[int], everything: int) -> int:
    """The worlds in which what is said is true iff the speaker tells the truth."""
    kind = fact["type"]
    said = 0
    for person in fact["target_ids"] if kind == "at_least_one" else [fact["target_id"]]:
        said |= tells[person]
    if kind == "same_type":
        said = everything ^ said ^ tells[fact["speaker_id"]]
    if not fact["claim"]:
        said = everything ^ said
    return said if kind == "narration" else everything ^ said ^ tells[fact["speaker_id"]]


def _people(fact: Fact) -> list[int]:
    ids = [fact.get("speaker_id"), fact.get("target_id"), *fact.get("target_ids", ())]
    return list(dict.fromkeys(person for person in ids if person is not None))


def _renamed(fact: Fact, people: Sequence[int]) -> Fact:
    """The fact with people counted from 0, so that only their own worlds are tried."""
    renamed = dict(fact)
    for field in ("speaker_id", "target_id"):
        if field in fact:
            renamed[field] = people.index(fact[field])
    if "target_ids" in fact:
        renamed["target_ids"] = [people.index(person) for person in fact["target_ids"]]
    return renamed
