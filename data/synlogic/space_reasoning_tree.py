r"""Cousins in a tree told by statements (SynLogic, arXiv:2505.19641, task `space_reasoning_tree`).

A tree of five layers is told in pieces: children, grandchildren and siblings of some nodes, every list complete. The question
asks for the cousins of a node, the children of its parent's siblings. Compact form: `A>B,C B>D C>E,F ? D` (`>` children, `>-`
none, `>>` grandchildren, `~` siblings) with the short answer `E,F`; the official answer is `\boxed{E, F}`. The official
verifier removes all spaces, splits at commas and compares sets, so a name may be repeated or torn apart; the strict one wants
each name once and whole, in any order, and accepts the bare list as well (its one widening). The official generator emits one
English statement in Chinese; ours tells everything in English, and keeps an instance only when the statements give the answer.
"""

import dataclasses
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

from data.synlogic import base, parse
from data.synlogic.words import WORDS
from framework.sample import Sample

__all__ = ["SpaceReasoningTree", "SpaceReasoningTreeParams", "cousins"]

_ENGLISH = (
    "A tree has named nodes. Statements about it (every list is complete):\n{0}\n\nCousins of a node are the children of its "
    "parent's siblings. Which nodes are the cousins of {1}? Put the names, in alphabetical order and separated by commas, into "
    "\\boxed{{}}, such as \\boxed{{laptop, mug}}.",
    "Read what is known about a tree:\n{0}\n\nAll lists are complete. Two nodes are cousins if they have the same grandparent but "
    "different parents. List all cousins of {1} as \\boxed{{name, name}}, separated by commas, in alphabetical order.",
    "Someone describes parts of a family tree of objects and leaves nothing out of any list.\n{0}\n\nName every cousin of {1}, "
    "that is, every child of a brother or sister of its parent. Answer with \\boxed{{first, second, third}} in alphabetical order.",
)
_MAX_CHARS = 6_500  # of the statements: the whole prompt has at most 8,000

Fact = Mapping[str, Any]  # kind ("children", "grandchildren" or "siblings"), of (a node), names (the complete list)
Tree = dict[str, list[str]]  # the children of every node


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceReasoningTreeParams(base.Params):
    nodes: tuple[int, int]  # least and most
    root: tuple[int, int] = (3, 6)  # children of the root, least and most
    second: tuple[int, int] = (2, 5)  # children of those
    third: tuple[int, int] = (1, 4)  # children of those, which have any with a chance of 3/4
    fourth: tuple[int, int] = (1, 3)  # children of those, which have any with a chance of 3/5
    letters: bool = False  # nodes are named by letters


LEVELS: Mapping[str, SpaceReasoningTreeParams] = {
    "tiny": SpaceReasoningTreeParams(nodes=(6, 9), root=(2, 3), second=(1, 3), letters=True),
    "easy": SpaceReasoningTreeParams(nodes=(20, 40)),
    "normal": SpaceReasoningTreeParams(nodes=(50, 200)),
    "hard": SpaceReasoningTreeParams(nodes=(200, 300)),
}


@dataclasses.dataclass(frozen=True)
class SpaceReasoningTree:
    name: str = "space_reasoning_tree"
    measure: str = "names in the statements"
    json_answer: bool = False
    levels: Mapping[str, SpaceReasoningTreeParams] = dataclasses.field(
        default_factory=lambda: LEVELS, hash=False, repr=False
    )

    def generate(self, seed: int, params: SpaceReasoningTreeParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            tree = _draw_tree(rng, params)
            parent = {child: node for node, children in tree.items() for child in children}
            answers = {node: sorted(_cousins_in(tree, parent, node)) for node in tree}
            targets = [node for node in tree if answers[node]]
            if not targets:
                return None
            target = rng.choice(targets)
            facts = _draw_facts(rng, tree, parent, target)
            told = "\n".join(_sentence(fact) for fact in facts)
            if len(told) > _MAX_CHARS or cousins(facts, target) != answers[target]:
                return None
            return base.Draft(
                compact=f"{' '.join(map(_short, facts))} ? {target}",
                english=tuple(text.format(told, target) for text in _ENGLISH),
                answer=", ".join(answers[target]),
                meta={"language": "en", "num_nodes": len(tree), "target": target, "facts": facts},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """The statements that give the answer, in order of use."""
        return " ".join(_short(fact) for fact in _derive(sample.meta["facts"], sample.meta["target"])[0])

    def perturb(self, sample: Sample, seed: int) -> str:
        """A cousin left out, or a sibling or an uncle taken for one."""
        rng = base.rng_for(self.name, "perturb", seed)
        right, target = _solution(sample), sample.meta["target"]
        used = [name for fact in _derive(sample.meta["facts"], target)[0] for name in (fact["of"], *fact["names"])]
        wrong = sorted({*used} - {*right, target})
        options = [[*right[:i], *right[i + 1 :]] for i in range(len(right)) if len(right) > 1]
        options += [[*right, name] for name in wrong] + [wrong]
        rng.shuffle(options)
        return base.first_rejected(self, sample, (_in_form(sample, sorted(names)) for names in options))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        text = parse.last_box_balanced(answer)
        if text is None and mode == "strict" and "\\boxed" not in answer:
            text = answer
        if text is None:
            return False
        text, right = text.strip().replace("，", ","), sample.answer.replace("，", ",")
        found = text.replace(" ", "").split(",")
        if set(found) != set(right.replace(" ", "").split(",")):
            return False
        if mode == "official":
            return True
        return _names(text) == _names(right)  # names as they are written, each once

    def difficulty(self, sample: Sample) -> float:
        return float(sum(1 + len(fact["names"]) for fact in sample.meta["facts"]))

    def show(self, sample: Sample, solved: bool = False) -> str:
        facts, target = sample.meta["facts"], sample.meta["target"]
        shown = "\n".join(f"- {_sentence(fact)}" for fact in facts) + f"\n\nWho are the cousins of **{target}**?"
        if not solved:
            return shown
        used = " ".join(_sentence(fact) for fact in _derive(facts, target)[0])
        return f"{shown}\n\n{used} So: **{', '.join(_solution(sample))}**"


def cousins(facts: Sequence[Fact], target: str) -> list[str]:
    """The cousins of `target` that follow from the statements, in order; empty when nothing follows."""
    return _derive(facts, target)[1]


def _derive(facts: Sequence[Fact], target: str) -> tuple[list[Fact], list[str]]:
    """(the statements used, the cousins): either grandchildren without the parent's children, or the children of all uncles."""
    by_kind = {
        kind: {fact["of"]: fact for fact in facts if fact["kind"] == kind} for kind in ("children", "grandchildren")
    }
    parents = {name: node for node, fact in by_kind["children"].items() for name in fact["names"]}
    parent = parents.get(target)
    if parent is None:
        return [], []
    family = by_kind["children"][parent]
    for fact in by_kind["grandchildren"].values():
        if target in fact["names"]:
            return [fact, family], sorted({*fact["names"]} - {*family["names"]})
    uncles = by_kind["children"].get(parents.get(parent, ""))
    if uncles is None or any(uncle not in by_kind["children"] for uncle in uncles["names"]):
        return [], []
    told = [by_kind["children"][uncle] for uncle in uncles["names"] if uncle != parent]
    return [family, uncles, *told], sorted(name for fact in told for name in fact["names"])


def _solution(sample: Sample) -> list[str]:
    names = cousins(sample.meta["facts"], sample.meta["target"])
    if not names:
        raise ValueError(f"space_reasoning_tree: the statements do not give the cousins of {sample.meta['target']}")
    return names


def _draw_tree(rng: random.Random, params: SpaceReasoningTreeParams) -> Tree:
    """Layer by layer with random numbers of children; what is left over hangs below random nodes of layers two to four."""
    count = rng.randint(*params.nodes)
    names = rng.sample(string.ascii_uppercase if params.letters else WORDS, count)
    tree: Tree = {name: [] for name in names}
    rest = names[1:]

    def grow(layer: Sequence[str], size: tuple[int, int], chance: float) -> list[str]:
        below: list[str] = []
        for node in layer:
            if rest and rng.random() < chance:
                children = rest[: rng.randint(*size)]
                del rest[: len(children)]
                tree[node] += children
                below += children
        return below

    second = grow(names[:1], params.root, 1.0)
    third = grow(second, params.second, 1.0)
    fourth = grow(third, params.third, 0.75)
    grow(fourth, params.fourth, 0.6)
    for name in rest:
        tree[rng.choice([*second, *third, *fourth])].append(name)
    return tree


def _cousins_in(tree: Tree, parent: Mapping[str, str], node: str) -> list[str]:
    grandparent = parent.get(parent.get(node, ""))
    uncles = tree[grandparent] if grandparent is not None else []
    return [child for uncle in uncles if uncle != parent[node] for child in tree[uncle]]


def _draw_facts(rng: random.Random, tree: Tree, parent: Mapping[str, str], target: str) -> list[dict[str, Any]]:
    """What gives the answer, told in one of two ways, among statements about other nodes, in random order."""

    def fact(kind: str, node: str) -> dict[str, Any]:
        names = {
            "children": lambda: tree[node],
            "grandchildren": lambda: [name for child in tree[node] for name in tree[child]],
            "siblings": lambda: [name for name in tree[parent[node]] if name != node] if node in parent else [],
        }[kind]()
        return {"kind": kind, "of": node, "names": rng.sample(names, len(names))}

    father = parent[target]
    grandfather = parent[father]
    if rng.random() < 0.5:
        facts = [fact("grandchildren", grandfather), fact("children", father)]
    else:
        facts = [fact("children", node) for node in (grandfather, *tree[grandfather])]
    others = [node for node in tree if node not in (target, father, grandfather)]
    told = {(one["kind"], one["of"]) for one in facts}
    for node in rng.sample(others, rng.randint(len(tree) // 3, len(tree) // 2)):
        extra = fact(rng.choice(("children", "grandchildren", "siblings")), node)
        if (extra["names"] or extra["kind"] == "children") and (extra["kind"], node) not in told:
            facts.append(extra)
    rng.shuffle(facts)
    return facts


def _sentence(fact: Fact) -> str:
    node, names = fact["of"], fact["names"]
    if not names:
        return f"{node} has no {fact['kind']}."
    if fact["kind"] == "siblings":
        return f"The {'sibling' if len(names) == 1 else 'siblings'} of {node}: {', '.join(names)}."
    one = "child" if fact["kind"] == "children" else "grandchild"
    return f"{node} has {len(names)} {one if len(names) == 1 else fact['kind']}: {', '.join(names)}."


def _short(fact: Fact) -> str:
    sign = {"children": ">", "grandchildren": ">>", "siblings": "~"}[fact["kind"]]
    return f"{fact['of']}{sign}{','.join(fact['names']) or '-'}"


def _names(text: str) -> list[str]:
    return sorted(" ".join(name.split()) for name in text.split(","))


def _in_form(sample: Sample, names: Sequence[str]) -> str:
    return ",".join(names) if sample.meta.get("form") == "compact" else f"\\boxed{{{', '.join(names)}}}"
