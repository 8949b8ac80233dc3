"""The expression reader agrees with Python where both have a value, and refuses everything else quickly."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.synlogic.arithmetic import FRACTIONS, PYTHON, WHOLE, ExpressionError

VALUES = {
    "2+3*4": 14,
    "(2+3)*4": 20,
    "8/2/2": 2,
    "-2**2": -4,
    "2**-1": 0.5,
    "2**3**2": 512,
    "7//2": 3,
    "-7%3": 2,
    "--3": 3,
    " 1 + 2 ": 3,
    "00": 0,
    "7/2": 3.5,
}
REFUSED = ["", "1+", "(1", "1)", "()", "1 2", "2* *3", "1.5", "9.0", "1e3", "0x1", "007", "1_0", "٣", "²", "a", "1\n+1"]
UNDEFINED = ["1/0", "0**-1", "2**9999999", "((-8)**(1/3))//1", "((-8)**(1/3))%1"]
LARGE = ["(" * 60 + "1" + ")" * 60, "-" * 200 + "1", "1+" * 2_000 + "1"]


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_python_meaning(text, value):
    assert PYTHON.evaluate(text) == value


@pytest.mark.parametrize("text", [*REFUSED, *UNDEFINED, *LARGE])
def test_refused(text):
    with pytest.raises(ExpressionError):
        PYTHON.evaluate(text)


def test_meanings_differ_only_in_their_operators():
    assert FRACTIONS.evaluate("8/(3-8/3)") == 24
    assert FRACTIONS.evaluate("1/3") == Fraction(1, 3)
    for text in ("7/2", "4%0", "2**2", "4//2"):
        with pytest.raises(ExpressionError):
            WHOLE.evaluate(text)


def test_steps_are_single_calculations_in_order():
    steps: list[str] = []
    WHOLE.evaluate("2+3*(4-1)", steps)
    assert steps == ["4-1=3", "3*3=9", "2+9=11"]


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(st.text("0123456789+-*/%() ", max_size=12))
def test_agrees_with_python_on_every_short_text(text):
    try:
        wanted = eval(text.strip(), {}) if "**" not in text else None  # a power may take minutes in Python
    except Exception:
        wanted = None
    if "**" in text or isinstance(wanted, tuple):
        return
    try:
        value = PYTHON.evaluate(text)
    except ExpressionError:
        value = None
    assert value == wanted
