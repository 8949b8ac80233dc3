r"""A walk over a lattice whose points hold items (SynLogic, arXiv:2505.19641, task `space_reasoning`).

The lattice is square, triangular or made of diamonds. Some points are passed and their items told, with the steps from one to
the next; then, perhaps, a jump to an unknown place and a walk over new items and one known item, perhaps with a return to where
the jump ended. The question is which item a last walk leads to: always one that was seen, and always one whose place follows
from the told steps, because the oracle has nothing else to walk by. Compact form: `square A r2 d1 B l1 C ? u1 l1` (`*` is the
jump, `<` the return) with the short answer `A`; the official answer is `\boxed{lamp}`, in any case. The strict verifier has
nothing to repair; it accepts the bare item as well (its one widening). The official prompt also offers "unknown", which is
never right, so ours does not.
"""

import dataclasses
import itertools
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.words import WORDS
from framework.sample import Sample

__all__ = ["SHAPES", "SpaceReasoning", "SpaceReasoningParams", "inside"]

Point = tuple[int, int]  # row from the top, place from the left (in half steps where rows are shifted)
Moves = list[list[Any]]  # direction and number of steps

_SQUARE: Mapping[str, Point] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_DIAMOND: Mapping[str, Point] = {
    "top-left": (-1, -1),
    "top-right": (-1, 1),
    "bottom-left": (1, -1),
    "bottom-right": (1, 1),
}
SHAPES: Mapping[str, Mapping[str, Point]] = {
    "square": _SQUARE,
    "triangle": {**_DIAMOND, "left": (0, -2), "right": (0, 2)},
    "diamond": _DIAMOND,
}
_SHORT = {
    **{name: name[0] for name in _SQUARE},
    "top-left": "ul",
    "top-right": "ur",
    "bottom-left": "dl",
    "bottom-right": "dr",
}
_WHERE = {
    "square": "a square grid of {0} x {0} squares; from a corner of a square you can step up, down, left and right along the sides",
    "triangle": "a grid of triangles with {0} layers (1, 3, 5, ... triangles from the top); from a corner you can step left, "
    "right, top-left, top-right, bottom-left and bottom-right along the sides, and one step bottom-left and one step right "
    "together are one step bottom-right",
    "diamond": "a grid of diamonds with {0} layers (1, 2, 3, ... diamonds from the top); from a corner of a diamond you can step "
    "top-left, top-right, bottom-left and bottom-right along the sides",
}
_ENGLISH = (
    "Every corner of a grid holds an item, no two alike. The grid is {0}.\n{1}\n{2} Which item do you see there?\n"
    "Give its name, exactly as above, in \\boxed{{}}.",
    "You move over {0}. At each corner lies a different item.\n\n{1}\n\n{2} What do you find? "
    "Write \\boxed{{item}} with the name used in the text.",
    "Follow this walk and remember where things are. The ground is {0}; all corners hold different items.\n{1}\n"
    "Question: {2} What item is at that place? Answer as \\boxed{{name of the item}}.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceReasoningParams(base.Params):
    n: int  # side of the lattice
    waypoints: tuple[int, ...]  # one is drawn: items told before the jump
    unknown: tuple[int, ...] = (1,)  # one is drawn: new items told after the jump
    jump: float = 0.5  # chance of one
    shapes: tuple[str, ...] = tuple(SHAPES)
    detour: int = 3  # points on the way of the last walk
    letters: bool = False  # items are named by letters


LEVELS: Mapping[str, SpaceReasoningParams] = {
    "tiny": SpaceReasoningParams(n=2, waypoints=(3,), jump=0.0, shapes=("square",), detour=0, letters=True),
    "easy": SpaceReasoningParams(n=4, waypoints=(3, 5), unknown=(1, 2), detour=1),
    "normal": SpaceReasoningParams(n=8, waypoints=(3, 5, 7, 10), unknown=(1, 2, 3, 4, 5)),
    "hard": SpaceReasoningParams(n=10, waypoints=(10, 12, 14), unknown=(5, 6, 7, 8), jump=0.8),
}


@dataclasses.dataclass(frozen=True)
class SpaceReasoning:
    name: str = "space_reasoning"
    measure: str = "straight lines to walk"
    json_answer: bool = False
    levels: Mapping[str, SpaceReasoningParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )

    def generate(self, seed: int, params: SpaceReasoningParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            shape = rng.choice(params.shapes)
            points = inside(shape, params.n)
            jumps = rng.random() < params.jump
            unknown = rng.choice(params.unknown) if jumps else 0
            chosen = rng.sample(points, rng.choice(params.waypoints) + unknown)
            names = rng.sample(string.ascii_uppercase if params.letters else WORDS, len(chosen))
            item = dict(zip(chosen, names, strict=True))
            first, new = chosen[: len(chosen) - unknown], chosen[len(chosen) - unknown :]
            walks = [first]
            if jumps:
                walks.append(rng.sample([*new, rng.choice(first)], unknown + 1))
            returns = jumps and rng.random() < 0.5
            here, goal = walks[-1][0 if returns else -1], rng.choice(chosen)
            free = [point for point in points if point not in item]
            route = [here, *rng.sample(free, min(params.detour, len(free))), goal]
            walk = _joined([move for a, b in itertools.pairwise(route) for move in _path(rng, shape, points, a, b)])
            if not walk:
                return None
            parts = [
                {
                    "items": [item[point] for point in part],
                    "moves": [_path(rng, shape, points, a, b) for a, b in itertools.pairwise(part)],
                }
                for part in walks
            ]
            told = _told(parts, returns)
            asked = f"From where you are now, you go {_listed(walk)}."
            return base.Draft(
                compact=_compact(shape, parts, returns, walk),
                english=tuple(text.format(_WHERE[shape].format(params.n), told, asked) for text in _ENGLISH),
                answer=item[goal],
                meta={
                    "shape": shape,
                    "language": "en",
                    "num_waypoints": len(first),
                    "unknown_node_num": unknown,
                    "n": params.n,
                    "parts": parts,
                    "returns": returns,
                    "walk": walk,
                },
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        places, end = _map(sample)
        found = next((name for name, place in places.items() if place == end), None)
        if found is None:
            raise ValueError("space_reasoning: the walk ends where no item was seen")
        return _in_form(sample, found)

    def worked(self, sample: Sample) -> str:
        """The place of every item, counted from the first (row, place in the row), and where the walk ends."""
        places, end = _map(sample)
        seen = " ".join(f"{name}{row},{column}" for name, (row, column) in places.items())
        return f"{seen} end{end[0]},{end[1]}"

    def perturb(self, sample: Sample, seed: int) -> str:
        """Another item of the story."""
        names = sorted(_map(sample)[0])
        base.rng_for(self.name, "perturb", seed).shuffle(names)
        return base.first_rejected(self, sample, (_in_form(sample, name) for name in names))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        text = parse.last_box_balanced(answer)
        if text is None and mode == "strict" and "\\boxed" not in answer:
            text = answer
        return text is not None and text.strip().lower() == sample.answer.lower()

    def difficulty(self, sample: Sample) -> float:
        told = sum(len(moves) for part in sample.meta["parts"] for moves in part["moves"])
        return float(told + len(sample.meta["walk"]))

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        told = _told(meta["parts"], meta["returns"])
        shown = f"The grid is {_WHERE[meta['shape']].format(meta['n'])}.\n\n> {told}\n\nThen: {_listed(meta['walk'])}."
        if not solved:
            return shown
        places, end = _map(sample)
        top, left = (min(place[i] for place in places.values()) for i in (0, 1))
        height, width = (max(place[i] for place in places.values()) - low + 1 for i, low in ((0, top), (1, left)))
        cells = [["" for _ in range(width)] for _ in range(height)]
        for number, (row, column) in enumerate(places.values(), start=1):
            cells[row - top][column - left] = f"{number}{'*' if (row, column) == end else ''}"
        legend = ", ".join(f"{number} {name}" for number, name in enumerate(places, start=1))
        return f"{shown}\n\n{boards.block(boards.draw(cells))}\n\n{legend}; * is the end: **{self.solve(sample)}**"


def inside(shape: str, n: int) -> list[Point]:
    """The points of a lattice of side n, row by row."""
    if shape == "square":
        return [(row, column) for row in range(n + 1) for column in range(n + 1)]
    points = [(row, column) for row in range(n + 1) for column in range(-row, row + 1, 2)]
    return points + [(n + 1, column) for column in range(1 - n, n, 2) if shape == "diamond"]


def _path(rng: random.Random, shape: str, points: Sequence[Point], start: Point, goal: Point) -> Moves:
    """A random shortest path: straight lines, each of some steps."""
    known, moves, here = set(points), [], start
    while here != goal:
        closer = [
            (name, (here[0] + step[0], here[1] + step[1]))
            for name, step in SHAPES[shape].items()
            if _distance(shape, (here[0] + step[0], here[1] + step[1]), goal) < _distance(shape, here, goal)
        ]
        name, here = rng.choice([move for move in closer if move[1] in known])
        moves.append([name, 1])
    return _joined(moves)


def _distance(shape: str, a: Point, b: Point) -> int:
    """How many steps two points are apart; the lattices have no holes or bays that would make it longer."""
    rows, columns = abs(a[0] - b[0]), abs(a[1] - b[1])
    if shape == "square":
        return rows + columns
    return max(rows, columns) if shape == "diamond" else max(rows, (rows + columns) // 2)


def _joined(moves: Moves) -> Moves:
    out: Moves = []
    for name, count in moves:
        if out and out[-1][0] == name:
            out[-1][1] += count
        else:
            out.append([name, count])
    return out


def _walked(shape: str, start: Point, moves: Moves) -> Point:
    row, column = start
    for name, count in moves:
        down, right = SHAPES[shape][name]
        row, column = row + count * down, column + count * right
    return row, column


def _map(sample: Sample) -> tuple[dict[str, Point], Point]:
    """(the place of every item counted from the first one, where the last walk ends), from the told steps alone."""
    shape, parts = sample.meta["shape"], sample.meta["parts"]
    places: dict[str, Point] = {}
    here = (0, 0)
    for part in parts:
        own = {part["items"][0]: (0, 0)}
        here = (0, 0)
        for name, moves in zip(part["items"][1:], part["moves"], strict=True):
            here = own[name] = _walked(shape, here, moves)
        shared = next((name for name in own if name in places), None)
        if places and shared is None:
            raise ValueError("space_reasoning: nothing tells where the jump has led")
        down, right = (places[shared][i] - own[shared][i] for i in (0, 1)) if shared is not None else (0, 0)
        places = {name: (row + down, column + right) for name, (row, column) in own.items()} | places
        here = places[part["items"][-1]]
    if sample.meta["returns"]:
        here = places[parts[-1]["items"][0]]
    ordered = {name: places[name] for part in parts for name in part["items"]}
    return ordered, _walked(shape, here, sample.meta["walk"])


def _listed(moves: Moves) -> str:
    lines = [f"{count} {'step' if count == 1 else 'steps'} {name}" for name, count in moves]
    return ", then ".join(lines)


def _told(parts: Sequence[Mapping[str, Any]], returns: bool) -> str:
    sentences = []
    for i, part in enumerate(parts):
        start = "Then you jump to an unknown place, where you see" if i else "You start at a corner where you see"
        sentences.append(f"{start} this item: {part['items'][0]}.")
        for name, moves in zip(part["items"][1:], part["moves"], strict=True):
            sentences.append(f"You go {_listed(moves)} and see: {name}.")
    if returns:
        sentences.append(f"Then you return to the place where your jump ended ({parts[-1]['items'][0]}).")
    return " ".join(sentences)


def _compact(shape: str, parts: Sequence[Mapping[str, Any]], returns: bool, walk: Moves) -> str:
    words = [shape]
    for i, part in enumerate(parts):
        words += ["*"] * (i > 0) + [part["items"][0]]
        for name, moves in zip(part["items"][1:], part["moves"], strict=True):
            words += [*(f"{_SHORT[direction]}{count}" for direction, count in moves), name]
    return " ".join([*words, *["<"] * returns, "?", *(f"{_SHORT[direction]}{count}" for direction, count in walk)])


def _in_form(sample: Sample, name: str) -> str:
    return name if sample.meta.get("form") == "compact" else f"\\boxed{{{name}}}"
