"""Goods exchange: the common checks, the published rules as verdicts, and the repaired steps."""

import ast
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.goods_exchange import GoodsExchange, GoodsExchangeParams
from framework.sample import Sample

TASK = GoodsExchange()
TRUTH = "(('Ann','red pen'),('Bob','blue cup'))"
META = {"owns_after": TRUTH, "owns_before": {"Ann": "blue cup", "Bob": "red pen"}}
SAMPLE = Sample(task="goods_exchange", question="", answer=TRUTH, meta=META)
KINDS = 12


def fence(text: str) -> str:
    return f"```python\n{text}\n```"


@pytest.mark.slow
def test_goods_exchange_is_a_task():
    check_all(TASK, seeds=15)


VERDICTS = [
    # answer, official, strict: card, section 37
    (fence("(('bob','Blue Cup'),('Ann','red pen'))"), True, True),
    ("(('Ann','red pen'),('Bob','blue cup'))", False, False),
    (fence("(('Ann','blue cup'),('Bob','red pen'))"), False, False),
    # card, section 13: the last python block that starts with ( and ends with )
    (fence(TRUTH), True, True),
    (f"I think:\n{fence(TRUTH)}\nDone.", True, True),
    (fence("((Ann, red pen), (Bob, blue cup))"), True, True),  # words without quotes
    (fence("[('Ann','red pen'),('Bob','blue cup')]"), False, False),
    (fence("{'Ann':'red pen','Bob':'blue cup'}"), False, False),
    (fence(TRUTH) + "\n" + fence("(1, 2)"), False, False),
    (fence("(1, 2)") + "\n" + fence(TRUTH), True, True),
    (f"```\n{TRUTH}\n```", False, False),
    (f"```py\n{TRUTH}\n```", False, False),
    (f"```python\n{TRUTH}```", False, False),  # the closing fence has a line of its own
    (f"```python {TRUTH}\n```", False, False),
    (f"```python  \n\n {TRUTH} \n\n```", True, True),
    (fence(f"owners = {TRUTH}"), False, False),
    (fence("(('Ann','red pen'),\n ('Bob','blue cup'),)"), True, True),
    (fence("((' Ann ',' red pen'),('Bob','blue cup'))"), True, True),
    (fence("(('Ann','red  pen'),('Bob','blue cup'))"), False, False),
    (fence("(('Ann','red pen'),('Bob','blue cup'),('Cy','hat'))"), False, False),
    (fence("(('Ann','red pen'))"), False, False),
    (fence("(('Ann','red pen'),)"), False, False),
    (fence("()"), False, False),
    # what strict closes: entries that are no pairs, and a person named twice
    (fence("(('Ann','red pen'),('Bob','blue cup'),'and more')"), True, False),
    (fence("(('Ann','hat'),('Bob','blue cup'),('Ann','red pen'))"), True, False),
    (fence("(('Ann','red pen'),('Bob','blue cup'),('Ann','hat'))"), False, False),
    (fence("((Ann, red pen, new), (Bob, blue cup))"), True, False),
    # what strict widens
    ("A2 B1", False, True),
    ("B1, A2", False, True),
    ("A1 B2", False, False),
    ("A2", False, False),
    ("A2 B1 A2", False, False),
    ("A2 B1 C3", False, False),
    ("a2 b1", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("answer", "official", "strict"), VERDICTS, ids=[repr(v[0]) for v in VERDICTS])
def test_verdict(answer: str, official: bool, strict: bool):
    assert TASK.verify(SAMPLE, answer, "official") is official
    assert TASK.verify(SAMPLE, answer, "strict") is strict


def test_a_record_without_truth_accepts_nothing():
    assert not TASK.verify(Sample(task="goods_exchange", question="", meta={}), fence(TRUTH), "official")


Pairs = list[tuple[str, str]]


def written(pairs: Pairs) -> str:
    return f"({','.join(f'({person!r},{item!r})' for person, item in pairs)})"


PERTURBATIONS = {
    "as it is": lambda p: fence(written(p)),
    "other order": lambda p: fence(written(p[::-1])),
    "items swapped": lambda p: fence(written([(p[0][0], p[1][1]), (p[1][0], p[0][1]), *p[2:]])),
    "items rotated": lambda p: fence(written([(a, p[i - 1][1]) for i, (a, _) in enumerate(p)])),
    "pair dropped": lambda p: fence(written(p[1:])),
    "pair repeated": lambda p: fence(written([*p, p[0]])),
    "pair added": lambda p: fence(written([*p, ("Nobody", "thing")])),
    "person renamed": lambda p: fence(written([("Nobody", p[0][1]), *p[1:]])),
    "item renamed": lambda p: fence(written([(p[0][0], "thing"), *p[1:]])),
    "color only": lambda p: fence(written([(a, b.split()[0]) for a, b in p])),
    "article": lambda p: fence(written([(a, f"the {b}") for a, b in p])),
    "upper case": lambda p: fence(written([(a.upper(), b.upper()) for a, b in p])),
    "lower case": lambda p: fence(written([(a.lower(), b.lower()) for a, b in p])),
    "spaces in quotes": lambda p: fence(written([(f" {a} ", f" {b} ") for a, b in p])),
    "two spaces": lambda p: fence(written([(a, b.replace(" ", "  ")) for a, b in p])),
    "sides swapped": lambda p: fence(written([(b, a) for a, b in p])),
    "unquoted": lambda p: fence(f"({', '.join(f'({a}, {b})' for a, b in p)})"),
    "one per line": lambda p: fence(written(p).replace("),(", "),\n  (")),
    "list": lambda p: fence(str([list(pair) for pair in p])),
    "tuple of lists": lambda p: fence(str(tuple(list(pair) for pair in p))),
    "dictionary": lambda p: fence(str(dict(p))),
    "no fence": lambda p: written(p),
    "plain fence": lambda p: f"```\n{written(p)}\n```",
    "json fence": lambda p: f"```json\n{written(p)}\n```",
    "upper case fence": lambda p: f"```Python\n{written(p)}\n```",
    "open fence": lambda p: f"```python\n{written(p)}",
    "assignment": lambda p: fence(f"x = {written(p)}"),
    "prose around": lambda p: f"So it is\n{fence(written(p))}\nas asked.",
    "wrong block first": lambda p: fence(written(p[1:])) + "\n" + fence(written(p)),
    "wrong block last": lambda p: fence(written(p)) + "\n" + fence(written(p[1:])),
    "arrows": lambda p: fence("\n".join(f"{a} -> {b}" for a, b in p)),
    "quoted as a whole": lambda p: fence(f"({written(p)!r})"),
    "empty block": lambda p: fence("()"),
    "empty": lambda p: "",
}


def plain_verdict(text: str, truth: Pairs) -> bool:
    """The rule restated: a tuple of pairs in the last block, literal or bare words, equal up to case and order."""
    blocks = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    if not blocks or not (blocks[-1].startswith("(") and blocks[-1].endswith(")")):
        return False
    try:
        pairs = ast.literal_eval(blocks[-1])
    except (ValueError, SyntaxError):
        pairs = tuple(re.findall(r"\(+([^(),]+),([^(),]+)\)", blocks[-1]))
    if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return False

    def lower(entries: Pairs) -> list[tuple[str, str]]:
        return sorted({(a.strip().lower(), b.strip().lower()) for a, b in entries})

    return lower(list(pairs)) == lower(truth)


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(("tiny", "easy")))
def test_every_kind_of_change_is_judged_as_the_rule_says(seed: int, level: str):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    truth = list(ast.literal_eval(sample.answer))
    for kind, change in PERTURBATIONS.items():
        text = change(truth)
        want = plain_verdict(text, truth)
        assert TASK.verify(sample, text, "official") is want, kind
        assert TASK.verify(sample, text, "strict") is (want and kind != "pair repeated"), kind


def owners_by_reading(sample: Sample) -> dict[str, str]:
    """Follows the english sentences with the owners kept as a list of items by seat, words found by looking for them."""
    people = sample.meta["names"]
    seats = [sample.meta["owns_before"][person] for person in people]
    for sentence in sample.meta["operations"]:
        named = [
            (match.start(), people.index(match[0]) if match[0] in people else seats.index(match[0]))
            for match in re.finditer("|".join(map(re.escape, [*people, *seats])), sentence)
        ]
        order = list(dict.fromkeys(seat for _, seat in sorted(named)))
        if "all at once" in sentence:
            a, b, c = order
            seats[b], seats[c], seats[a] = seats[a], seats[b], seats[c]
        elif not any(word in sentence for word in ("refused", "admired", "in vain")):
            a, b = order
            seats[a], seats[b] = seats[b], seats[a]
    return dict(zip(people, seats, strict=True))


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_the_answer_follows_from_the_sentences(level: str):
    for seed in range(15):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        assert owners_by_reading(sample) == dict(ast.literal_eval(sample.answer))


def test_every_step_that_is_asked_for_is_told():
    for steps in (1, 30, 60):
        params = GoodsExchangeParams(people=(8,), steps=(steps,))
        for seed in range(10):
            sample = TASK.generate(seed, params, "english")
            assert sample.meta["operator_num"] == len(sample.meta["operations"]) == steps
            assert all(sample.question.count(told) for told in sample.meta["operations"])
            assert f"{steps} " in sample.question


def test_all_kinds_of_steps_occur_equally_often():
    counts: Counter[str] = Counter()
    for seed in range(30):
        counts.update(event[0] for event in TASK.generate(seed, TASK.levels["hard"]).meta["events"])
    assert len(counts) == KINDS
    assert min(counts.values()) > 0.6 * sum(counts.values()) / KINDS
    assert counts["circle"]
    assert counts["enforced"]


def test_three_people_are_needed():
    with pytest.raises(ValueError, match="at least 3 people"):
        TASK.generate(0, GoodsExchangeParams(people=(2,), steps=(3,)))


def test_published_records_can_be_solved():
    """Their sentences are read: who and what they name, in order, and whether anything changes hands."""
    meta = {
        "names": ["Ann", "Bob", "Anna"],
        "objects": ["red pen", "blue cup", "red pencil"],
        "owns_before": {"Ann": "red pen", "Bob": "blue cup", "Anna": "red pencil"},
        "operations": [
            "Anna and Bob swapped",  # Ann red pen, Bob red pencil, Anna blue cup
            "Bob refused to swap with Ann",
            "Ann really liked blue cup",
            "whoever has red pencil swapped with Ann",  # Ann red pencil, Bob red pen
            "Anna traded blue cup for red pen",  # Anna red pen, Bob blue cup
        ],
    }
    solved = TASK.solve(Sample(task="goods_exchange", question="", meta=meta))
    assert solved == fence("(('Ann','red pencil'),('Bob','blue cup'),('Anna','red pen'))")
