"""Futoshiki (SynLogic, arXiv:2505.19641): verdicts, perturbations against a checker of its own, and the repaired signs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples
from test_synlogic_skyscraper_puzzle import ALL_SQUARES, grid_perturbations

from data.synlogic.futoshiki import Futoshiki, FutoshikiParams
from framework.sample import Sample

TASK = Futoshiki()
CARD = {"grid_size": 2, "prefilled_coords": [[0, 0]], "constraints": [[[0, 0], [0, 1], "<"]]}
QUESTION = "Current puzzle:\n1 X\nX X\n\nInequality constraints:\n(1,1) < (1,2)"
CASES = [
    # answer, official, strict
    ("[[1 2,2 1]]", True, True),  # card
    ("[[2 1,1 2]]", False, False),  # card
    ("[[1,2],[2,1]]", False, False),  # card
    ("The answer is [[1 2,2 1]].", True, True),
    ("[[2 1,1 2]] no, [[1 2,2 1]]", True, True),  # the last one counts
    ("[[1 2,2 1]] not [[2 1,1 2]]", False, False),
    ("[[1 2,2 1]] see [1]", True, True),
    ("[[ 1  2 , 2 1 ]]", True, True),
    ("```python\n[[1 2,2 1]]\n```", True, True),
    ("[[1-2,2;1]]", True, False),  # official reads the digits only
    ("[[row 1 2,2 1]]", True, False),
    ("[[-1 2,2 1]]", True, False),
    ("[[1 2,2 1]", False, False),
    ("[1 2,2 1]", False, False),
    ("1 2,2 1", False, False),
    ("[[12,21]]", False, False),
    ("[[1 2 2 1]]", False, False),
    ("[[1 2,2 1,]]", False, False),
    ("[[1 2,2]]", False, False),
    ("[[0_1 2,2 1]]", True, False),  # the second try of the official verifier reads what int() reads
    ("[[1 2，2 1]]", False, False),
    ("12/21", False, True),  # the widening of strict
    ("21/12", False, False),
    ("[[]]", False, False),
    ("", False, False),
]


@pytest.mark.slow
def test_every_rule_holds_for_this_task():
    check_all(TASK, seeds=2)


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdict(answer, official, strict):
    sample = Sample(task="futoshiki", question=QUESTION, meta=CARD)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


def record(rows: str, coords: list, constraints: list, mark: str = "Current puzzle:") -> Sample:
    question = f"{mark}\n{rows}\n\nInequality constraints:\n(1,1) < (1,2)"
    meta = {"grid_size": 3, "prefilled_coords": coords, "constraints": constraints}
    return Sample(task="futoshiki", question=question, meta=meta)


def test_official_loses_full_rows_of_the_question_and_strict_does_not():
    # The first row has no X, so that official takes the second line for it: clue (1,0)=2 is looked up in the third line.
    full = record("1 2 3\n2 X X\nX X X", [[0, 0], [0, 1], [0, 2], [1, 0]], [])
    kept, other = "[[1 2 3,2 3 1,3 1 2]]", "[[1 2 3,3 1 2,2 3 1]]"
    assert (TASK.verify(full, kept, "strict"), TASK.verify(full, other, "strict")) == (True, False)
    # Official compares the clue of (0,0) with the 2 of the line it kept.
    assert (TASK.verify(full, kept, "official"), TASK.verify(full, other, "official")) == (False, False)
    assert TASK.verify(full, "[[2 1 3,1 3 2,3 2 1]]", "official") is True
    assert TASK.verify(full, "[[2 1 3,1 3 2,3 2 1]]", "strict") is False


def test_official_checks_no_clue_of_a_chinese_record_and_strict_does():
    chinese = record("1 X X\nX X X\nX X X", [[0, 0]], [], mark="当前题目：")
    assert TASK.verify(chinese, "[[2 1 3,1 3 2,3 2 1]]", "official") is True
    assert TASK.verify(chinese, "[[2 1 3,1 3 2,3 2 1]]", "strict") is False
    assert TASK.verify(chinese, TASK.solve(chinese), "strict") is True


def right_square(sample: Sample, grid: object) -> bool:
    """The rules once more, with the clues and the signs of the record's fields."""
    meta = sample.meta
    n = meta["grid_size"]
    if not isinstance(grid, list) or [len(row) for row in grid] != [n] * n:
        return False
    if any(sorted(line) != list(range(1, n + 1)) for line in [*grid, *([row[j] for row in grid] for j in range(n))]):
        return False
    lines = sample.question.split("Current puzzle:\n")[1].split("\n")[:n]
    clues = [(i, j, word) for i, line in enumerate(lines) for j, word in enumerate(line.split()) if word != "X"]
    assert sorted([i, j] for i, j, _ in clues) == sorted(meta["prefilled_coords"])
    if any(grid[i][j] != int(word) for i, j, word in clues):
        return False
    differences = [(grid[a[0]][a[1]] - grid[b[0]][b[1]], sign) for a, b, sign in meta["constraints"]]
    return all(difference < 0 if sign == "<" else difference > 0 for difference, sign in differences)


def written(grid: list) -> str:
    return "[[" + ",".join(" ".join(map(str, row)) for row in grid) + "]]"


@settings(max_examples=examples(40), deadline=None)
@given(st.sampled_from(["tiny", "easy", "normal"]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_perturbed_answers_are_judged_by_the_rules(level, seed, pick):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    right = json.loads(sample.answer)
    plain = written(right)
    texts: dict[str, tuple[str, object, object]] = {}  # kind -> (text, what strict reads, what official reads)
    for kind, grid in grid_perturbations(right, pick).items():
        texts[kind] = (written(grid), grid, [[abs(value) for value in row] for row in grid])
    texts |= {
        "own solution": (
            TASK.solve(sample),
            *[[list(map(int, r.split())) for r in TASK.solve(sample)[2:-2].split(",")]] * 2,
        ),
        "prose": (f"I get {plain} here", right, right),
        "fence": (f"```\n{plain}\n```", right, right),
        "lines": (plain.replace(",", ",\n "), right, right),
        "line breaks for commas": (plain.replace(",", "\n"), None, None),
        "words": (plain.replace(",", ",row "), None, right),
        "JSON": (json.dumps(right), None, None),
        "single brackets": (plain[1:-1], None, None),
        "no brackets": (plain[2:-2], None, None),
        "no spaces": (plain.replace(" ", ""), None, None),
        "decimals": (plain.replace("1", "1.0"), None, None),
        "short form": ("/".join("".join(map(str, row)) for row in right), right, None),
        "quoted": (f'"{plain}"', right, right),
        "quotes inside": (plain.replace("[[", '[["').replace("]]", '"]]'), None, right),
        "open": (plain[:-1], None, None),
        "empty": ("", None, None),
    }
    for kind, (text, strict, official) in texts.items():
        assert TASK.verify(sample, text, "strict") is right_square(sample, strict), kind
        assert TASK.verify(sample, text, "official") is right_square(sample, official), kind


def test_signs_follow_the_stored_square_and_every_row_has_an_x():
    for level, params in TASK.levels.items():
        for seed in range(8):
            sample = TASK.generate(seed, TASK.levels[level], "english")
            assert TASK.verify(sample, written(json.loads(sample.answer)), "strict")
            assert TASK.verify(sample, written(json.loads(sample.answer)), "official")
            rows = sample.question.split("Current puzzle:\n")[1].split("\n")[: sample.meta["grid_size"]]
            assert all("X" in row for row in rows)
            meta = sample.meta
            assert (meta["grid_size"], meta["num_inequality_signs"], meta["num_prefilled_coords"]) in params.settings
            for (i, j), (k, m), _ in meta["constraints"]:
                assert abs(i - k) + abs(j - m) == 1


def test_a_record_is_judged_without_our_extra_field():
    for seed in range(10):
        sample = TASK.generate(seed, TASK.levels["normal"], "english")
        meta = {key: value for key, value in sample.meta.items() if key not in ("prefilled_values", "form")}
        bare = Sample(task="futoshiki", question=sample.question, meta=meta)
        assert TASK.solve(bare) == TASK.solve(sample)
        assert TASK.verify(bare, TASK.solve(sample), "strict")
        assert not TASK.verify(bare, TASK.perturb(sample, seed), "strict")


@pytest.mark.parametrize("unique", [False, True])
def test_unique_is_what_a_count_over_all_squares_says(unique):
    counts = []
    for seed in range(8):
        sample = TASK.generate(seed, FutoshikiParams(settings=((4, 7, 3),), unique=unique), "english")
        counts.append(sum(right_square(sample, grid) for grid in ALL_SQUARES[4]))
    assert min(counts) >= 1
    assert (max(counts) == 1) is unique
