"""Claims of math_path: form by form verdicts against a naive checker that lets Python compute, as the official one does."""

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.math_path import MathPath
from framework.sample import Sample

TASK = MathPath()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=8)


class Whole(int):
    """An integer that divides only without rest; the checker writes `Whole(7)` for 7."""

    def __add__(self, other):
        return Whole(int(self) + int(other))

    def __sub__(self, other):
        return Whole(int(self) - int(other))

    def __mul__(self, other):
        return Whole(int(self) * int(other))

    def __mod__(self, other):
        return Whole(int(self) % int(other))

    def __neg__(self):
        return Whole(-int(self))

    def __truediv__(self, other):
        if int(self) % int(other):
            raise ValueError("division with a rest")
        return Whole(int(self) // int(other))


def python(text, names=None):
    """What Python makes of a text of this file; None for an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return eval(text, {"__builtins__": {}, **(names or {})})
    except Exception:
        return None


def naive(sample, text, mode):
    query = sample.meta["query_expr"].replace(" ", "")
    if mode == "official":
        found = re.findall(r"\[\[(.*?)\]\]", text)
        text = found[-1].replace(" ", "") if found else ""
        digits = [c for c in text if c in "0123456789"]
        holes = [c for c in query if c in "0123456789?"]
        if len(digits) != len(holes) or any(h not in ("?", d) for d, h in zip(digits, holes, strict=True)):
            return False
        if [c for c in text if c in "+-*/%"] != [c for c in query if c in "+-*/%"]:
            return False
        return bool(python(text.replace("=", "==").strip()))
    found = re.findall(r"\[\[(.*?)\]\]", text, re.DOTALL)
    text = "".join((found[-1] if found else text).split())
    if len(text) != len(query) or ("[[" in text and not found):
        return False
    if any((t not in "0123456789") if q == "?" else t != q for t, q in zip(text, query, strict=True)):
        return False
    left, right = (re.sub("[0-9]+", r"Whole(\g<0>)", side) for side in text.split("="))
    value = python(left, {"Whole": Whole})
    return value is not None and value == python(right, {"Whole": Whole})


def nth_digit(text, k, value):
    places = [i for i, char in enumerate(text) if char.isdigit()]
    at = places[k % len(places)]
    return text[:at] + value + text[at + 1 :]


EDITS = {
    "right": lambda a, k: a,
    "a digit changed": lambda a, k: nth_digit(a, k, str(k % 10)),
    "a digit dropped": lambda a, k: nth_digit(a, k, ""),
    "two digits in a hole": lambda a, k: nth_digit(a, k, "10"),
    "a hole left open": lambda a, k: nth_digit(a, k, "?"),
    "a decimal": lambda a, k: nth_digit(a, k, "1.0"),
    "a full-width digit": lambda a, k: nth_digit(a, k, "７"),
    "an operator changed": lambda a, k: a.replace("+", "-", 1),
    "another operator changed": lambda a, k: a.replace("*", "/", 1),
    "a letter for times": lambda a, k: a.replace("*", "x"),
    "only the left side": lambda a, k: a.partition("=")[0],
    "sides swapped": lambda a, k: "=".join(a.split("=")[::-1]),
    "result changed": lambda a, k: a + "0",
    "double equals": lambda a, k: a.replace("=", "=="),
    "less than": lambda a, k: a.replace("=", "<"),
    "comma for equals": lambda a, k: a.replace("=", ","),
    "without equals": lambda a, k: a.replace("=", " "),
    "everything in parentheses": lambda a, k: f"({a})",
    "left side in parentheses": lambda a, k: f"({a.replace('=', ')=')}",
    "without parentheses": lambda a, k: a.replace("(", "").replace(")", ""),
    "a word": lambda a, k: a + " true",
    "a comment": lambda a, k: a + " # so",
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 40),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([*FORMS]),
    st.integers(0, 99),
)
def test_every_form_of_right_and_wrong_equations_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    equation = EDITS[edit](sample.meta["ref_expr"].replace(" ", ""), k)
    for answer in (equation, f"[[{equation}]]"):
        text = FORMS[form](answer)
        for mode in ("strict", "official"):
            assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


PUBLISHED = {"trace_id": "x", "ref_expr": "2+3*4 = 14", "query_expr": "?+?*4 = 14", "n": 2, "x_prob": 80}


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [  # runs of the official verifier, which wants a true expression with these digits and operators, not an equation
        ("[[2+3*4 = 1 4]]", True, True),
        ("[[2+3*4,14]]", True, False),
        ("[[2+3*4<=14]]", False, False),  # its = becomes ==, and <== is no operator
        ("[[1+3*4<14]]", True, False),
        ("[[2+3*414]]", True, False),
        ("[[2+3*4==14]]", False, False),
        ("[[2+3*4=14.]]", True, False),
        ("[[(2+(3*4))=14]]", True, False),
        ("[[2+3*4\n=14]]", False, True),
        ("[[2+3*4=14]] and [[\n]]", True, False),
        ("[[2+3*4=14]", False, False),
        ("[2+3*4=14]]", False, False),
    ],
)
def test_verdict_on_a_published_record(text, official, strict):
    sample = Sample(task=TASK.name, question="", answer="2+3*4 = 14", meta=PUBLISHED)
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is strict
    assert TASK.verify(sample, TASK.solve(sample), "official")
    assert TASK.show(sample, solved=True) != TASK.show(sample)


@pytest.mark.parametrize("text", ["9**9**9**9", "1<<99999999", "((((" * 200, "~" * 900 + "1", "not " * 200 + "1"])
def test_expensive_python_is_not_computed(text):
    query = re.sub("[0-9]", "?", text)
    sample = Sample(task=TASK.name, question="", meta={"query_expr": query, "ref_expr": text})
    start = time.perf_counter()
    assert TASK.verify(sample, f"[[{text}]]", "official") in (False, True)
    assert time.perf_counter() - start < 0.5


def test_the_reference_holds_and_fills_the_query():
    for level in LEVELS:
        for seed in range(20):
            meta = TASK.generate(seed, TASK.levels[level]).meta
            filled, query = meta["ref_expr"], meta["query_expr"]
            assert len(filled) == len(query)
            assert all(q in ("?", f) for f, q in zip(filled, query, strict=True))
            assert python(re.sub("[0-9]+", r"Whole(\g<0>)", filled.replace("=", "==")), {"Whole": Whole})


def test_the_prompt_itself_is_no_answer():
    for level in TASK.levels:
        for seed in range(100):
            sample = TASK.generate(seed, TASK.levels[level], "english")
            assert not TASK.verify(sample, sample.question, "strict"), sample.question
            assert not TASK.verify(sample, sample.question, "official"), sample.question


def test_every_wording_tells_the_sign_of_a_remainder():
    questions = [TASK.generate(seed, TASK.levels["easy"], "english").question for seed in range(60)]
    assert all("as in Python" in question or "the sign of the divisor" in question for question in questions)
