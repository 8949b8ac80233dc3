"""Claims about the task `web_of_lies`: its verdicts, and that all worlds that agree with the facts agree on the answer."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.web_of_lies import LEVELS, WebOfLies
from data.synlogic.web_of_lies_worlds import deductions, settled, truth
from framework.sample import Sample

TASK = WebOfLies()
THREE = Sample(task="web_of_lies", question="", answer="yes, no, yes")  # as in published records
CHINESE = Sample(task="web_of_lies", question="", answer="是, 否, 是")


@pytest.mark.slow
def test_every_shared_claim():
    check_all(TASK, seeds=12, tiny_chars=70)


# Card section 37 (first line) and the rules V and D of section 31.
@pytest.mark.parametrize(
    ("answer", "official", "strict"),
    [
        ("The answer is **yes, unknown, yes**.", True, False),
        ("The answer is **yes, no, yes**.", True, True),
        ("The answer is: **yes, no, yes**", True, True),
        ("the answer is **Yes, No, Yes**.", True, True),
        ("Let me see.\n\nThe answer is **yes, no, yes**.", True, True),
        ("The answer is **no, no, no**.\nThe answer is **yes, no, yes**.", True, True),
        ("The answer is **yes, no, yes**.\nThe answer is **no, no, no**.", False, False),
        ("The answer is yes, no, yes.", True, True),
        ("**yes, no, yes**", True, True),
        ("yes, no, yes", True, True),
        ("The answer is **true, false, true**.", True, True),
        ("The answer is **是, 否, 是**.", True, True),
        ("答案是：**是，否，是**。", True, True),
        ("The answer is **yes, no, no**.", False, False),
        ("The answer is **yes, no**.", False, False),
        ("The answer is **yes, no, yes, yes**.", False, False),
        ("The answer is **no, yes, yes**.", False, False),
        ("", False, False),
        # defects of the official verifier that strict repairs
        ("The answer is **yes**, **no**, **yes**.", False, True),
        ("**yes** **no, yes**", False, True),
        ("The answer is **yes, nobody, yes**.", True, False),
        ("The answer is **eyes, notion, yesterday**.", True, False),
        ("The answer is **yes, not sure, yes**.", True, False),
        ("Some words: yes, no, yes and others", True, False),
        # the short form
        ("YNY", False, True),
        ("YYY", False, False),
        ("YN", False, False),
        ("yny", False, False),
    ],
)
@pytest.mark.parametrize("sample", [THREE, CHINESE], ids=["english", "chinese"])
def test_verdicts(sample, answer, official, strict):
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


def holds(token, value):
    """Whether a compact statement agrees with `value`, who tells the truth (by letter)."""
    target, claim = re.fullmatch(r"(?:[A-Z][:=])?([A-Z]+)([+-])", token).groups()
    said = any(value[person] for person in target)
    if token[1] == "=":
        said = value[token[0]] == value[target]
    said = said == (claim == "+")
    return said if token[1] in "+-" else said == value[token[0]]


def brute_force(question, people):
    """All lists of answers that some world gives, every world tried with plain loops."""
    told, _, asked = question.partition(" ? ")
    letters = "ABCDEFGHIJKLMNOPQRST"[:people]
    found = set()
    for values in itertools.product((False, True), repeat=people):
        value = dict(zip(letters, values, strict=True))
        if all(holds(token, value) for token in told.split(" ")):
            found.add("".join("Y" if value[person] else "N" for person in asked))
    return found


EXTENDED = TASK.levels["easy"].__class__(people=(6, 7), difficulty=2, extended=0.6)


@pytest.mark.parametrize(("params", "seeds"), [(LEVELS["tiny"], 150), (LEVELS["easy"], 25), (EXTENDED, 25)])
def test_the_answer_is_the_same_in_all_worlds(params, seeds):
    for seed in range(seeds):
        sample = TASK.generate(seed, params)
        assert brute_force(sample.question, sample.meta["num_person"]) == {TASK.solve(sample)}
        assert sample.answer == ", ".join("yes" if char == "Y" else "no" for char in TASK.solve(sample))


def test_hard_has_all_kinds_of_statements_and_everyone_is_talked_about():
    kinds = set()
    for seed in range(30):
        meta = TASK.generate(seed, LEVELS["hard"]).meta
        kinds |= {(fact["type"], fact["claim"]) for fact in meta["facts"]}
        about = {i for fact in meta["facts"] for i in fact.get("target_ids", [fact.get("target_id")])}
        assert about == set(range(meta["num_person"]))
        told = {fact["target_id"] for fact in meta["facts"] if fact["type"] == "narration"}
        assert len(told) <= 2
        assert not told & set(meta["targets"]), "nobody is asked for whose truth is told"
    assert len(kinds) == 8


def test_the_negation_of_at_least_one_is_neither():
    """The official generator words it as "at least one lies", which is another claim (card section 31, D)."""
    seen = set()
    for seed in range(40):
        for line in TASK.generate(seed, LEVELS["hard"], "english").meta["statements"]:
            assert "at least one of" not in line or line.endswith("tells the truth.")
            seen |= {word for word in ("at least one of", "that neither") if word in line}
    assert len(seen) == 2


def test_settled_follows_single_facts():
    says = {"type": "at_least_one", "speaker_id": 4, "target_ids": [2, 7], "claim": True}
    assert settled(says, {}) == []
    assert settled(says, {2: True}) == [(4, True)]
    assert settled(says, {4: False}) == [(2, False), (7, False)]
    assert settled({**says, "claim": False}, {4: True}) == [(2, False), (7, False)]
    same = {"type": "same_type", "speaker_id": 0, "target_id": 1, "claim": True}
    assert settled(same, {}) == [(1, True)]  # a liar cannot say it of a liar
    assert truth([same, {"type": "narration", "target_id": 0, "claim": False}], 3) == [False, True, None]
    assert deductions([same], 2) == [(1, True)]
    with pytest.raises(ValueError, match="no world"):
        truth([{"type": "simple", "speaker_id": 0, "target_id": 0, "claim": False}], 1)


CONTENT = {
    "same": lambda v: v,
    "first turned": lambda v: [not v[0], *v[1:]],
    "last turned": lambda v: [*v[:-1], not v[-1]],
    "all turned": lambda v: [not one for one in v],
    "first dropped": lambda v: v[1:],
    "last dropped": lambda v: v[:-1],
    "first repeated": lambda v: [v[0], *v],
    "reversed": lambda v: v[::-1],
    "all yes": lambda v: [True] * len(v),
    "all no": lambda v: [False] * len(v),
    "yes added": lambda v: [*v, True],
    "none": lambda v: [],
}
# (format, separator, (word for yes, word for no)), whether each mode can read it
WRITING = {
    "as asked": ("The answer is **{}**.", ", ", ("yes", "no"), True, True),
    "no stop": ("The answer is **{}**", ", ", ("yes", "no"), True, True),
    "colon": ("The answer is: **{}**.", ",", ("yes", "no"), True, True),
    "prose before": ("No, yes, no.\nThe answer is **{}**.", ", ", ("yes", "no"), True, True),
    "capitals": ("The answer is **{}**.", ", ", ("YES", "NO"), True, True),
    "plain": ("The answer is {}.", ", ", ("yes", "no"), True, True),
    "only bold": ("**{}**", " ", ("yes", "no"), True, True),
    "bare": ("{}", ", ", ("yes", "no"), True, True),
    "true and false": ("The answer is **{}**.", ", ", ("true", "false"), True, True),
    "spans": ("The answer is **{}**.", "**, **", ("yes", "no"), False, True),
    "unknown for no": ("The answer is **{}**.", ", ", ("yes", "unknown"), True, False),
    "longer words": ("The answer is **{}**.", ", ", ("yesterday", "nobody"), True, False),
    "letters": ("The answer is **{}**.", ", ", ("y", "n"), False, False),
}


@settings(max_examples=examples(120), deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(["tiny", "easy"]),
    st.sampled_from(list(CONTENT)),
    st.sampled_from(list(WRITING)),
)
def test_perturbed_answers_are_judged_right(seed, level, content, writing):
    sample = TASK.generate(seed, LEVELS[level], "english")
    (right,) = brute_force(TASK.generate(seed, LEVELS[level]).question, sample.meta["num_person"])
    right = [char == "Y" for char in right]
    values = CONTENT[content](right)
    form, separator, (yes, no), official, strict = WRITING[writing]
    text = form.format(separator.join(yes if value else no for value in values))
    if writing == "spans":  # the official verifier sees the first span, which is all there is of one value
        official = len(values) == 1
    if writing == "unknown for no" and False not in values:
        strict = True
    same = values == right
    assert TASK.verify(sample, text, "official") is (official and same)
    assert TASK.verify(sample, text, "strict") is (strict and same)
