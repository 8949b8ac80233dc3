"""Time sequence: the common checks, the published rules as verdicts, and answers recomputed minute by minute from the text."""

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.time_sequence import TimeSequence
from framework.sample import Sample

TASK = TimeSequence()
RULES = (
    "drop_10", "drop_30", "drop_morning", "early_end", "free_after", "free_before", "time_zone", "tuesday_friday",
    "tuesday_thursday", "wednesday_lunch",
)  # fmt: skip


def record(longest: int, count: int) -> Sample:
    meta = {"records": {"answers": {"answer_maxLen": longest, "answer_nums": count}}}
    return Sample(task="time_sequence", question="", answer=f"[{longest}, {count}]", meta=meta)


@pytest.mark.slow
def test_time_sequence_is_a_task():
    check_all(TASK, seeds=25)


VERDICTS = [
    # answer, official, strict: card, section 37
    ("[45, 3]", True, True),
    ("[3,45]", False, False),
    ("[45, 3] (see [1])", False, False),
    # card, section 30: the last [...] in the text, JSON, first two entries equal
    ("So: [1, 2] and finally [45, 3].", True, True),
    ("[45,3]", True, True),
    ("[\n45,\n3\n]", True, True),
    ("[45，3]", True, True),  # a Chinese comma is read as a comma
    ("[45.0, 3]", True, False),
    ("[45, 3, 9]", True, False),
    ("[45]", False, False),
    ("[]", False, False),
    ('["45", "3"]', False, False),
    ("[45 minutes, 3]", False, False),
    ("[[45, 3]]", False, False),  # brackets pair with the next closing one
    ("[45, 3", False, False),
    ("(45, 3)", False, False),
    ("\\boxed{[45, 3]}", True, True),
    ("```json\n[45, 3]\n```", True, True),
    ("[4.5e1, 3]", True, False),
    ("45, 3", False, True),  # the widening of strict
    ("45,3", False, True),
    ("45 3", False, True),
    ("3,45", False, False),
    ("45", False, False),
    ("45,3,9", False, False),
    ("at most 45,3", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("answer", "official", "strict"), VERDICTS, ids=[repr(v[0]) for v in VERDICTS])
def test_verdict(answer: str, official: bool, strict: bool):
    assert TASK.verify(record(45, 3), answer, "official") is official
    assert TASK.verify(record(45, 3), answer, "strict") is strict


def test_truth_values_are_numbers_only_for_the_published_verifier():
    assert TASK.verify(record(0, 0), "[false, false]", "official")
    assert not TASK.verify(record(0, 0), "[false, false]", "strict")
    assert TASK.verify(record(0, 0), "[0, 0]", "strict")


@pytest.mark.parametrize("text", ["1" + " " * 19_000, "45" + " " * 9_000 + "," + " " * 9_000])
def test_a_number_and_many_spaces_are_refused_at_once(text: str):
    start = time.process_time()
    assert not TASK.verify(record(45, 3), text)
    assert time.process_time() - start < 0.05


def test_a_record_without_truth_accepts_nothing():
    for meta in ({}, {"records": {}}, {"records": {"answers": {"answer_nums": 1}}}):
        assert not TASK.verify(Sample(task="time_sequence", question="", meta=meta), "[0, 0]", "official")


PERTURBATIONS = {
    "as it is": lambda a, b: f"[{a}, {b}]",
    "no space": lambda a, b: f"[{a},{b}]",
    "swapped": lambda a, b: f"[{b}, {a}]",
    "longer": lambda a, b: f"[{a + 5}, {b}]",
    "shorter": lambda a, b: f"[{a - 5}, {b}]",
    "off by one": lambda a, b: f"[{a + 1}, {b}]",
    "one start more": lambda a, b: f"[{a}, {b + 1}]",
    "one start less": lambda a, b: f"[{a}, {b - 1}]",
    "float": lambda a, b: f"[{a}.0, {b}]",
    "floats": lambda a, b: f"[{a}.0, {b}.0]",
    "quotes": lambda a, b: f'["{a}", "{b}"]',
    "extra entry": lambda a, b: f"[{a}, {b}, 1]",
    "entry dropped": lambda a, b: f"[{a}]",
    "empty list": lambda a, b: "[]",
    "nested": lambda a, b: f"[[{a}, {b}]]",
    "tuple": lambda a, b: f"({a}, {b})",
    "unit": lambda a, b: f"[{a} min, {b}]",
    "hours": lambda a, b: f"[{a / 60}, {b}]",
    "prose before": lambda a, b: f"They can meet: [{a}, {b}]",
    "prose after": lambda a, b: f"[{a}, {b}] is the answer",
    "reference after": lambda a, b: f"[{a}, {b}] [1]",
    "wrong list first": lambda a, b: f"[{a + 5}, {b}] no, [{a}, {b}]",
    "wrong list last": lambda a, b: f"[{a}, {b}] no, [{a + 5}, {b}]",
    "fence": lambda a, b: f"```\n[{a}, {b}]\n```",
    "chinese comma": lambda a, b: f"[{a}，{b}]",
    "semicolon": lambda a, b: f"[{a}; {b}]",
    "open": lambda a, b: f"[{a}, {b}",
    "dictionary": lambda a, b: f'{{"minutes": {a}, "starts": {b}}}',
    "leading zero": lambda a, b: f"[0{a}, {b}]",
    "newlines": lambda a, b: f"[{a},\n{b}\n]",
    "empty": lambda a, b: "",
}


def plain_verdict(text: str, truth: list[int], strict: bool) -> bool:
    """The rule restated: what stands between the last `[` that is not inside a list, and the next `]`, is JSON."""
    lists, rest = [], text
    while "[" in rest and "]" in rest.split("[", 1)[1]:
        body, rest = rest.split("[", 1)[1].split("]", 1)
        lists.append(body)
    if not lists:
        return False
    try:
        values = json.loads(f"[{lists[-1].replace('，', ',')}]")
    except ValueError:
        return False
    if strict and ([type(value) for value in values] != [int, int]):
        return False
    return values[:2] == truth


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(("tiny", "easy")))
def test_every_kind_of_change_is_judged_as_the_rule_says(seed: int, level: str):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    truth = json.loads(sample.answer)
    for kind, change in PERTURBATIONS.items():
        text = change(*truth)
        assert TASK.verify(sample, text, "official") is plain_verdict(text, truth, strict=False), kind
        assert TASK.verify(sample, text, "strict") is plain_verdict(text, truth, strict=True), kind


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]


def minutes(clock: str) -> int:
    hours, rest = clock.split(":")
    return 60 * int(hours) + int(rest) - 540


def answer_from(question: str, rules: dict[str, str]) -> list[int]:
    """Minute by minute, from the english text (and the rules' keys): which minutes nobody has taken."""
    open_minutes = {day: set(range(480)) for day in DAYS}
    limit, open_days = 480, []
    for name, rule in rules.items():
        week = question.split(f"\n{name}\n", 1)[1].split("\n\n", 1)[0]
        days = []
        for line in week.splitlines():
            match = re.fullmatch(r"(\w+): (free only|busy) (.*)", line)
            assert match
            times = [(minutes(a), minutes(b)) for a, b in (time.split("-") for time in match[3].split(", "))]
            if match[2] == "free only":
                edges = [0, *(edge for time in times for edge in time), 480]
                times = list(zip(edges[::2], edges[1::2], strict=True))
            days.append((match[1], times))
        for day, busy in days:
            longest_dropped = {"drop_10": 10, "drop_30": 30}.get(rule, 0)
            kept = [(a, b) for a, b in busy if b - a > longest_dropped]
            if rule == "drop_morning":
                kept = [(a, b) for a, b in kept if b > 45]
            for a, b in kept:
                a, b = a - 10 * (rule == "free_after"), b + 10 * (rule == "free_before")
                open_minutes[day] -= set(range(a, b))
            if rule in ("early_end", "time_zone"):
                open_minutes[day] -= set(range(420, 480))
            if rule == "wednesday_lunch" and day == "Wednesday":
                open_minutes[day] -= set(range(210, 240))
            if rule == "tuesday_thursday" and day not in ("Tuesday", "Thursday"):
                open_minutes[day].clear()
            if rule == "tuesday_friday" and day not in ("Tuesday", "Friday"):
                open_minutes[day].clear()
        limit = min(limit, {"tuesday_thursday": 60, "tuesday_friday": 30}.get(rule, 480))
        open_days = [day for day, _ in days]
    found = []
    for day in open_days:
        for start in range(0, 480, 30):
            length = 0
            while start + length in open_minutes[day] and length < limit:
                length += 1
            found.append(length)
    longest = max(found)
    return [longest, found.count(longest)] if longest else [0, 0]


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_the_answer_follows_from_the_text(level: str):
    for seed in range(25):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        assert answer_from(sample.question, sample.meta["records"]["rules"]) == json.loads(sample.answer)


def test_every_rule_is_drawn_and_told():
    told: dict[str, int] = dict.fromkeys(RULES, 0)
    for seed in range(25):
        sample = TASK.generate(seed, TASK.levels["hard"], "english")
        for name, rule in sample.meta["records"]["rules"].items():
            if rule:
                told[rule] += 1
                assert sample.question.count(f"\n{name} ") == 1, "a rule is one sentence that starts with the name"
    assert all(told.values()), told


def test_listed_times_do_not_touch():
    for seed in range(40):
        for week in TASK.generate(seed, TASK.levels["normal"]).meta["records"]["raw_schedule"].values():
            for _, times in week.values():
                edges = [0, *(edge for time in times for edge in time), 96]
                assert edges == sorted(set(edges))


def test_few_instances_are_hopeless():
    hopeless = sum(TASK.generate(seed, TASK.levels["hard"]).answer == "[0, 0]" for seed in range(60))
    assert hopeless <= 12


def test_published_records_can_be_solved():
    week = {day: ["占用", [[0, 90]]] for day in "一二三四"} | {"五": ["空闲", [[9, 40], [44, 60]]]}
    records = {"raw_schedule": {"王芳": week}, "rules": {"王芳": "会议后的空闲时间限制"}}
    sample = Sample(task="time_sequence", question="", meta={"records": records})
    assert TASK.solve(sample) == "[130, 1]"  # Friday from 10:00 to 12:10: the busy time begins at 12:20
