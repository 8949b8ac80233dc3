"""Claims of dyck_language_reasoning_errors: form by form verdicts against a naive checker; labels; published records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.dyck_language_reasoning_errors import DyckLanguageReasoningErrors
from framework.sample import Sample

TASK = DyckLanguageReasoningErrors()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=30)


def naive_wrong(sample):
    """The thoughts that differ from the ones a plain reading writes down."""
    thoughts, stack, right = sample.meta["thoughts"], [], []
    for number, char in enumerate(sample.meta["dyck_sequence"], start=3):
        if char in "([{<":
            stack.append(char)
        else:
            stack.pop()
        right.append(f"Thought {number}: {char} ; stack: {''.join(stack) or 'empty'}")
    wrong = [number for number, (a, b) in enumerate(zip(thoughts[2:-1], right, strict=True), start=3) if a != b]
    return wrong + ([len(thoughts)] if "not empty" in thoughts[-1] else [])


def naive(sample, text, mode):
    wrong = set(naive_wrong(sample))
    if mode == "official":
        if "unclear" in text.lower():
            return False
        kept = "".join(char for char in text.replace("，", ",") if char in "0123456789,")
        return {int(part) for part in kept.split(",") if part} == wrong
    text = text.strip()
    for left, right in ('""', "''", "[]", "()"):
        if len(text) > 1 and text[0] == left and text[-1] == right:
            text = text[1:-1].strip()
            break
    text = text.removesuffix(".")
    if text.lower() in ("no", "no error", "no errors"):
        return not wrong
    parts = [part.strip() for part in text.replace("，", ",").split(",")]
    parts = [" ".join(part.split()[1:]) if part.lower().startswith("thought ") else part for part in parts]
    return all(part.isdigit() and len(part) < 7 for part in parts) and {int(part) for part in parts} == wrong


EDITS = {
    "right": lambda w, k: w,
    "one missing": lambda w, k: w[:-1],
    "one more": lambda w, k: [*w, 3 + k],
    "one later": lambda w, k: [n + 1 for n in w],
    "one earlier": lambda w, k: [n - 1 for n in w],
    "counted from the first bracket": lambda w, k: [n - 2 for n in w],
    "one repeated": lambda w, k: [*w, *w[:1]],
    "other order": lambda w, k: w[::-1],
    "none": lambda w, k: [],
    "all": lambda w, k: list(range(3, 9)),
    "leading zeros": lambda w, k: [f"0{n}" for n in w],
    "negative": lambda w, k: [-n for n in w],
    "decimals": lambda w, k: [f"{n}.0" for n in w],
    "with the word": lambda w, k: [f"Thought {n}" for n in w],
}


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([",", ", ", "，", " ", "\n", ";", " and "]),
    st.sampled_from(["no", "no errors", "", "unclear", "I do not know"]),
    st.sampled_from([*FORMS]),
    st.integers(0, 9),
)
def test_every_form_of_right_and_wrong_numbers_is_judged_as_by_a_naive_checker(seed, level, edit, sep, none, form, k):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    numbers = EDITS[edit](naive_wrong(sample), k)
    text = FORMS[form](sep.join(map(str, numbers)) if numbers else none)
    for mode in ("strict", "official"):
        assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


def published(indices):
    thoughts = [
        "Thought 1: 我们应该逐个处理输入并跟踪栈的配置。",
        "Thought 2: 栈: 空",
        "Thought 3: ( ; 栈: ([",
        "Thought 4: ) ; 栈: 空",
    ]
    if not indices:
        thoughts[2] = "Thought 3: ( ; 栈: ("
    thoughts.append("Thought 5: 现在，我们已经到达结尾。最终栈是空的。")
    meta = {"trace_id": "x", "dyck_sequence": "()", "thoughts": thoughts, "error_indices": indices, "n_types": 3}
    return Sample(task=TASK.name, question="", answer=",".join(map(str, indices)), meta=meta)


@pytest.mark.parametrize(
    ("indices", "text", "official", "strict"),
    [  # card section 37 and runs of the official verifier
        ([], "", True, False),  # a response without an answer comes here as ""
        ([], " ", True, False),
        ([], "There are no errors", True, False),
        ([], "3", False, False),
        ([], '""', True, False),
        ([], "[]", True, False),
        ([], "No errors.", True, True),
        ([], "I do not know", True, False),
        ([], "unclear", False, False),
        ([], "不确定", False, False),
        ([], "不知道", False, False),
        ([], "无问题", True, True),
        ([], ",,", True, False),
        ([3], "3", True, True),
        ([3], "[3]", True, True),
        ([3], "Thought 3", True, True),
        ([3], "3.", True, True),
        ([3], "no errors in thoughts 3", True, False),
        ([3], "-3", True, False),
        ([3], "3,3", True, True),
        ([3], "3，", True, False),
        ([3], "3 (unclear)", False, False),
        ([3], "3.0", False, False),
        ([3], "", False, False),
        ([3], "no errors", False, False),
        ([3, 10], "10, 3", True, True),
        ([3, 10], "3，10", True, True),
        ([3, 10], "Thoughts 3, 10.", True, True),
        ([3, 10], "Thought 3, thought 10", True, True),
        ([3, 10], "3 10", False, False),
        ([3, 10], "3\n10", False, False),
        ([310], "3 10", True, False),
        ([3, 10], "Thoughts 3, and 10", True, False),
    ],
)
def test_verdict_on_a_published_record(indices, text, official, strict):
    assert TASK.verify(published(indices), text, "official") is official
    assert TASK.verify(published(indices), text, "strict") is strict


def test_chinese_thoughts_of_published_records_are_read():
    assert TASK.solve(published([3])) == "3"
    assert TASK.solve(published([])) == "no errors"
    assert "x Thought 3" in TASK.show(published([3]), solved=True)


def test_labels_are_true_and_errors_are_not_carried_on():
    for level in LEVELS:
        counts = []
        for seed in range(60):
            sample = TASK.generate(seed, TASK.levels[level])
            assert sample.meta["error_indices"] == naive_wrong(sample)
            counts.append(len(sample.meta["error_indices"]))
        # Every count asked for occurs: no error is lost or added by chance.
        assert set(counts) == set(TASK.levels[level].errors)
