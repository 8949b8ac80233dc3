"""Object properties: the common checks, the published rules as verdicts, and answers derived from the english sentences."""

import dataclasses
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples
from test_synlogic_object_counting import PERTURBATIONS, VERDICTS, plain_verdict

from data.synlogic.object_properties import ObjectProperties, ObjectPropertiesParams
from data.synlogic.object_properties_changes import ATTRIBUTES
from framework.sample import Sample

TASK = ObjectProperties()
KINDS = {"remake", "split", "dye", "companion", "fresh", "lost", "rework", "trade", "twin", "paint"}


@pytest.mark.slow
def test_object_properties_is_a_task():
    check_all(TASK, seeds=30)


@pytest.mark.parametrize(("answer", "official", "strict"), VERDICTS, ids=[repr(v[0]) for v in VERDICTS])
def test_verdict(answer: str, official: bool, strict: bool):
    """Card, section 22: the acceptance rule is that of object_counting."""
    sample = Sample(task="object_properties", question="", answer="19", meta={})
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(("tiny", "easy")))
def test_every_kind_of_change_is_judged_as_the_rule_says(seed: int, level: str):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    truth = int(sample.answer)
    for kind, change in PERTURBATIONS.items():
        text = change(truth)
        assert TASK.verify(sample, text, "official") is plain_verdict(text, truth, strict=False), kind
        assert TASK.verify(sample, text, "strict") is plain_verdict(text, truth, strict=True), kind


ATTRIBUTE_OF = {value: attribute for attribute, values in ATTRIBUTES.items() for value in values}
VALUE = re.compile(rf"\b(?:{'|'.join(ATTRIBUTE_OF)})\b")


def first_items(question: str) -> list[dict[str, str]]:
    """The first collection as the english text tells it."""
    told = re.search(r"At first I had (\d+) items: (.*?)\. In this order their \w+ are (.*?)\.\n", question)
    assert told
    items = [{ATTRIBUTE_OF[value]: value for value in VALUE.findall(text)} for text in told[2].split(", ")]
    runs = re.findall(r"(\w+) for the (?:first|next) (?:(\d+) items|item)", told[3])
    values = [value for value, count in runs for _ in range(int(count or 1))]
    assert len(items) == len(values) == int(told[1])
    return [{**item, ATTRIBUTE_OF[value]: value} for item, value in zip(items, values, strict=True)]


def changed(items: list[dict[str, str]], first: list[dict[str, str]], sentence: str) -> list[dict[str, str]]:
    """The collection after one english sentence; the first value named in it selects items, the others are new."""
    values = VALUE.findall(sentence)
    new = {ATTRIBUTE_OF[value]: value for value in values[1:]}
    pairs = {(item.get("smells"), item.get("colors")) for item in first}
    result: list[dict[str, str]] = []
    for item in items:
        if "my first collection" in sentence:
            result += [item] if (item["smells"], item["colors"]) in pairs else [item, dict(item)]
        elif item[ATTRIBUTE_OF[values[0]]] != values[0]:
            result.append(item)
        elif "two copies" in sentence:
            result += [{**item, "sizes": new["sizes"]}, {**item, "colors": new["colors"]}]
        elif "added another" in sentence or "added a twin" in sentence:
            result += [item, {**item, **new}]
        elif "as many new items" in sentence:
            assert set(new) == set(item), "a trade states every attribute of the new items"
            result.append(new)
        elif not sentence.startswith("I lost"):
            result.append({**item, **new})
    return result


def answer_from(question: str) -> int:
    first = items = first_items(question)
    story, asked = re.split(r"\n\n.*How many of the items that I have in the end", question)
    told = story.split("one after the other: ")[1]
    for sentence in re.findall(r"[A-Z].*?\.(?= |$)", told):
        if sentence.startswith("By then I had"):
            counts = {m: int(n) for n, m in re.findall(r"(\d+) of (\w+)", sentence)}
            assert counts == Counter(item["materials"] for item in items), "the hint is true"
        else:
            items = changed(items, first, sentence)
    conditions = VALUE.findall(asked.split("?")[0])
    return sum(any(value in item.values() for value in conditions) for item in items)


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_the_answer_follows_from_the_text(level: str):
    for seed in range(40):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        assert answer_from(sample.question) == int(sample.answer), seed


def test_all_changes_occur_and_hints_are_given():
    params = dataclasses.replace(TASK.levels["hard"], changes=(10,))
    sample = TASK.generate(1, params, "english")
    assert {event["kind"] for event in sample.meta["changes"]} == KINDS
    assert "By then I had" in sample.question
    assert answer_from(sample.question) == int(sample.answer)


def test_losing_every_item_is_no_crash():
    params = ObjectPropertiesParams(items=(1, 2), changes=(4, 5, 6), hint=1.0)
    answers = []
    emptied = 0
    for seed in range(120):
        sample = TASK.generate(seed, params, "english")
        answers.append(int(sample.answer))
        assert answer_from(sample.question) == int(sample.answer)
        emptied += "nothing at all" in sample.question
    assert emptied > 10
    assert answers.count(0) >= emptied


def test_a_value_says_which_attribute_is_meant():
    values = [value for values in ATTRIBUTES.values() for value in values]
    assert len(values) == len(set(values))
    assert all(len(names) >= 7 for names in ATTRIBUTES.values())


@pytest.mark.parametrize(
    "question", ["How many: either size is small or origin is French?", "有多少：尺寸是small或产地是French？"]
)
def test_published_records_can_be_solved(question: str):
    item = {
        "sizes": "small",
        "colors": "red",
        "countries": "French",
        "materials": "wood",
        "smells": "mint",
        "name": "pen",
    }
    items = [
        item,
        {**item, "sizes": "large"},
        {**item, "countries": "Polish"},
        {**item, "sizes": "huge", "countries": "Polish"},
    ]
    meta = {"initial_collection": items[:2], "final_collection": items, "question": question}
    assert TASK.solve(Sample(task="object_properties", question="", answer="3", meta=meta)) == r"\boxed{3}"
