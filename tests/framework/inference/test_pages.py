"""The books of pages: any sequence of admissions, growth, forks and ends keeps them balanced, and no page has two writers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.inference.pages import PageTable


def table(**changes):
    return PageTable(**({"slots": 4, "pages": 9, "page": 4, "max_pages": 5, "shards": 1} | changes))


def books(pages: PageTable):
    """All that a caller can see."""
    return pages.table.copy(), [pages.free_pages(shard) for shard in range(pages.shards)]


def same(one, other):
    return np.array_equal(one[0], other[0]) and one[1] == other[1]


def test_a_slot_has_as_many_pages_as_its_tokens_take():
    pages = table()
    for length, held in [(0, 0), (1, 1), (4, 1), (5, 2), (3, 2), (20, 5)]:
        assert pages.ensure(2, length)
        assert (np.count_nonzero(pages.table[2]), pages.free_pages(0)) == (held, 8 - held)
        assert pages.capacity(2) == 4 * held
        pages.check()
    pages.free(2)
    assert not pages.table.any()
    assert pages.free_pages(0) == 8
    assert pages.capacity(2) == 0
    pages.check()


def test_ensure_that_fails_changes_nothing_and_works_once_there_is_room():
    pages = table()
    assert pages.ensure(0, 20)
    assert pages.ensure(1, 8)
    before = books(pages)
    assert not pages.ensure(2, 8)  # 2 pages, and 1 is free
    assert not pages.ensure(1, 20)
    assert same(books(pages), before)
    assert pages.ensure(1, 8)  # has them already
    pages.free(0)
    assert pages.ensure(2, 8)
    pages.check()


def test_a_fork_shares_full_pages_and_copies_the_last_one():
    pages = table()
    assert pages.ensure(0, 16)
    [(page, twin)] = pages.share(0, 1, 10)
    assert pages.table[1].tolist() == [*pages.table[0, :2], twin, 0, 0]
    assert page == pages.table[0, 2]
    assert twin not in pages.table[0]
    assert pages.share(0, 2, 8) == []  # ends with a page: nothing to copy
    assert pages.free_pages(0) == 8 - 5
    pages.free(0)  # the two that are shared stay
    assert pages.free_pages(0) == 8 - 3
    pages.check()
    pages.free(1)
    pages.free(2)
    assert pages.free_pages(0) == 8
    pages.check()


def test_a_fork_for_which_no_page_is_free_changes_nothing():
    pages = table(pages=4)
    assert pages.ensure(0, 10)
    before = books(pages)
    assert pages.share(0, 1, 10) is None
    assert same(books(pages), before)
    assert pages.share(0, 1, 8) == []  # takes no page
    pages.check()


def test_shards_have_their_own_pages_under_the_same_numbers():
    pages = table(shards=2, pages=5)
    assert [pages.shard(slot) for slot in range(4)] == [0, 0, 1, 1]
    assert pages.ensure(1, 16)
    assert pages.ensure(2, 4)
    assert (pages.free_pages(0), pages.free_pages(1)) == (0, 3)
    assert not pages.ensure(0, 1)
    assert pages.ensure(3, 12)
    assert 0 < pages.table.max() < 5
    pages.check()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: p.ensure(0, 21), "21 tokens take 6 pages of 4, and a slot has 5 at most .20 tokens"),
        (lambda p: p.share(0, 1, 9), "slot 0 has pages for 8 tokens, so there are no 9 to share"),
        (lambda p: p.share(0, 0, 8), "slot 0 has 2 pages. Free it"),
        (lambda p: p.share(0, 2, 8), "slots 0 and 2 are in shards 0 and 1"),
    ],
    ids=["too long", "not there", "not empty", "other shard"],
)
def test_what_no_caller_may_ask_for_is_refused(call, said):
    pages = table(shards=2)
    assert pages.ensure(0, 8)
    before = books(pages)
    with pytest.raises(ValueError, match=said):
        call(pages)
    assert same(books(pages), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"shards": 3}, "slots=4 .* shards=3"), ({"pages": 1}, "2 pages or more"), ({"page": 0}, "1 token or more")],
    ids=["shards", "pages", "page"],
)
def test_a_table_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        table(**changes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.table.__setitem__((1, 0), p.table[0, 0]),  # another's page
        lambda p: p.table.__setitem__((0, 1), p.table[0, 0]),  # its own twice
        lambda p: p.table.__setitem__((3, 0), 3),  # one that it does not count
        lambda p: p.table.__setitem__((0, 0), 0),  # nobody's page
    ],
    ids=["another's", "twice", "uncounted", "nobody's"],
)
def test_check_finds_books_that_do_not_balance(spoil):
    pages = table()
    assert pages.ensure(0, 8)
    assert pages.ensure(1, 4)
    pages.check()
    spoil(pages)
    with pytest.raises(RuntimeError):
        pages.check()


class Device:
    """What the pages of one shard hold, token by token, as the device would write it; and what each slot should read."""

    def __init__(self, pages: PageTable):
        self.pages = pages
        self.memory = np.full((pages.shards, pages.pages, pages.page), -1)
        self.rows: dict[int, list[int]] = {}
        self.next_token = 0

    def write(self, slot: int, count: int):
        """The next tokens of a slot; each one is written only once, anywhere."""
        for _ in range(count):
            place = len(self.rows[slot])
            number = self.pages.table[slot, place // self.pages.page]
            assert number != 0
            self.memory[self.pages.shard(slot), number, place % self.pages.page] = self.next_token
            self.rows[slot].append(self.next_token)
            self.next_token += 1

    def copy(self, slot: int, copies):
        memory = self.memory[self.pages.shard(slot)]
        for page, twin in copies:
            memory[twin] = memory[page]

    def check(self):
        """Every slot reads its own tokens back: nobody has written where another one reads."""
        for slot, tokens in self.rows.items():
            numbers = self.pages.table[slot, np.arange(len(tokens)) // self.pages.page]
            places = np.arange(len(tokens)) % self.pages.page
            assert self.memory[self.pages.shard(slot), numbers, places].tolist() == tokens


STEPS = st.lists(
    st.tuples(st.sampled_from(["grow", "grow", "share", "share", "free"]), *[st.integers(0, 1000)] * 3), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, page=st.integers(1, 5), total=st.integers(2, 14), shards=st.integers(1, 2))
def test_any_sequence_of_calls_keeps_the_books_and_every_row_reads_back_what_it_wrote(steps, page, total, shards):
    slots, max_pages = 6, 5
    pages = PageTable(slots=slots, pages=total, page=page, max_pages=max_pages, shards=shards)
    device = Device(pages)
    for action, slot, other, amount in steps:
        if action != "grow":  # of those that there are
            slot = sorted(device.rows)[slot % len(device.rows)] if device.rows else slot
        slot = slot % slots
        empty = [s for s in range(slots) if s not in device.rows and pages.shard(s) == pages.shard(slot)]
        before = books(pages)
        if action == "grow":
            length = len(device.rows.get(slot, ()))
            count = amount % (max_pages * page - length + 1)
            lacking = -(-(length + count) // page) - np.count_nonzero(before[0][slot])
            fits = pages.ensure(slot, length + count)
            assert fits == (lacking <= before[1][pages.shard(slot)])
            if fits:
                device.rows.setdefault(slot, [])
                device.write(slot, count)
            else:
                assert same(books(pages), before)
        elif action == "share" and slot in device.rows and empty:
            other = empty[other % len(empty)]
            tokens = device.rows[slot][: amount % (len(device.rows[slot]) + 1)]
            copies = pages.share(slot, other, len(tokens))
            if copies is None:
                assert before[1][pages.shard(slot)] == 0
                assert len(tokens) % page
                assert same(books(pages), before)
            else:
                assert len(copies) == (len(tokens) % page > 0)
                assert before[1][pages.shard(slot)] - pages.free_pages(pages.shard(slot)) == len(copies)
                device.copy(slot, copies)
                device.rows[other] = list(tokens)
        elif action == "free":
            pages.free(slot)
            device.rows.pop(slot, None)
        pages.check()
        device.check()
    for slot in range(slots):
        pages.free(slot)
    pages.check()
    assert [pages.free_pages(shard) for shard in range(shards)] == [total - 1] * shards
    assert not pages.table.any()
