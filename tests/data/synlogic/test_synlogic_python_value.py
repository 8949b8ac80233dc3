"""Claims of the evaluator of Python expressions: it agrees with Python, and what is code, or large, has no value."""

import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import examples

from data.synlogic.arithmetic import ExpressionError
from data.synlogic.python_value import python_value

PIECES = [
    *"0123456789",
    *"+-*/%()=<>!,.&|^~ ",
    "==",
    "**",
    "//",
    "<=",
    ">=",
    "!=",
    " not ",
    " and ",
    " or ",
    " in ",
    "\n",
    "1e2",
    "2j",
]


def python(text):
    """What Python makes of a text of the pieces above; an exception class for an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return eval(text.strip(), {"__builtins__": {}})
    except Exception:
        return ExpressionError


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=9)
    .map("".join)
    .filter(lambda text: "**" not in text and "<<" not in text)
)
def test_any_short_text_has_the_value_python_gives_to_it(text):
    try:
        value = python_value(text.strip())
    except ExpressionError:
        value = ExpressionError
    wanted = python(text)
    assert value == wanted or value != value, text  # the second for NaN
    assert type(value) is type(wanted)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**10", 1024),
        ("1**999999", 1),
        ("2**-1", 0.5),
        ("1<2<3", True),
        ("1<2>3", False),
        ("0 or 7", 7),
        ("0 and 1/0", 0),
        ("1,2", (1, 2)),
        ("[1]", [1]),
        ("(1 +\n2)", 3),
        ("14.", 14.0),
        ("1_0", 10),
    ],
)
def test_values(text, value):
    assert python_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "f(1)",
        "[1][0]",
        "(1).real",
        "lambda: 1",
        "[x for x in (1,)]",
        "1 if 1 else 2",
        "'a'*9",
        "1 is 1",
        "f'{1}'",
        "01",
        "1/0",
        "1<2j",
        "1<<-1",
        "2**0.5j if",
        "9**9**9**9",
        "1<<99999",
        "(-8)**99999",
        "\x00",
        "\ud800",
        "(" * 500,
        "~" * 999,
    ],
)
def test_code_errors_and_large_numbers_have_no_value(text):
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        python_value(text)
    assert time.perf_counter() - start < 0.5
