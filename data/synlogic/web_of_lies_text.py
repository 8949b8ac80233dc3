"""The story of the SynLogic task `web_of_lies` (arXiv:2505.19641) in English: names, places and sentences."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["NAMES", "PLACES", "sentences"]

_NAMES = """
Ada Bruno Clara Dario Edith Felix Greta Hugo Irene Jonas Karla Linus Mira Nils Olga Pablo Quinn Rosa Stefan Tilda Umberto
Vera Walter Xenia Yusuf Zelda
"""
_PLACES = """
airport bakery beach bridge castle cinema circus clinic farm forge fountain garage harbour hotel kiosk library lighthouse
market mill museum observatory orchard pharmacy quarry stadium temple theatre tower
"""
NAMES: tuple[str, ...] = tuple(_NAMES.split())
PLACES: tuple[str, ...] = tuple(_PLACES.split())
# Nothing here says anything about telling the truth.
_NOISE = (
    "{0} collects old stamps.",
    "{0} has a cold this week.",
    "{0} walks to work every morning.",
    "{0} and {1} once shared a flat.",
    "{0} borrowed an umbrella from {1}.",
    "{0} is taller than {1}.",
    "{0} had soup for lunch.",
    "{0} waved at {1} on Monday.",
    "{0} is learning to play the cello.",
    "{0} lives two streets away from {1}.",
)
_TRUE = ("{0} tells the truth.", "It is certain that {0} never lies.", "Whatever {0} says is true.")
_FALSE = ("{0} lies.", "It is certain that {0} never tells the truth.", "Whatever {0} says is false.")


def sentences(
    rng: random.Random,
    people: Sequence[Mapping[str, Any]],
    facts: Sequence[Mapping[str, Any]],
    targets: Sequence[int],
    noise: int,
) -> tuple[list[str], list[str]]:
    """(the story in random order, the questions). People are called by their name or by their place."""

    def person(i: int) -> str:
        return f"the person at the {people[i]['location']}" if rng.random() < 0.7 else people[i]["name"]

    def two() -> tuple[str, str]:
        a, b = rng.sample(range(len(people)), 2)
        return person(a), person(b)

    lines = [f"{one['name']} is at the {one['location']}." for one in people]
    for fact in facts:
        kind, claim = fact["type"], fact["claim"]
        if kind == "narration":
            lines.append(rng.choice(_TRUE if claim else _FALSE).format(person(fact["target_id"])))
            continue
        speaker = person(fact["speaker_id"])
        if kind == "at_least_one":
            a, b = (person(i) for i in fact["target_ids"])
            said = (
                f"that at least one of {a} and {b} tells the truth"
                if claim
                else f"that neither {a} nor {b} tells the truth"
            )
        elif kind == "same_type":
            other = person(fact["target_id"])
            said = (
                f"that they and {other} both tell the truth or both lie"
                if claim
                else f"that either they or {other} lies, not both"
            )
        else:
            said = f"that {person(fact['target_id'])} {'tells the truth' if claim else 'lies'}"
        lines.append(f"{speaker} says {said}.")
    lines += [rng.choice(_NOISE).format(*two()) for _ in range(noise)]
    lines = [line[0].upper() + line[1:] for line in lines]
    rng.shuffle(lines)
    return lines, [f"Does {person(i)} tell the truth?" for i in targets]
