"""Single verdicts, worked by hand or taken from runs of the official verifiers: (task, truth, answer, official, strict)."""

import pytest

from data.synlogic import TASKS
from framework.sample import Sample

FOUR = {"numbers": [4, 7, 8, 8], "operators": ["+", "-", "*", "/"], "result": 24}
KUKU = {"row_sums": [2, 1], "col_sums": [2, 1], "n": 2, "m": 2}
PATH = {"query_expr": "?+?*4 = 14", "ref_expr": "2+3*4 = 14"}
SEVEN = {"is_valid": False, "first_error_pos": 7}
VALID = {"is_valid": True, "first_error_pos": -1}
DYCK = {"full_sequence": "([{}])"}


def fence(text: str) -> str:
    return f"```python\n{text}\n```"


CASES = [
    # task, answer field, meta, answer text, official, strict
    ("mathador", "", FOUR, fence("(7-8/8)*4"), True, True),
    ("mathador", "", FOUR, fence("4+7+8+8"), True, False),
    ("mathador", "", FOUR, "(7-8/8)*4", False, True),  # the widening of strict
    ("mathador", "", FOUR, fence("(7-8/8)*4 = 24"), False, False),
    ("mathador", "", FOUR, "(7-8/8)*4 = 24", False, False),
    ("mathador", "", FOUR, fence("4**7+8-8"), True, False),
    ("mathador", "", FOUR, fence("4//7+8-8"), True, False),
    ("mathador", "", FOUR, fence("4/(8-8)+7"), False, False),
    ("mathador", "", FOUR, fence("(7-8/8)*4*1"), False, False),
    ("mathador", "", FOUR, fence("(7-8/8)*"), False, False),
    ("mathador", "", FOUR, fence("(7-8/8)*4)"), False, False),
    ("mathador", "", FOUR, fence("4 7 8 8"), False, False),
    ("mathador", "", FOUR, fence("1") + " then " + fence("(7-8/8)*4"), True, True),
    ("mathador", "", FOUR, "```\n(7-8/8)*4\n```", False, False),
    ("mathador", "", {**FOUR, "numbers": [3, 3, 8, 8]}, fence("8/(3-8/3)"), True, True),  # exact: floats give 23.999..
    ("mathador", "", {**FOUR, "operators": ["+", "-"]}, fence("(7-8/8)*4"), False, False),
    ("kukurasu", "", KUKU, '[["X","1"],["1","X"]]', True, True),
    ("kukurasu", "", KUKU, "[['X','1'],['1','X']]", False, False),
    ("kukurasu", "", KUKU, "[[0,1],[1,0]]", False, False),
    ("kukurasu", "", KUKU, '[["0","1"],["1","0"]]', False, False),
    ("kukurasu", "", KUKU, 'first [["1","1"],["1","X"]] then [["X","1"],["1","X"]]', False, False),
    ("kukurasu", "", KUKU, 'so: [ ["X", "1"],\n ["1", "X"] ]', True, True),
    ("kukurasu", "", KUKU, "X1/1X", False, True),  # the widening of strict
    ("kukurasu", "", KUKU, "X1/1X/XX", False, False),
    ("kukurasu", "", KUKU, '[["X","1"]]', False, False),
    ("math_path", "", PATH, "[[2+3*4=14]]", True, True),
    ("math_path", "", PATH, "[[6+2*4=14]]", True, True),
    ("math_path", "", PATH, "[[(2+3)*4=20]]", False, False),
    ("math_path", "", PATH, "2+3*4=14", False, True),  # the widening of strict
    ("math_path", "", PATH, "[[2+2*4=14]]", False, False),
    ("math_path", "", PATH, "[[1+1*4=14]] so [[2+3*4 = 14]]", True, True),
    ("math_path", "", PATH, "[[2+3*4]]", False, False),
    ("math_path", "", PATH, "[[２+3*4=14]]", False, False),
    ("math_path", "", {"query_expr": "?*(?+2) = 8"}, "[[3*2+2=8]]", True, False),  # moved parentheses
    ("math_path", "", {"query_expr": "?/?*2 = 3"}, "[[3/2*2=3]]", True, False),  # inexact division
    ("math_path", "", {"query_expr": "?%? = 1"}, "[[1%0=1]]", False, False),
    ("math_path", "", {"query_expr": "?-? = -3"}, "[[2-5 = -3]]", True, True),
    ("word_sorting", "zoo,ant,bee", {}, r"\boxed{zoo,ant,bee}", True, True),
    ("word_sorting", "zoo,ant,bee", {}, "zoo,ant,bee", False, True),  # the widening of strict
    ("word_sorting", "zoo,ant,bee", {}, r"\boxed{Zoo, ant, bee}", False, False),
    ("word_sorting", "zoo,ant,bee", {}, r"\boxed{zoo, ant，bee}", True, True),
    ("word_sorting", "zoo,ant,bee", {}, r"\boxed{zoo,ant,bee,}", False, False),
    ("word_sorting", "zoo,ant,bee", {}, r"\boxed{bee} or \boxed{zoo,ant,bee}", True, True),
    ("dyck_language_errors", "7", SEVEN, "7", True, True),
    ("dyck_language_errors", "7", SEVEN, "+7", True, True),
    ("dyck_language_errors", "7", SEVEN, "07", True, True),
    ("dyck_language_errors", "7", SEVEN, "7.0", False, False),
    ("dyck_language_errors", "7", SEVEN, "position 7", False, False),
    ("dyck_language_errors", "7", SEVEN, "invalid at 7", False, False),
    ("dyck_language_errors", "7", SEVEN, "７", True, False),  # int() reads every script's digits
    ("dyck_language_errors", "-1", VALID, "-1", True, True),
    ("dyck_language_errors", "-1", VALID, "Valid", True, True),
    ("dyck_language_errors", "-1", VALID, "invalid at 3", True, False),
    ("dyck_language_errors", "-1", VALID, "incorrect", True, False),
    ("dyck_language_errors", "-1", VALID, "0", False, False),
    ("dyck_language", "", DYCK, "([{}])", True, True),
    ("dyck_language", "", DYCK, '" ( [{}\\n] )"', True, True),
    ("dyck_language", "", DYCK, "}])", False, False),
    ("dyck_language", "", DYCK, "answer ([{}])", False, False),
    ("dyck_language", "", DYCK, "```([{}])```", False, False),
    ("dyck_language", "", DYCK, "", False, False),
    ("boolean_expressions", "A,C", {}, r"\boxed{A,C}", True, True),
    ("boolean_expressions", "A,C", {}, r"\boxed{AC}", True, True),
    ("boolean_expressions", "A,C", {}, r"so \boxed{c, a, a}", True, True),
    ("boolean_expressions", "A,C", {}, "A,C", False, True),  # the widening of strict
    ("boolean_expressions", "A,C", {}, r"\boxed{\text{A,C}}", False, True),
    ("boolean_expressions", "A,C", {}, r"\boxed{A}", False, False),
    ("boolean_expressions", "A,C", {}, r"\boxed{A,B,C}", False, False),
    ("boolean_expressions", "A,C", {}, r"\boxed{A,C", False, False),
    ("boolean_expressions", "A,C", {}, "the answer is A,C", False, False),
    ("boolean_expressions", "A,C", {}, "", False, False),
]


@pytest.mark.parametrize(("task", "truth", "meta", "text", "official", "strict"), CASES)
def test_verdict(task, truth, meta, text, official, strict):
    sample = Sample(task=task, question="", answer=truth, meta=meta)
    assert TASKS[task].verify(sample, text, "official") is official
    assert TASKS[task].verify(sample, text, "strict") is strict


def test_strict_is_the_default_verdict():
    assert not TASKS["mathador"].verify(Sample(task="mathador", question="", meta=FOUR), fence("4+7+8+8"))
