"""Boolean expression trees of the task `boolean_expressions`: random growth, text, value and step-by-step reduction.

A tree is a nested list, so that it can be stored in a sample's `meta`:
`["lit", true]`, `["cmp", "3<5", true]`, `["fact", text, true]`, `["not", tree]`, `["and", tree, ...]`, `["or", tree, ...]`.
"""

import dataclasses
import operator
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["Growth", "Tree", "grow", "reduction", "render", "value"]

Tree = list[Any]  # JSON: a kind, then texts, truth values and sub-trees

_COMPARE: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}

_TRUE_FACTS = (
    "Paris is the capital of France",
    "water is made of hydrogen and oxygen",
    "a triangle has three sides",
    "the Earth orbits the Sun",
    "spiders have eight legs",
    "ice floats on water",
    "February is the shortest month",
    "whales are mammals",
    "the Pacific is an ocean",
    "sound travels faster in water than in air",
    "gold is a metal",
    "Mount Everest lies in Asia",
)
_FALSE_FACTS = (
    "the Moon is larger than the Earth",
    "fish breathe with lungs",
    "a year has thirteen months",
    "Berlin is the capital of Spain",
    "the Sun is a planet",
    "penguins live at the North Pole",
    "a hexagon has five sides",
    "iron is lighter than wood",
    "bats are birds",
    "the Nile flows through Brazil",
    "diamonds are made of silver",
    "an hour has ninety minutes",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """Shares of the official generator: leaves comparison 0.4, fact 0.3, literal 0.3; inner nodes not 0.35, and 0.35, or 0.3."""

    fact_share: float = 0.3
    compare_share: float = 0.4
    digits_only: bool = False  # compare two digits with < or >, instead of two arithmetic expressions
    max_nots: int = 3


def grow(rng: random.Random, depth: int, growth: Growth) -> Tree:
    """A random tree of at most `depth` inner levels; at depth 2 and below a branch may end early."""
    if depth <= 0:
        return _leaf(rng, growth)
    draw = rng.random()
    if draw < 0.35:
        tree = grow(rng, depth - 1, growth)
        for _ in range(rng.randint(1, growth.max_nots)):
            tree = ["not", tree]
        return tree
    operands = 3 if depth > 2 and rng.random() < 0.4 else 2
    kind = "and" if draw < 0.7 else "or"
    return [kind, *(_branch(rng, depth - 1, growth) for _ in range(operands))]


def value(tree: Tree) -> bool:
    match tree[0]:
        case "lit":
            return tree[1]
        case "cmp" | "fact":
            return tree[2]
        case "not":
            return not value(tree[1])
        case "and":
            return all(value(child) for child in tree[1:])
    return any(value(child) for child in tree[1:])


def render(tree: Tree, compact: bool) -> str:
    """Text of a tree. Every and/or inside another node gets parentheses, so no precedence has to be known."""
    match tree[0]:
        case "lit":
            return str(tree[1])[0] if compact else str(tree[1])
        case "cmp":
            return tree[1]
        case "fact":
            return f'"{tree[1]}"'
        case "not":
            inner = _bracketed(tree[1], compact, ("and", "or", "cmp"))
            return f"!{inner}" if compact else f"not {inner}"
    sign = {"and": "&", "or": "|"}[tree[0]] if compact else f" {tree[0]} "
    return sign.join(_bracketed(child, compact, ("and", "or")) for child in tree[1:])


def reduction(tree: Tree) -> list[str]:
    """Compact texts of the tree after each step; a step replaces whatever has only truth values below it. Ends in T or F."""
    if tree[0] == "lit":
        return [render(tree, compact=True)]
    steps = []
    while tree[0] != "lit":
        tree = _step(tree)
        steps.append(render(tree, compact=True))
    return steps


def _step(tree: Tree) -> Tree:
    if tree[0] == "lit":
        return tree
    if tree[0] in ("cmp", "fact") or all(child[0] == "lit" for child in tree[1:]):
        return ["lit", value(tree)]
    return [tree[0], *(_step(child) for child in tree[1:])]


def _bracketed(tree: Tree, compact: bool, kinds: Sequence[str]) -> str:
    text = render(tree, compact)
    # `-9&-5` would be unreadable, and with spaces around it misleading: only one-sign comparisons stay bare.
    spaced = compact and tree[0] == "cmp" and " " in text
    return f"({text})" if tree[0] in kinds or spaced else text


def _branch(rng: random.Random, depth: int, growth: Growth) -> Tree:
    early = depth <= 2 and rng.random() < 0.3
    return grow(rng, 0 if early else depth, growth)


def _leaf(rng: random.Random, growth: Growth) -> Tree:
    draw = rng.random()
    if draw < growth.compare_share:
        return _comparison(rng, growth)
    if draw < growth.compare_share + growth.fact_share:
        truth = rng.random() < 0.5
        return ["fact", rng.choice(_TRUE_FACTS if truth else _FALSE_FACTS), truth]
    return ["lit", rng.random() < 0.5]


def _comparison(rng: random.Random, growth: Growth) -> Tree:
    # The official operator list also holds plus, minus, times and divided by: those leaves are numbers. Not here.
    if growth.digits_only:
        left, right = rng.sample(range(10), 2)
        sign = rng.choice("<>")
        return ["cmp", f"{left}{sign}{right}", _COMPARE[sign](Fraction(left), Fraction(right))]
    (left_text, left_value), (right_text, right_value) = _number(rng), _number(rng)
    sign = rng.choice(list(_COMPARE))
    return ["cmp", f"{left_text} {sign} {right_text}", _COMPARE[sign](left_value, right_value)]


def _number(rng: random.Random) -> tuple[str, Fraction]:
    a, b = rng.randint(-12, 12), rng.randint(-9, 9)
    c = rng.choice([n for n in range(-9, 10) if n])
    d = rng.randint(-9, 9)
    op = rng.choice(list(_ARITHMETIC))
    apply = _ARITHMETIC[op]
    match rng.randrange(3):
        case 0:
            return f"{a} - ({b} / {c})", a - Fraction(b, c)
        case 1:
            return f"{a} * {b} {op} {c} * {d}", apply(Fraction(a * b), Fraction(c * d))
    return f"{a} {op} {b}", apply(Fraction(a), Fraction(b))
