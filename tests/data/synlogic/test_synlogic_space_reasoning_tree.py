"""Claims about the task `space_reasoning_tree`: its verdicts, and that the statements give exactly the answer."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.space_reasoning_tree import LEVELS, SpaceReasoningTree, cousins
from framework.sample import Sample

TASK = SpaceReasoningTree()
ITEMS = Sample(
    task="space_reasoning_tree", question="", answer="TV stand, coffee table, mug"
)  # as in published records


@pytest.mark.slow
def test_every_shared_claim():
    check_all(TASK, seeds=15, tiny_chars=60)


# Rule V of card section 26: last box with matched braces, spaces removed, split at commas, sets compared, case-sensitive.
@pytest.mark.parametrize(
    ("answer", "official", "strict"),
    [
        ("\\boxed{TV stand, coffee table, mug}", True, True),
        ("The cousins are \\boxed{TV stand,coffee table,mug}.", True, True),
        ("\\boxed{mug, TV stand, coffee table}", True, True),
        ("\\boxed{TV stand，coffee table， mug}", True, True),
        ("\\boxed{x} no, \\boxed{TV stand, coffee table, mug}", True, True),
        ("\\boxed{TV stand, coffee table, mug} or \\boxed{mug}", False, False),
        ("\\boxed{tv stand, coffee table, mug}", False, False),
        ("\\boxed{TV stand, mug}", False, False),
        ("\\boxed{TV stand, coffee table, mug, pen}", False, False),
        ("\\boxed{\\text{TV stand, coffee table, mug}}", False, False),
        ("\\boxed{TV stand, coffee table, mug", False, False),
        ("\\boxed{TV stand, coffee table and mug}", False, False),
        ("\\boxed{TV stand, coffee table, mug,}", False, False),
        ("\\boxed{}", False, False),
        # what the strict mode repairs: names torn apart, run together or repeated
        ("\\boxed{TV stand, coffee table, m u g}", True, False),
        ("\\boxed{TVstand, coffeetable, mug}", True, False),
        ("\\boxed{TV stand, coffee table, mug, mug}", True, False),
        # its one widening: no box
        ("TV stand, coffee table, mug", False, True),
        ("TV stand,coffee table,mug", False, True),
        ("TV stand coffee table mug", False, False),
        ("unknown", False, False),
        ("", False, False),
    ],
)
def test_verdicts(answer, official, strict):
    assert TASK.verify(ITEMS, answer, "official") is official
    assert TASK.verify(ITEMS, answer, "strict") is strict


def naive_cousins(question):
    """The cousins that follow from a compact question, or None: every statement is read, nothing else is known."""
    told, _, target = question.partition(" ? ")
    lists = {">": {}, ">>": {}, "~": {}}
    for statement in told.split(" "):
        node, sign, names = re.fullmatch(r"([A-Za-z]+)(>>|>|~)(\S+)", statement).groups()
        lists[sign][node] = [] if names == "-" else names.split(",")
    fathers = [node for node, names in lists[">"].items() if target in names]
    if len(fathers) != 1:
        return None
    own = set(lists[">"][fathers[0]])
    for names in lists[">>"].values():
        if target in names:
            return set(names) - own
    for uncles in lists[">"].values():
        if fathers[0] in uncles and all(uncle in lists[">"] for uncle in uncles):
            return {name for uncle in uncles for name in lists[">"][uncle]} - own
    return None


@pytest.mark.parametrize("level", LEVELS)
def test_the_answer_follows_from_the_statements(level):
    ways = set()
    for seed in range(120):
        sample = TASK.generate(seed, LEVELS[level])
        names = sample.answer.split(", ")
        assert names == sorted(set(names))
        assert naive_cousins(sample.question) == set(names)
        ways.add(">>" in TASK.worked(sample))
    assert ways == {True, False}, "both ways of telling are used"


@pytest.mark.parametrize("level", ["easy", "normal", "hard"])
def test_statements_do_not_contradict_each_other(level):
    for seed in range(60):
        facts = TASK.generate(seed, LEVELS[level]).meta["facts"]
        parent = {}
        for fact in facts:
            if fact["kind"] == "children":
                for name in fact["names"]:
                    assert parent.setdefault(name, fact["of"]) == fact["of"]
        for fact in facts:
            known = {parent[name] for name in (fact["of"], *fact["names"]) if name in parent}
            assert fact["kind"] != "siblings" or len(known) <= 1
            assert len(fact["names"]) == len(set(fact["names"]))
            assert fact["of"] not in fact["names"]
        assert len({(fact["kind"], fact["of"]) for fact in facts}) == len(facts)


def test_english_is_ascii_and_tells_every_statement():
    for seed in range(60):
        sample = TASK.generate(seed, LEVELS["normal"], "english")
        assert sample.question.isascii()  # the official generator emits one of its English statements in Chinese
        assert all(name in sample.question for fact in sample.meta["facts"] for name in (fact["of"], *fact["names"]))


def test_nothing_follows_from_too_few_statements():
    family = {"kind": "children", "of": "B", "names": ["C", "D"]}
    elders = {"kind": "children", "of": "A", "names": ["B", "E"]}
    assert cousins([family, elders], "C") == []
    assert cousins([elders], "C") == []
    assert cousins([family, elders, {"kind": "children", "of": "E", "names": ["F"]}], "C") == ["F"]
    assert cousins([family, {"kind": "grandchildren", "of": "A", "names": ["C", "D", "G"]}], "C") == ["G"]


CONTENT = {
    "same": lambda n: n,
    "reversed": lambda n: n[::-1],
    "rotated": lambda n: n[1:] + n[:1],
    "first dropped": lambda n: n[1:],
    "last dropped": lambda n: n[:-1],
    "first repeated": lambda n: n + n[:1],
    "all repeated": lambda n: n + n,
    "stranger added": lambda n: [*n, "qq"],
    "stranger instead": lambda n: ["qq", *n[1:]],
    "two joined": lambda n: [n[0] + (n[1] if len(n) > 1 else "x"), *n[2:]],
    "last torn": lambda n: [*n[:-1], " ".join(n[-1]) if len(n[-1]) > 1 else "q q"],
    "upper and lower case": lambda n: [name.swapcase() for name in n],
    "spaces around": lambda n: [f"  {name} " for name in n],
    "quoted": lambda n: [f'"{name}"' for name in n],
    "none": lambda n: [],
}
WRITING = {
    "box": (", ", "\\boxed{{{}}}"),
    "tight box": (",", "\\boxed{{{}}}"),
    "sentence": (", ", "They are \\boxed{{{}}}, as told."),
    "second box": (", ", "\\boxed{{qq}} \\boxed{{{}}}"),
    "wide comma": ("，", "\\boxed{{{}}}"),
    "semicolons": ("; ", "\\boxed{{{}}}"),
    "bare": (", ", "{}"),
    "first box": (", ", "\\boxed{{{}}} \\boxed{{qq}}"),
    "open box": (", ", "\\boxed{{{}"),
    "other box": (", ", "\\fbox{{{}}}"),
    "brackets": (", ", "\\boxed{{[{}]}}"),
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(["tiny", "easy"]),
    st.sampled_from(list(CONTENT)),
    st.sampled_from(list(WRITING)),
)
def test_perturbed_answers_are_judged_right(seed, level, content, writing):
    sample = TASK.generate(seed, LEVELS[level], "english")
    right = naive_cousins(TASK.generate(seed, LEVELS[level]).question)
    names = CONTENT[content](sorted(right))
    separator, form = WRITING[writing]
    body = separator.join(names)
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", form.format(body))
    if boxed:
        inside = [name.strip() for name in boxed[-1].replace("，", ",").split(",")]
        torn = [name.replace(" ", "") for name in inside]
        official, strict = set(torn) == right, sorted(inside) == sorted(right)
    else:
        official = False
        strict = "boxed" not in form and sorted(name.strip() for name in form.format(body).split(",")) == sorted(right)
    assert TASK.verify(sample, form.format(body), "official") is official
    assert TASK.verify(sample, form.format(body), "strict") is strict
