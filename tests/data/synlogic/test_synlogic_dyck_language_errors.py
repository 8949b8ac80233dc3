"""Claims of dyck_language_errors: form by form verdicts against a naive checker; published records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.dyck_language_errors import DyckLanguageErrors
from framework.sample import Sample

TASK = DyckLanguageErrors()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=30)


def naive_label(text):
    """The first prefix that no balanced string begins with; a string can go on iff no closer is left after removing pairs."""
    for end in range(1, len(text) + 1):
        rest = text[:end]
        while any(pair in rest for pair in ("()", "[]", "{}", "<>")):
            for pair in ("()", "[]", "{}", "<>"):
                rest = rest.replace(pair, "")
        if set(rest) & set(")]}>"):
            return end
    return len(text) + 1 if rest else -1


def naive(sample, text, mode):
    truth = str(naive_label(sample.meta["sequence"]))
    text = text.strip()
    if mode == "strict" and text.lower() in ("valid", "correct"):
        return truth == "-1"
    if mode == "official" and ("valid" in text.lower() or "correct" in text.lower()):
        return truth == "-1"
    if mode == "official" and truth == "-1":
        return text == "-1"
    try:
        return str(int(text)) == truth
    except ValueError:
        return False


EDITS = {
    "right": lambda n, k: str(n),
    "one less": lambda n, k: str(n - 1),
    "one more": lambda n, k: str(n + 1),
    "any": lambda n, k: str(k),
    "counted from 0": lambda n, k: str(n - 1),
    "balanced": lambda n, k: "-1",
    "plus sign": lambda n, k: f"+{n}",
    "leading zero": lambda n, k: f"0{n}" if n > 0 else "-01",
    "decimal": lambda n, k: f"{n}.0",
    "minus sign": lambda n, k: f"-{n}",
    "position": lambda n, k: f"position {n}",
    "valid": lambda n, k: "valid",
    "invalid": lambda n, k: f"invalid at {n}",
    "Correct": lambda n, k: "Correct",
    "word": lambda n, k: "seven",
}


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(0, 50),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([*FORMS]),
    st.integers(0, 30),
)
def test_every_form_of_right_and_wrong_positions_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level])
    text = FORMS[form](EDITS[edit](naive_label(sample.meta["sequence"]), k))
    for mode in ("strict", "official"):
        assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


SEVEN = {"bracket_string": "(())[]>(", "is_valid": False, "first_error_pos": 7}
BALANCED = {"bracket_string": "(())[]<>", "is_valid": True, "first_error_pos": -1}
UNLABELLED = {"bracket_string": "(())[]<>", "is_valid": False, "first_error_pos": None}


@pytest.mark.parametrize(
    ("meta", "text", "official", "strict"),
    [  # runs of the official verifier
        (SEVEN, " 7\n", True, True),
        (SEVEN, "1_0", False, False),
        (SEVEN, "8", False, False),
        (SEVEN, "合法", False, False),
        (BALANCED, "-1", True, True),
        (BALANCED, "-01", False, True),  # the published one compares this label as text
        (BALANCED, "- 1", False, False),
        (BALANCED, "合法", True, True),
        (BALANCED, "不合法", True, False),
        (BALANCED, "有效", False, True),
        (BALANCED, "9", False, False),
        (UNLABELLED, "-1", False, False),  # a defect of some published records: nothing is accepted
        (UNLABELLED, "valid", False, False),
    ],
)
def test_verdict_on_a_published_record(meta, text, official, strict):
    sample = Sample(task=TASK.name, question="", answer=str(meta["first_error_pos"]), meta=meta)
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is strict
    assert TASK.solve(sample) == ("7" if meta is SEVEN else "-1")
    assert meta["bracket_string"] in TASK.show(sample, solved=True)
