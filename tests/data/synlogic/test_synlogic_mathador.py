"""Claims of mathador: form by form verdicts against a naive checker that lets Python compute, as the official one does."""

import re
import warnings
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.mathador import Mathador
from framework.sample import Sample

TASK = Mathador()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=8)


def python(text, names=None):
    """What Python makes of a text of this file; None for an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return eval(text, {"__builtins__": {}, **(names or {})})
    except Exception:
        return None


def naive(sample, text, mode):
    blocks, rest = [], text
    while "```python" in rest and "```" in rest.partition("```python")[2]:
        body, _, rest = rest.partition("```python")[2].partition("```")
        blocks.append(body)
    if blocks:
        text = blocks[-1]
    elif mode == "official" or "```" in text:
        return False
    text = text.strip()
    rest = re.sub("[0-9]", "", text)
    rest = rest.replace(" ", "") if mode == "strict" else "".join(rest.split())
    if any(char not in sample.meta["operators"] and char not in "()" for char in rest):
        return False
    if sorted(re.findall("[0-9]+", text)) != sorted(map(str, sample.meta["numbers"])):
        return False
    if mode == "official":
        value = python(text)
        return value is not None and abs(value - value) < 1e-10
    if "**" in text or "//" in text:
        return False
    if any(len(n) > 1 and n[0] == "0" for n in re.findall("[0-9]+", text)):
        return False
    return python(re.sub("[0-9]+", r"F(\g<0>)", text), {"F": Fraction}) == sample.meta["result"]


EDITS = {
    "right": lambda a, k: a,
    "an operator changed": lambda a, k: a.replace("+", "-", 1),
    "another operator changed": lambda a, k: a.replace("*", "+", 1),
    "power": lambda a, k: a.replace("*", "**", 1),
    "floor division": lambda a, k: a.replace("/", "//", 1),
    "a number changed": lambda a, k: re.sub("[0-9]+", str(k % 9), a, count=1),
    "a number with a zero before it": lambda a, k: re.sub("[0-9]+", r"0\g<0>", a, count=1),
    "a number repeated": lambda a, k: f"{a}*{k % 9}",
    "a number dropped": lambda a, k: re.sub("[0-9]+", "", a, count=1),
    "a decimal point": lambda a, k: re.sub("[0-9]+", r"\g<0>.0", a, count=1),
    "numbers joined": lambda a, k: re.sub("[-+*/]", "", a, count=1),
    "an equation": lambda a, k: f"{a} = 24",
    "a line end at the top level": lambda a, k: a.replace("+", "\n+", 1),
    "a line end inside of parentheses": lambda a, k: f"({a}\n)",
    "a tab": lambda a, k: a.replace("+", "\t+", 1),
    "everything in parentheses": lambda a, k: f"({a})",
    "an open parenthesis": lambda a, k: f"({a}",
    "without parentheses": lambda a, k: a.replace("(", "").replace(")", ""),
    "a minus sign before it": lambda a, k: f"-{a}",
    "a plus sign before it": lambda a, k: f"+{a}",
    "a times sign": lambda a, k: a.replace("*", "×"),
    "square brackets": lambda a, k: a.replace("(", "[").replace(")", "]"),
    "a power sign": lambda a, k: a.replace("*", "^", 1),
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 20),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([*FORMS]),
    st.integers(0, 99),
)
def test_every_form_of_right_and_wrong_expressions_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level])
    expression = EDITS[edit](TASK.solve(sample), k)
    for answer in (expression, f"```python\n{expression}\n```"):
        text = FORMS[form](answer)
        for mode in ("strict", "official"):
            assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


PUBLISHED = {
    "trace_id": "x",
    "numbers": [1, 2, 2, 5],
    "solutions": [],
    "candidates": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    "operators": ["+", "-", "*", "/"],
    "result": 24,
    "num_of_numbers": 4,
}


@pytest.mark.parametrize(
    ("expression", "official", "strict"),
    [  # runs of the official verifier
        ("(5*2+2)*(1+1)", False, False),
        ("(5+1)*2*2", True, True),
        ("(5+1\n)*2*2", True, False),
        ("(5+1)\n*2*2", False, False),
        ("(5+1)\t*2*2", True, False),
        ("(5+01)*2*2", False, False),
        ("(1)(5)(2)(2)", False, False),
        ("5%1+2+2", False, False),
        ("(0-5)**(1/2)*2", False, False),
        ("(1-5)**(2/2)", True, False),
        ("(1-2)**(5/2)", True, False),  # a complex number is at distance 0 of itself, too
        ("2+2", False, False),
    ],
)
def test_verdict_on_a_published_record(expression, official, strict):
    sample = Sample(task=TASK.name, question="", meta=PUBLISHED)
    text = f"```python\n{expression}\n```"
    assert TASK.verify(sample, text, "strict") is strict
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, TASK.solve(sample), "official")


def test_difficulty_counts_the_chains_that_were_tried():
    # 1+1+1 = 3 is the first chain; with the target 1 the chains +++, ++-, ... come first: 1+1+1, 1+1-1 (found).
    first = Sample(task=TASK.name, question="", meta={"numbers": [1, 1, 1], "operators": ["+", "-"], "result": 3})
    second = Sample(task=TASK.name, question="", meta={"numbers": [1, 1, 1], "operators": ["+", "-"], "result": 1})
    assert (TASK.difficulty(first), TASK.difficulty(second)) == (1, 2)


def test_every_wording_asks_for_no_equals_sign():
    questions = [TASK.generate(seed, TASK.levels["easy"], "english").question for seed in range(60)]
    assert all("equals sign" in question for question in questions)
