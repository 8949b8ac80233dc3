"""Claims about the task `space_reasoning`: its verdicts, its lattices, and that the told steps alone give the answer."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.space_reasoning import LEVELS, SHAPES, SpaceReasoning, _distance, _path, inside
from framework.sample import Sample

TASK = SpaceReasoning()
TABLE = Sample(task="space_reasoning", question="", answer="TV stand")  # as in published records


@pytest.mark.slow
def test_every_shared_claim():
    check_all(TASK, seeds=25, tiny_chars=60)


# Rule V of card section 25: the last box with matched braces, stripped and lower-cased, equals the answer lower-cased.
@pytest.mark.parametrize(
    ("answer", "official", "strict"),
    [
        ("\\boxed{TV stand}", True, True),
        ("\\boxed{tv STAND}", True, True),
        ("\\boxed{ TV stand\n}", True, True),
        ("You see the \\boxed{TV stand}.", True, True),
        ("\\boxed{chair}, no: \\boxed{TV stand}", True, True),
        ("\\boxed{TV stand}, no: \\boxed{chair}", False, False),
        ("\\boxed{TV  stand}", False, False),
        ("\\boxed{TVstand}", False, False),
        ("\\boxed{\\text{TV stand}}", False, False),
        ("\\boxed{{TV stand}}", False, False),
        ("\\boxed{TV stand", False, False),
        ("\\boxed{TV stand.}", False, False),
        ("\\boxed{a TV stand}", False, False),
        ("\\boxed{unknown}", False, False),
        ("\\boxed{}", False, False),
        ("TV stand", False, True),  # the one widening of the strict mode
        ("tv stand\n", False, True),
        ("The TV stand.", False, False),
        ("", False, False),
    ],
)
def test_verdicts(answer, official, strict):
    assert TASK.verify(TABLE, answer, "official") is official
    assert TASK.verify(TABLE, answer, "strict") is strict


@pytest.mark.parametrize(
    ("shape", "n", "points", "lines"),
    [("square", 1, 4, 4), ("square", 3, 16, 24), ("triangle", 1, 3, 3), ("triangle", 3, 10, 18), ("diamond", 1, 4, 4),
     ("diamond", 2, 8, 10), ("diamond", 3, 13, 18)],
)  # fmt: skip
def test_lattices_have_the_points_and_lines_of_the_picture(shape, n, points, lines):
    corners = inside(shape, n)
    assert len(corners) == len(set(corners)) == points
    steps = SHAPES[shape].values()
    assert sum((r + dr, c + dc) in set(corners) for r, c in corners for dr, dc in steps) == 2 * lines


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_paths_are_shortest_and_stay_inside(shape, n):
    corners, rng = inside(shape, n), random.Random(0)
    for start in corners:
        far, frontier = {start: 0}, [start]
        while frontier:  # breadth first: the distance inside of the lattice
            here = frontier.pop(0)
            for down, right in SHAPES[shape].values():
                there = (here[0] + down, here[1] + right)
                if there in set(corners) and there not in far:
                    far[there] = far[here] + 1
                    frontier.append(there)
        for goal in corners:
            assert _distance(shape, start, goal) == far[goal]
            assert sum(count for _, count in _path(rng, shape, corners, start, goal)) == far[goal]


SHORT = {
    "u": (-1, 0),
    "d": (1, 0),
    "l": (0, -1),
    "r": (0, 1),
    "ul": (-1, -1),
    "ur": (-1, 1),
    "dl": (1, -1),
    "dr": (1, 1),
}


def rewalk(question):
    """The item at the end of a compact question: the told path is walked again, part by part, and the parts are joined."""
    story, _, asked = question.partition(" ? ")
    shape, _, story = story.partition(" ")
    returns = story.endswith(" <")

    def step(place, token):
        name, count = re.fullmatch(r"([a-z]+)([0-9]+)", token).groups()
        down, right = SHORT[name]
        wide = 2 if shape == "triangle" and down == 0 else 1
        return place[0] + int(count) * down, place[1] + int(count) * right * wide

    known, start = {}, None
    for part in story.removesuffix(" <").split(" * "):
        here, own, order = (0, 0), {}, []
        for token in part.split(" "):
            if re.fullmatch(r"(u|d|l|r|ul|ur|dl|dr)[0-9]+", token):
                here = step(here, token)
            else:
                own[token] = here
                order.append(token)
        (common,) = set(known) & set(own) or [None]
        shift = (known[common][0] - own[common][0], known[common][1] - own[common][1]) if common else (0, 0)
        for name, (row, column) in own.items():
            known[name] = (row + shift[0], column + shift[1])
        start = known[order[0] if returns else order[-1]]
    for token in asked.split(" "):
        start = step(start, token)
    assert len(set(known.values())) == len(known), "two items at one place"
    found = [name for name, place in known.items() if place == start]
    return found[0] if found else None


@pytest.mark.parametrize("level", LEVELS)
def test_the_told_steps_give_the_answer(level):
    kinds = set()
    for seed in range(150):
        sample = TASK.generate(seed, LEVELS[level])
        assert rewalk(sample.question) == sample.answer
        parts = sample.meta["parts"]
        names = {name for part in parts for name in part["items"]}
        assert len(names) == sum(len(part["items"]) for part in parts) - (len(parts) - 1)
        kinds.add((sample.meta["shape"], len(parts), sample.meta["returns"]))
        english = TASK.generate(seed, LEVELS[level], "english").question
        assert all(name in english for name in names)
        assert "unknown}" not in english
    if level != "tiny":
        assert len(kinds) == 9, "three shapes, each without a jump, with one, and with a return"


CONTENT = {
    "same": lambda name, others: name,
    "upper case": lambda name, others: name.upper(),
    "title case": lambda name, others: name.title(),
    "spaces around": lambda name, others: f"  {name} ",
    "line break": lambda name, others: f"{name}\n",
    "another item": lambda name, others: others[0],
    "a third item": lambda name, others: others[-1],
    "two items": lambda name, others: f"{name}, {others[0]}",
    "with article": lambda name, others: f"the {name}",
    "full stop": lambda name, others: f"{name}.",
    "quoted": lambda name, others: f'"{name}"',
    "bold": lambda name, others: f"**{name}**",
    "letter dropped": lambda name, others: name[:-1],
    "letter doubled": lambda name, others: name + name[-1],
    "reversed": lambda name, others: name[::-1] + "-",
    "unknown": lambda name, others: "unknown",
    "empty": lambda name, others: "",
}
WRITING = {
    "box": "\\boxed{{{}}}",
    "sentence": "So I see \\boxed{{{}}} there.",
    "second box": "\\boxed{{qq}} \\boxed{{{}}}",
    "bare": "{}",
    "prose": "I see {}",
    "first box": "\\boxed{{{}}} \\boxed{{qq}}",
    "open box": "\\boxed{{{}",
    "other box": "\\fbox{{{}}}",
    "nested": "\\boxed{{\\text{{{}}}}}",
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(["easy", "normal"]),
    st.sampled_from(list(CONTENT)),
    st.sampled_from(list(WRITING)),
)
def test_perturbed_answers_are_judged_right(seed, level, content, writing):
    sample = TASK.generate(seed, LEVELS[level], "english")
    right = rewalk(TASK.generate(seed, LEVELS[level]).question)
    others = sorted({name for part in sample.meta["parts"] for name in part["items"]} - {right})
    text = WRITING[writing].format(CONTENT[content](right, others))
    same = content in ("same", "upper case", "title case", "spaces around", "line break")
    official = same and writing in ("box", "sentence", "second box")
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is (official or (same and writing == "bare"))
