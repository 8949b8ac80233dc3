"""The rule of short-m@k (arXiv:2505.17813) against its definition, in any order of closing."""

from hypothesis import given
from hypothesis import strategies as st

from framework.inference.groups import Group


def final(lengths: list[int], count: int, order: list[int]) -> list[int]:
    """Thinking tokens of each sample when they close in this order; each is cut as soon as the rule says so."""
    group, said = Group(count), dict(enumerate(lengths))
    for sample in order:
        length = lengths[sample]
        if group.longest is None or length <= group.longest:
            group.close(sample, length)
    for sample, length in enumerate(lengths):
        cut = group.ends(sample, length + 1)
        if cut is not None:
            said[sample] = min(cut, length)
    return [said[s] for s in range(len(lengths))]


def test_the_check_values_of_the_compute_of_short_m():
    """Values worked out from the formula of the paper: sum over samples of min(length, T)."""
    lengths = [500, 900, 700, 1200, 650]
    for count, compute, time in ((1, 2500, 500), (2, 3100, 650), (3, 3250, 700), (5, 3950, 1200)):
        assert sum(final(lengths, count, [0, 4, 2, 1, 3])) == compute
        group = Group(count)
        for sample, length in enumerate(lengths):
            group.close(sample, length)
        assert group.longest == time
    assert sum(final([100, 200, 300, 400], 3, [0, 1, 2, 3])) == 900
    assert sum(final([100, 200, 300, 400], 4, [0, 1, 2, 3])) == 1000


@given(st.data())
def test_the_order_in_which_samples_close_changes_nothing(data):
    lengths = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=8))
    count = data.draw(st.integers(1, len(lengths)))
    order = data.draw(st.permutations(range(len(lengths))))
    longest = sorted(lengths)[count - 1]
    assert final(lengths, count, order) == [min(n, longest) for n in lengths]


def test_equal_lengths_are_told_apart_by_the_number_of_the_sample():
    group = Group(2)
    for sample in (3, 1, 0):
        group.close(sample, 5)
    assert [group.ends(sample, 9) for sample in (0, 1, 3)] == [None, None, 6]  # with its closing token


def test_nobody_is_cut_before_enough_have_closed():
    group = Group(2)
    group.close(0, 4)
    assert (group.longest, group.ends(1, 100)) == (None, None)
    group.close(1, 6)
    assert (group.ends(2, 6), group.ends(2, 7)) == (None, 6)  # with six tokens it may still close with the next
