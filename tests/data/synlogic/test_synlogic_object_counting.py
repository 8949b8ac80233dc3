"""Object counting: the common checks, the published rules as verdicts, and what our generator promises."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.object_counting import ObjectCounting
from data.synlogic.object_names import CATEGORIES, PLURALS
from framework.sample import Sample

TASK = ObjectCounting()
NINETEEN = Sample(task="object_counting", question="", answer="19", meta={})


@pytest.mark.slow
def test_object_counting_is_a_task():
    check_all(TASK, seeds=30)


VERDICTS = [
    # answer, official, strict: card, section 21 (box variant B, int equal) and section 0
    (r"\boxed{19}", True, True),
    (r"I count \boxed{19} things.", True, True),
    (r"\boxed{ 19 }", True, True),
    (r"\boxed{+19}", True, True),
    (r"\boxed{019}", True, True),
    (r"\boxed{1_9}", True, False),  # int() reads it, nobody writes it
    (r"\boxed{19.0}", False, False),
    (r"\boxed{19 items}", False, False),
    (r"\boxed{$19$}", False, False),
    (r"\boxed{\text{19}}", False, False),
    (r"\boxed{19}}", True, True),  # up to the first closing brace
    (r"\boxed{19", False, False),
    (r"\boxed{}", False, False),
    (r"\boxed{20} or \boxed{19}", True, True),  # the last box
    (r"\boxed{19} or \boxed{20}", False, False),
    ("19", False, True),  # the widening of strict
    (" 19\n", False, True),
    ("19.0", False, False),
    ("19 items", False, False),
    ("The answer is 19.", False, False),
    ("", False, False),
    (r"\boxed{unknown}", False, False),
    (r"\BOXED{19}", False, False),
]


@pytest.mark.parametrize(("answer", "official", "strict"), VERDICTS, ids=[repr(v[0]) for v in VERDICTS])
def test_verdict(answer: str, official: bool, strict: bool):
    assert TASK.verify(NINETEEN, answer, "official") is official
    assert TASK.verify(NINETEEN, answer, "strict") is strict


@pytest.mark.parametrize("truth", ["", "many", "1.5"])
def test_a_record_without_a_whole_number_accepts_nothing(truth: str):
    sample = dataclasses.replace(NINETEEN, answer=truth)
    assert not TASK.verify(sample, rf"\boxed{{{truth}}}", "official")
    assert not TASK.verify(sample, truth, "strict")


PERTURBATIONS = {
    "as it is": lambda n: rf"\boxed{{{n}}}",
    "one more": lambda n: rf"\boxed{{{n + 1}}}",
    "one less": lambda n: rf"\boxed{{{n - 1}}}",
    "negative": lambda n: rf"\boxed{{{-n}}}",
    "ten times": lambda n: rf"\boxed{{{n}0}}",
    "digits reversed": lambda n: rf"\boxed{{{str(n)[::-1]}}}",
    "leading zero": lambda n: rf"\boxed{{0{n}}}",
    "plus sign": lambda n: rf"\boxed{{+{n}}}",
    "two signs": lambda n: rf"\boxed{{--{n}}}",
    "spaces": lambda n: rf"\boxed{{  {n} }}",
    "newline": lambda n: f"\\boxed{{\n{n}\n}}",
    "float": lambda n: rf"\boxed{{{n}.0}}",
    "unit": lambda n: rf"\boxed{{{n} cats}}",
    "quotes": lambda n: rf'\boxed{{"{n}"}}',
    "dollars": lambda n: rf"$\boxed{{{n}}}$",
    "inner dollars": lambda n: rf"\boxed{{${n}$}}",
    "text": lambda n: rf"\boxed{{\text{{{n}}}}}",
    "no box": lambda n: str(n),
    "prose without box": lambda n: f"I have {n} of them",
    "prose around": lambda n: rf"So the answer is \boxed{{{n}}}. Done.",
    "prose and number after": lambda n: rf"\boxed{{{n}}} and not {n + 1}",
    "wrong box first": lambda n: rf"\boxed{{{n + 2}}} no, \boxed{{{n}}}",
    "wrong box last": lambda n: rf"\boxed{{{n}}} no, \boxed{{{n + 2}}}",
    "empty box last": lambda n: rf"\boxed{{{n}}} \boxed{{}}",
    "open box": lambda n: rf"\boxed{{{n}",
    "parentheses": lambda n: rf"\boxed({n})",
    "no backslash": lambda n: f"boxed{{{n}}}",
    "case": lambda n: rf"\Boxed{{{n}}}",
    "fence": lambda n: f"```\n\\boxed{{{n}}}\n```",
    "sum": lambda n: rf"\boxed{{{n - 1}+1}}",
    "empty": lambda n: "",
}


def plain_verdict(text: str, truth: int, strict: bool) -> bool:
    """The rule restated: digits with an optional sign in the last box; without any box, strict takes the bare number."""
    parts = text.split("\\boxed{")
    if len(parts) == 1:
        return strict and re.fullmatch(r"\s*[+-]?\d+\s*", text) is not None and int(text) == truth
    if "}" not in parts[-1]:
        return False
    inside = parts[-1].split("}")[0].strip()
    return re.fullmatch(r"[+-]?\d+", inside) is not None and int(inside) == truth


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(("tiny", "easy")))
def test_every_kind_of_change_is_judged_as_the_rule_says(seed: int, level: str):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    truth = int(sample.answer)
    for kind, change in PERTURBATIONS.items():
        text = change(truth)
        assert TASK.verify(sample, text, "official") is plain_verdict(text, truth, strict=False), kind
        assert TASK.verify(sample, text, "strict") is plain_verdict(text, truth, strict=True), kind


def counted_in(question: str) -> int:
    """A reader's count from the english text alone."""
    plural = {name: category for category, names in CATEGORIES.items() for name in names}
    sums = dict.fromkeys(CATEGORIES, 0)
    for also, count, item in re.findall(r"\bI (also )?have (\d+) ([a-z-]+(?: [a-z]+)?)(?: \(|\.)", question):
        del also
        sums[plural[item]] += int(count)
    asked = re.search(r"(?:How many|What is the absolute) (.*?)\?", question)
    assert asked
    named = [category for category, text in PLURALS.items() if re.search(rf"\b{text}\b", asked[1])]
    totals = [sums[category] for category in named]
    return abs(totals[0] - totals[1]) if "differ" in asked[1] else sum(totals)


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_the_answer_follows_from_the_text_alone(level: str):
    for seed in range(40):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        assert counted_in(sample.question) == int(sample.answer)


def test_stories_end_in_the_stated_number_and_every_step_changes_something():
    steps_seen = 0
    for seed in range(30):
        for said in TASK.generate(seed, TASK.levels["hard"]).meta["statements"]:
            if said["steps"]:
                steps_seen += 1
                assert sum(said["steps"]) == said["count"]
                assert 0 not in said["steps"][1:]
    assert steps_seen > 100


def test_possessions_have_the_published_shape():
    meta = TASK.generate(5, TASK.levels["easy"]).meta
    assert set(meta["possessions"]["I"]) == set(meta["used_categories"])
    assert all(len(entry) == 3 for entries in meta["possessions"]["I"].values() for entry in entries)


def test_every_question_kind_is_asked():
    kinds = {TASK.generate(seed, TASK.levels["easy"]).meta["query"][0] for seed in range(40)}
    assert kinds == {"sum", "difference", "total"}


def test_categories_do_not_overlap():
    names = [name for names in CATEGORIES.values() for name in names]
    assert len(names) == len(set(names))
    assert all(17 <= len(names) <= 30 for names in CATEGORIES.values())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("... What is the total number of fruits and books that I have? Box it.", "12"),
        ("... What is the absolute difference between the number of books and fruits that I have?", "2"),
        ("... How many books do I have in total?", "7"),
        ("……我拥有的水果和书籍的数量差的绝对值是多少？", "2"),
        ("……我总共有多少个水果和书籍？", "12"),
        ("……我总共有多少个水果？", "5"),
    ],
)
def test_published_records_can_be_solved(question: str, answer: str):
    mine = {"fruit": [["figs", 2, ""], ["dates", 3, "(so)"]], "book": [["comics", 7, ""]]}
    possessions = {"I" if question.isascii() else "我": mine, "My boss": {"fruit": [["figs", 9, ""]], "book": []}}
    sample = Sample(task="object_counting", question=question, answer=answer, meta={"possessions": possessions})
    assert TASK.solve(sample) == rf"\boxed{{{answer}}}"
