"""Zebra puzzles: who lives in which house, from clues (SynLogic, arXiv:2505.19641, task `zebra_puzzle`).

The paper takes this task from public data in the manner of ZebraLogic (arXiv:2502.01100). Ours are generated: houses in a row,
each value of each attribute in one house, clues with exactly one solution; at hard no clue can be left out. `read_zebra` reads
the public records. Compact form: `zebra Ann,Bob cat,dog|Ann=1 cat!1` (values of each attribute, then clues: `=` same house,
`!` another house, `<` left of, `<<` just left of, `~` beside, `^` one house between) with the short answer `Ann dog/Bob cat`;
the official answer is a JSON object with a header and rows.

Official: the text after the last "```json" up to the next "```", as JSON or else as a Python literal, equals the reference
with identical types (the house is the text "1"), keys in any order; a reference that is no object is compared as text. Strict
accepts the short form as well (its one widening).
"""

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from data.records import rows
from data.synlogic import base, boards, parse
from data.synlogic.zebra_puzzle_logic import Clue, Result, random_clues, solve
from framework.errors import UserError
from framework.sample import Sample

__all__ = ["ZebraPuzzle", "ZebraPuzzleParams", "read_zebra"]

# Attribute -> (how a clue speaks of the person, values).
_ATTRIBUTES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Name": ("{0}", ("Ann", "Bob", "Cid", "Dan", "Eva", "Flo")),
    "Pet": ("the owner of the {0}", ("cat", "dog", "emu", "fox", "hen", "owl")),
    "Colour": ("the person in the {0} house", ("red", "blue", "green", "white", "black", "pink")),
    "Drink": ("the {0} drinker", ("tea", "milk", "cola", "water", "juice", "coffee")),
    "Sport": ("the {0} player", ("golf", "judo", "polo", "rugby", "tennis", "chess")),
    "Fruit": ("the person who likes the {0}", ("apple", "pear", "plum", "grape", "melon", "cherry")),
}
# Kind -> (sign of the compact form, sentence).
_KINDS: Mapping[str, tuple[str, str]] = {
    "at": ("=", "{0} lives in house {1}."),
    "not at": ("!", "{0} does not live in house {1}."),
    "same": ("=", "{0} is {1}."),
    "different": ("!", "{0} is not {1}."),
    "left": ("<", "{0} lives somewhere to the left of {1}."),
    "just left": ("<<", "{0} lives directly to the left of {1}."),
    "beside": ("~", "{0} and {1} live next to each other."),
    "one between": ("^", "There is exactly one house between {0} and {1}."),
}
_FORMAT = (
    "Answer with a JSON object inside a ```json code block; all entries are texts, the rows follow the houses from 1 to {0}:\n"
    '{{"header": {1}, "rows": [["1", ...], ["2", ...], ...]}}'
)
_ENGLISH = (
    "There are {0} houses in a row, numbered 1 to {0} from left to right. In each house lives one person, and for every kind below "
    "each value belongs to exactly one house:\n{1}\n\nClues:\n{2}\n\nWho has what? {3}",
    "A logic puzzle. {0} neighbours live side by side in houses 1 (leftmost) to {0} (rightmost). They differ in everything listed "
    "here; each item is used once:\n{1}\n\nWhat is known:\n{2}\n\nFind the full assignment. {3}",
    "Work out the arrangement of {0} houses standing from left to right, house 1 to house {0}. Each of these values occurs in "
    "exactly one house, one of every kind in each house:\n{1}\n\nFacts:\n{2}\n\n{3}",
)

_LOOSE = ("at", "not at", "same", "left", "just left", "beside")
_TIGHT = ("not at", "same", "same", "different", "left", "just left", "beside", "one between")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZebraPuzzleParams(base.Params):
    houses: tuple[int, ...]  # one is drawn, 2 to 6
    attributes: tuple[int, ...]  # one is drawn, the name included, 2 to 6
    kinds: tuple[str, ...] = _LOOSE  # drawn with equal chances
    minimal: bool = False  # no clue can be left out


LEVELS: Mapping[str, ZebraPuzzleParams] = {
    "tiny": ZebraPuzzleParams(houses=(2, 3), attributes=(2,), minimal=True),
    "easy": ZebraPuzzleParams(houses=(3,), attributes=(3, 4)),
    "normal": ZebraPuzzleParams(houses=(4,), attributes=(4, 5), kinds=(*_LOOSE, "different")),
    "hard": ZebraPuzzleParams(houses=(5,), attributes=(5, 6), kinds=_TIGHT, minimal=True),
}


@dataclasses.dataclass(frozen=True)
class ZebraPuzzle:
    name: str = "zebra_puzzle"
    measure: str = "clues looked at by the oracle (all clues again and again until every house is known)"
    json_answer: bool = False
    levels: Mapping[str, ZebraPuzzleParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: ZebraPuzzleParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, count = rng.choice(params.houses), rng.choice(params.attributes)
            others = [kind for kind in _ATTRIBUTES if kind != "Name"]
            kinds = ["Name", *rng.sample(others, count - 1)]
            attributes = {kind: sorted(rng.sample(_ATTRIBUTES[kind][1], n)) for kind in kinds}
            houses = [house for _ in kinds for house in rng.sample(range(n), n)]
            clues = _enough(n, count, random_clues(rng, n, houses, params.kinds, 12 * n * count), params.minimal)
            if clues is None:
                return None
            rng.shuffle(clues)
            return base.Draft(
                compact=_compact(attributes, n, clues),
                english=_prompts(attributes, n, clues),
                answer=json.dumps(_table(attributes, n, houses)),
                meta={"houses": n, "attributes": attributes, "clues": [list(clue) for clue in clues]},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solved(sample).solutions[0])

    def worked(self, sample: Sample) -> str:
        """The values in the order in which their houses become known: `Ann=1 dog=2`."""
        result = _solved(sample)
        values = _values(sample.meta["attributes"])
        return " ".join(f"{values[k]}={result.solutions[0][k] + 1}" for k in result.order)

    def perturb(self, sample: Sample, seed: int) -> str:
        """Two values of one attribute exchanged."""
        rng = base.rng_for(self.name, "perturb", seed)
        houses, n = list(_solved(sample).solutions[0]), sample.meta["houses"]
        start = n * rng.randrange(len(sample.meta["attributes"]))
        a, b = rng.sample(range(start, start + n), 2)
        houses[a], houses[b] = houses[b], houses[a]
        return base.first_rejected(self, sample, [_in_form(sample, houses)])

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        text = answer.split("```json")[-1].split("```")[0].strip()
        try:
            wanted = json.loads(sample.answer)
        except ValueError:
            return sample.answer == text
        if not isinstance(wanted, dict):
            return sample.answer == text
        if mode == "strict" and answer.strip() == _short(wanted):
            return True
        try:
            named = _value(text)
        except parse.LiteralError:
            return False
        return isinstance(named, dict) and _identical(wanted, named)

    def difficulty(self, sample: Sample) -> float:
        return float(_solved(sample).steps)

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        clues = [f"{k}. {text}" for k, text in enumerate(_sentences(meta["attributes"], meta["clues"]), start=1)]
        header = ["House", *meta["attributes"]]
        lines = [[str(house), *([""] * (len(header) - 1))] for house in range(1, meta["houses"] + 1)]
        if solved:
            lines = _table(meta["attributes"], meta["houses"], _solved(sample).solutions[0])["rows"]
        values = [f"- {kind}: {', '.join(values)}" for kind, values in meta["attributes"].items()]
        return "\n\n".join(["\n".join(values), "\n".join(clues), boards.table(header, lines)])


def read_zebra(path: str, name: str = "zebra_puzzle") -> list[Sample]:
    """Public ZebraLogic records: "puzzle" is the question, "solution" is {"header": [...], "rows": [[...], ...]}.

    `path` is a JSONL or Parquet file, a folder or a pattern of them, or a data set of the hub (see `data.records.rows`).

    Raises:
        UserError: a path or a record that cannot be used, with the place.
    """
    samples = []
    for number, (where, row) in enumerate(rows(path)):
        puzzle, solution = row.get("puzzle"), row.get("solution")
        if isinstance(solution, str):
            try:
                solution = json.loads(solution)
            except (ValueError, RecursionError) as error:
                raise UserError(f'{where}: "solution" is a text that is not JSON ({error}).') from error
        if not isinstance(puzzle, str) or not puzzle.strip():
            raise UserError(f'{where} has no text "puzzle". Fields: {", ".join(sorted(row)) or "none"}.')
        if not _is_table(solution):
            raise UserError(
                f'{where}: "solution" is not {{"header": [...], "rows": [[...], ...]}} with texts and rows as long as the header.'
            )
        if all(set(cell) <= {"_"} for line in solution["rows"] for cell in line[1:]):
            raise UserError(f"{where}: the solution is blank (___). Use records that come with their solution.")
        form = _FORMAT.format(len(solution["rows"]), json.dumps(solution["header"]))
        samples.append(
            Sample(
                task=name,
                question=f"{puzzle.strip()}\n\n{form}",
                answer=json.dumps({"header": solution["header"], "rows": solution["rows"]}),
                meta={"id": str(row.get("id", number))},
                level="public",
                seed=number,
            )
        )
    return samples


def _is_table(value: Any) -> TypeGuard[dict[str, Any]]:
    if not (isinstance(value, dict) and {"header", "rows"} <= set(value)):
        return False
    header, lines = value["header"], value["rows"]
    if not (isinstance(header, list) and len(header) > 1 and isinstance(lines, list) and lines):
        return False
    return all(
        isinstance(line, list) and len(line) == len(header) and all(isinstance(cell, str) for cell in line)
        for line in [header, *lines]
    )


def _enough(n: int, count: int, pool: list[Clue], minimal: bool) -> list[Clue] | None:
    """The shortest beginning of `pool` with one solution, without the clues that the others imply: all of them if `minimal`,
    else only among every second clue."""
    if len(solve(n, count, pool).solutions) != 1:
        return None
    low, high = 0, len(pool)
    while low < high:
        middle = (low + high) // 2
        if len(solve(n, count, pool[:middle]).solutions) == 1:
            high = middle
        else:
            low = middle + 1
    clues = pool[:low]
    for clue in clues[:: 1 if minimal else 2]:
        fewer = [other for other in clues if other != clue]
        if len(solve(n, count, fewer).solutions) == 1:
            clues = fewer
    return clues


def _value(text: str) -> Any:
    try:
        return parse.json_value(text)
    except parse.LiteralError:
        return parse.literal(text)


def _identical(a: Any, b: Any) -> bool:
    """Equal with equal types, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_identical(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_identical, a, b))
    return bool(a == b)


def _solved(sample: Sample) -> Result:
    meta = sample.meta
    if "clues" not in meta:
        raise ValueError("zebra_puzzle: this record has its clues in words only; the oracle reads generated ones.")
    result = solve(meta["houses"], len(meta["attributes"]), [(kind, x, y) for kind, x, y in meta["clues"]])
    if not result.solutions:
        raise ValueError("zebra_puzzle: these clues contradict each other")
    return result


def _values(attributes: Mapping[str, Sequence[str]]) -> list[str]:
    return [value for values in attributes.values() for value in values]


def _table(attributes: Mapping[str, Sequence[str]], n: int, houses: Sequence[int]) -> dict[str, Any]:
    lines = [[str(house + 1)] for house in range(n)]
    for a, values in enumerate(attributes.values()):
        for value, house in zip(values, houses[a * n : a * n + n], strict=True):
            lines[house].append(value)
    return {"header": ["House", *attributes], "rows": lines}


def _compact(attributes: Mapping[str, Sequence[str]], n: int, clues: Sequence[Clue]) -> str:
    values = _values(attributes)
    signs = [f"{values[x]}{_KINDS[kind][0]}{y + 1 if kind in ('at', 'not at') else values[y]}" for kind, x, y in clues]
    return f"zebra {' '.join(map(','.join, attributes.values()))}|{' '.join(signs)}"


def _sentences(attributes: Mapping[str, Sequence[str]], clues: Sequence[Sequence[Any]]) -> list[str]:
    named = [_ATTRIBUTES[kind][0].format(value) for kind, values in attributes.items() for value in values]
    sentences = []
    for kind, x, y in clues:
        text = _KINDS[kind][1].format(named[x], y + 1 if kind in ("at", "not at") else named[y])
        sentences.append(text[0].upper() + text[1:])
    return sentences


def _prompts(attributes: Mapping[str, Sequence[str]], n: int, clues: Sequence[Clue]) -> tuple[str, ...]:
    kinds = "\n".join(f"- {kind}: {', '.join(values)}" for kind, values in attributes.items())
    facts = "\n".join(f"{k}. {text}" for k, text in enumerate(_sentences(attributes, clues), start=1))
    form = _FORMAT.format(n, json.dumps(["House", *attributes]))
    return tuple(wording.format(n, kinds, facts, form) for wording in _ENGLISH)


def _short(table: Mapping[str, Any]) -> str | None:
    """`Ann dog/Bob cat` for a table in the layout above, None for any other object."""
    return "/".join(" ".join(line[1:]) for line in table["rows"]) if _is_table(table) else None


def _in_form(sample: Sample, houses: Sequence[int]) -> str:
    table = _table(sample.meta["attributes"], sample.meta["houses"], houses)
    return str(_short(table)) if sample.meta.get("form") == "compact" else f"```json\n{json.dumps(table)}\n```"
