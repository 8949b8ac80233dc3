"""The band is the paper's: pass@k of the strong model above 0, pass rate of the weak one in (0, 0.5]."""

import itertools
import json

import pytest

from data.synlogic.calibrate import Calibration, Cell, calibrate, pass_at_k
from framework.errors import UserError


@pytest.mark.parametrize(("samples", "right", "k"), [(5, 2, 3), (6, 0, 2), (6, 6, 1), (8, 1, 8), (7, 3, 2), (4, 3, 2)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_hold_a_right_one(samples, right, k):
    chosen = list(itertools.combinations([1] * right + [0] * (samples - right), k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(max, chosen)) / len(chosen), abs=1e-12)


def test_pass_at_1_is_the_pass_rate():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((5, 6, 1), "right=6 of samples=5"), ((5, -1, 1), "right=-1"), ((5, 2, 6), "pass@6 .* Use k from 1 to 5")],
)
def test_numbers_that_are_no_counts_are_refused(numbers, said):
    with pytest.raises(ValueError, match=said):
        pass_at_k(*numbers)


def kind(weak, strong, **rule):
    cell = Cell(task="t", level="l", samples=10, weak=weak, strong=strong)
    return Calibration(cells=(cell,), **rule).kind(cell)


@pytest.mark.parametrize(
    ("weak", "strong", "expected"),
    [
        ((5, 5), (9, 9), "learnable"),  # 0.5 itself is in the band
        ((6, 5), (9, 9), "too easy"),
        ((0, 1), (0, 1), "learnable"),
        ((0, 0), (0, 1), "beyond the weak"),
        ((0, 0), (0, 0), "too hard"),
        ((0, 1), (0, 0), "too hard"),  # the strong model decides
        ((10, 10), (0, 0), "too hard"),
    ],
)
def test_each_setting_is_put_where_the_rule_says(weak, strong, expected):
    assert kind(weak, strong) == expected


def test_the_rule_can_be_moved():
    assert kind((6, 6), (9, 9), max_weak=0.7) == "learnable"
    assert kind((1, 1), (1, 0), k=1) == "learnable"


WEAK = {("kukurasu", "tiny"): (8, 9), ("kukurasu", "easy"): (2, 0), ("mathador", "normal"): (0, 0)}
STRONG = {("kukurasu", "tiny"): (10, 10), ("kukurasu", "easy"): (7, 1), ("mathador", "normal"): (0, 0)}


def test_counts_go_in_and_pairs_come_out_as_a_config_takes_them(tmp_path):
    measured = calibrate(WEAK, STRONG, samples=10)
    assert measured.tasks("learnable") == (("kukurasu", "easy"),)
    assert measured.tasks("too hard") == (("mathador", "normal"),)
    assert measured.tasks("too easy", "learnable") == (("kukurasu", "tiny"), ("kukurasu", "easy"))
    table = measured.table().splitlines()
    assert table[3] == "| kukurasu | easy | 10.0 | 40.0 | 100.0 | learnable |"
    stored = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert Calibration.from_json(stored) == measured
    (tmp_path / "c.json").write_text(json.dumps(stored))
    assert Calibration.load(tmp_path / "c.json") == measured


def test_what_was_not_measured_alike_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Measure both models on the same ones"):
        calibrate(WEAK, dict(list(STRONG.items())[:2]), samples=10)
    with pytest.raises(ValueError, match="has 2 questions of the weak model and 1"):
        calibrate({("a", "b"): (1, 2)}, {("a", "b"): (1,)}, samples=10)
    with pytest.raises(ValueError, match="pass@10 cannot be estimated from samples=4"):
        calibrate(WEAK, STRONG, samples=4)
    with pytest.raises(ValueError, match="no kind of cell"):
        calibrate(WEAK, STRONG, samples=10).cells_of("hard")
    (tmp_path / "other.json").write_text('{"k": 1}')
    for name in ("other.json", "absent.json"):
        with pytest.raises(UserError, match="is no calibration"):
            Calibration.load(tmp_path / name)
