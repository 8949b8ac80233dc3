"""Verdicts of the evaluation-only verifiers, worked by hand from card section 36 and confirmed by runs of the official ones."""

import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import HOSTILE, HOSTILE_S, examples

from data.synlogic.evaluation import EVALUATION
from framework.sample import Sample

LIST = "Sort the following words alphabetically: List: oven costume counterpart\nA:"
CASES = [
    # key, question, truth, text, verdict
    ("gpqa_diamond", "", "B", "\\boxed{B}", True),
    ("gpqa_diamond", "", "B", "\\boxed{(b)}", True),
    ("gpqa_diamond", "", "(B)", "so \\BOXED{ b }", True),
    ("gpqa_diamond", "", "B", "B", False),
    ("gpqa_diamond", "", "B", "\\boxed{A} or \\boxed{B}", True),
    ("gpqa_diamond", "", "B", "\\boxed{B} or \\boxed{A}", False),
    ("gpqa_diamond", "", "B", "\\boxed{\\text{B}}", False),
    ("gpqa_diamond", "", "B", "\\boxed{[B]}", True),
    ("gpqa_diamond", "", "B", "\\boxed{'B'}", True),
    ("gpqa_diamond", "", "B", '\\boxed{"B"}', False),
    ("gpqa_diamond", "", "B", "\\boxed{B?}", True),
    ("gpqa_diamond", "", "B", "\\boxed{B.}", False),
    ("gpqa_diamond", "", "25", "\\boxed{25.0}", True),
    ("gpqa_diamond", "", "25", "\\boxed{2 5}", False),
    ("gpqa_diamond", "", "B", "", False),
    ("bbeh_boardgame_qa", "", "proved", '"proved"', True),
    ("bbeh_boardgame_qa", "", "proved", "proved", False),
    ("bbeh_boardgame_qa", "", "proved", "'Proved.'", True),
    ("bbeh_boardgame_qa", "", "proved", '```python\n"proved"\n```', True),
    ("bbeh_boardgame_qa", "", "proved", '```python\n  "proved"\n```', False),  # Python: unexpected indent
    ("bbeh_boardgame_qa", "", "proved", '```Python\n"disproved"\n```\n```python\n("proved")\n```', True),
    ("bbeh_boardgame_qa", "", "proved", '```\n"proved"\n```', False),
    ("bbeh_boardgame_qa", "", "proved", '"""proved"""', True),
    ("bbeh_boardgame_qa", "", "proved", '"pro" "ved"', True),
    ("bbeh_boardgame_qa", "", "proved", '"pro"\n"ved"', False),
    ("bbeh_boardgame_qa", "", "proved", 'f"proved"', True),
    ("bbeh_boardgame_qa", "", "proved", 'b"proved"', False),
    ("bbeh_boardgame_qa", "", "proved", '"proved" # sure', True),
    ("bbeh_boardgame_qa", "", "proved", '"**proved**"', True),
    ("bbeh_boardgame_qa", "", "proved", '"proved\\nbecause"', True),
    ("bbeh_boardgame_qa", "", "proved", '"it is proved"', False),
    ("bbeh_boardgame_qa", "", "proved", '["proved"]', False),
    ("bbeh_boardgame_qa", "", "proved", '"[proved]"', True),
    ("bbeh_boardgame_qa", "", "proved", "“proved”", False),
    ("bbeh_multistep_arithmetic", "", "25", '"25.0"', True),
    ("bbeh_multistep_arithmetic", "", "25", "25", False),  # a number is no text
    ("bbeh_multistep_arithmetic", "", "25", '"2 5"', True),
    ("bbeh_hyperbaton", "", "(a)", '"A"', True),
    ("bbeh_hyperbaton", "", "a", '"(A)"', True),
    ("bbeh_hyperbaton", "", "(a)", '"(b)"', False),
    ("bbeh_hyperbaton", "", "(a)", '"cat"', True),  # as published: the second letter of a longer text counts
    ("bbeh_zebra_puzzles", "", "2, 3, 4", '"2,3,4"', True),
    ("bbeh_web_of_lies", "", "no, yes, unknown", '"No, yes, unknown"', True),
    ("bbeh_linguini", "", "['a', 'b']", "\"['a','b']\"", True),
    ("bbeh_linguini", "", "['a', 'b']", '"a,b"', True),
    ("bbeh_linguini", "", "['a', 'b']", "['a','b']", False),
    ("bbeh_sportqa", "", "what", '"what?"', True),
    ("bbeh_sportqa", "", "it's", '"its"', True),
    ("bbh_boolean_expressions", "", "True", "True", True),
    ("bbh_boolean_expressions", "", "True", "true", False),
    ("bbh_boolean_expressions", "", "True", "False? The answer is True.", True),
    ("bbh_boolean_expressions", "", "True", "False? The answer is True", False),  # the last character is not read
    ("bbh_boolean_expressions", "", "True", "<think>False</think> True", True),
    ("bbh_boolean_expressions", "", "True", "</think>False <answer>True</answer>", True),
    ("bbh_causal_judgement", "", "Yes", "yes", True),
    ("bbh_causal_judgement", "", "Yes", "No doubt: Yes", False),
    ("bbh_causal_judgement", "", "Yes", "No doubt. The answer is Yes.", True),
    ("bbh_causal_judgement", "", "Yes", "YES", False),
    ("bbh_navigate", "", "No", "The answer is no!", True),
    ("bbh_date_understanding", "", "(B)", "(B)", True),
    ("bbh_date_understanding", "", "(B)", "B", False),
    ("bbh_date_understanding", "", "(B)", "(b)", False),
    ("bbh_date_understanding", "", "(B)", "(A) is wrong, the answer is (B) 1/2/2020.", True),
    ("bbh_date_understanding", "", "(B)", "(A) is wrong, it is (B)", False),
    ("bbh_snarks", "", "(A)", "(A) or (B)", True),
    ("bbh_dyck_languages", "", "] )", "] )", True),
    ("bbh_dyck_languages", "", "] )", " ]\n) ", True),
    ("bbh_dyck_languages", "", "] )", "])", False),
    ("bbh_dyck_languages", "", "] )", "The answer is ] ).", True),
    ("bbh_dyck_languages", "", "] )", "The answer is ] )", False),
    ("bbh_formal_fallacies", "", "invalid", "Invalid", True),
    ("bbh_formal_fallacies", "", "valid", "invalid", False),
    ("bbh_formal_fallacies", "", "valid", "It looks invalid. The answer is VALID.", True),
    ("bbh_multistep_arithmetic_two", "", "-7", "-7", True),
    ("bbh_multistep_arithmetic_two", "", "42", "The answer is 42.", True),
    ("bbh_multistep_arithmetic_two", "", "42", "The answer is 42", False),  # read as 4
    ("bbh_multistep_arithmetic_two", "", "42", "6 * 7 = 42", False),
    ("bbh_object_counting", "", "5", "5 things", True),
    ("bbh_object_counting", "", "5", "--5", False),
    ("bbh_object_counting", "", "5", "five", False),
    ("bbh_sports_understanding", "", "yes", "plausible", True),
    ("bbh_sports_understanding", "", "yes", "not plausible", False),
    ("bbh_sports_understanding", "", "no", "yes and no", True),
    ("bbh_sports_understanding", "", "yes", "no. The answer is yes.", True),
    ("bbh_web_of_lies", "", "Yes", "Ann tells the truth", True),
    ("bbh_web_of_lies", "", "No", "Ann does not tell the truth", True),
    ("bbh_web_of_lies", "", "Yes", "Ann lies", False),
    ("bbh_word_sorting", LIST, "costume counterpart oven", "costume, counterpart, oven", True),
    ("bbh_word_sorting", LIST, "costume counterpart oven", "costume oven", False),
    ("bbh_word_sorting", LIST, "costume counterpart oven", "oven costume counterpart oven", True),
    ("bbh_word_sorting", LIST, "costume counterpart oven", "Costume counterpart oven", False),
    ("bbh_word_sorting", "no list here", "costume", "costume", False),
]


@pytest.mark.parametrize(("key", "question", "truth", "text", "verdict"), CASES)
def test_verdict(key, question, truth, text, verdict):
    sample = Sample(task=key, question=question, answer=truth)
    assert EVALUATION[key].verify(sample, text, "official") is verdict
    assert EVALUATION[key].verify(sample, text, "strict") is verdict


def test_every_key_of_the_published_registry_is_there_and_names_its_verifier():
    prefixes = [key.split("_")[0] for key in EVALUATION]
    assert [prefixes.count(prefix) for prefix in ("gpqa", "bbeh", "bbh")] == [1, 23, 27]
    assert all(verifier.name == key for key, verifier in EVALUATION.items())


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("key", sorted({case[0] for case in CASES}))
def test_hostile_texts_are_judged_in_time(key, kind):
    sample = Sample(task=key, question=LIST, answer="no such answer")
    start = time.perf_counter()
    assert EVALUATION[key].verify(sample, HOSTILE[kind]) is False
    assert time.perf_counter() - start < HOSTILE_S


QUOTES = [
    "'",
    '"',
    "'''",
    '"""',
    "\\",
    "(",
    ")",
    "#",
    "\n",
    " ",
    "f",
    "r",
    "b",
    "u",
    "a",
    "+",
    "{a}",
    "```python",
    "```",
    "1",
]


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(QUOTES), max_size=12).map("".join), st.sampled_from([*FORMS]))
def test_bbeh_takes_a_quoted_text_only_if_python_reads_that_text(text, form):
    text = FORMS[form](text)
    code = text.strip().lower().split("```python")[-1].split("```")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = eval(
                code, {"__builtins__": {}}
            )  # short texts of the pieces above; code in them has no names to use
    except Exception:
        value = None
    verifier = EVALUATION["bbeh_nycc"]
    accepted = verifier.verify(Sample(task="bbeh_nycc", question="", answer="aa"), text)
    if accepted:
        assert value is not None
        assert value.replace(" ", "").replace("'", "").strip("[]?.\n").startswith("aa") or value[1:2] == "a"
    if value == "aa" and "+" not in code and "{" not in code:
        assert accepted
