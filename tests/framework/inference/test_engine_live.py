"""Samples under way: aborts, holding, resuming, forking; and a long life without a leak or a new compilation."""

import dataclasses
import functools

import numpy as np
import pytest
from engine_parts import CONFIG, naive_greedy, prompts, small_model

from framework.errors import UserError
from framework.inference import Engine, GroupStop, Request

LAYOUTS = {"slots": {}, "paged": {"layout": "paged", "page_size": 4}}
both = pytest.mark.parametrize("layout", LAYOUTS)


def make(layout: str = "slots", **changes) -> Engine:
    ask = changes.pop("ask", None)
    return Engine(small_model(), dataclasses.replace(CONFIG, **LAYOUTS[layout], **changes), ask=ask)


shared = functools.cache(make)


def finish(engine: Engine) -> dict:
    """Step until nothing is left: {(ticket, sample): completion}."""
    found = {}
    while not engine.idle:
        for update in engine.step():
            if update.completion is not None:
                found[update.ticket, update.sample] = update.completion
    return found


def step(engine: Engine, times: int) -> None:
    for _ in range(times):
        engine.step()


def empty(engine: Engine) -> bool:
    engine._device.memory.check()
    stats = engine.stats
    return (
        stats.free_slots,
        stats.waiting,
        stats.held,
        engine._book.tickets,
        engine._book.groups,
        engine._book.callbacks,
    ) == (
        stats.slots,
        0,
        0,
        {},
        {},
        {},
    )


@both
def test_an_aborted_request_gives_what_it_has_and_its_slot_goes_to_the_next(layout):
    engine = shared(layout, slots=2)
    asked = [Request(id=i, prompt=p, ignore_stop=True) for i, p in enumerate(prompts(4, seed=1))]
    tickets = [engine.submit(r, 0) for r in asked]
    engine.step()
    engine.abort(tickets[0])
    engine.abort(tickets[3])  # still waits
    engine.abort(tickets[0])  # again: nothing more happens
    found = finish(engine)
    assert [found[t, 0].finish_reason for t in tickets] == ["abort", "length", "length", "abort"]
    assert [len(found[t, 0].tokens) for t in tickets] == [4, 10, 10, 0]
    whole = engine.generate(asked, 0)
    assert [found[t, 0].tokens.tolist() for t in tickets[1:3]] == [c.tokens.tolist() for c in whole[1:3]]
    assert found[tickets[0], 0].tokens.tolist() == whole[0].tokens.tolist()[:4]
    assert empty(engine)


@both
def test_a_held_sample_goes_on_as_if_it_had_never_stopped(layout):
    engine = shared(layout)
    prompt = prompts(1, seed=3, longest=6)[0]
    (whole,) = engine.generate([Request(id=0, prompt=prompt, max_tokens=10, ignore_stop=True)], 1)
    ticket = engine.submit(Request(id=0, prompt=prompt, max_tokens=3, ignore_stop=True, hold=True), 1)
    first = finish(engine)[ticket, 0]
    assert first.tokens.tolist() == whole.tokens.tolist()[:3]
    assert (engine.stats.held, engine.idle) == (1, True)
    others = engine.generate([Request(id=9, prompt=p, samples=3) for p in prompts(6, seed=8)], 2)  # beside it
    assert len(others) == 18
    engine.resume(ticket, 0, max_tokens=7)
    again = finish(engine)[ticket, 0]
    assert again.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_allclose(again.logp, whole.logp, atol=1e-5)
    engine.release(ticket, 0)
    assert empty(engine)


@both
def test_tokens_put_in_by_hand_are_read_like_a_prompt(layout):
    engine, model = shared(layout), small_model()
    prompt = prompts(1, seed=12, longest=5)[0]
    request = Request(id=0, prompt=prompt, max_tokens=2, temperature=0.0, hold=True, ignore_stop=True)
    for replaced, added in ((7, ()), (None, (9, 11, 4)), (8, (3, 3))):
        ticket = engine.submit(request, 0)
        start = finish(engine)[ticket, 0].tokens.tolist()
        engine.resume(ticket, 0, token=replaced, tokens=added, max_tokens=6)
        tokens = finish(engine)[ticket, 0].tokens.tolist()
        forced = [*(start if replaced is None else [*start[:-1], replaced]), *added]
        assert tokens == [*forced, *naive_greedy(model, [*prompt, *forced], 6, stop=None)]
        engine.release(ticket, 0)
    assert empty(engine)


@both
def test_forks_go_on_from_where_they_were_made_and_one_can_be_kept(layout):
    engine = shared(layout, slots=8)
    prompt = prompts(1, seed=13, longest=6)[0]
    ticket = engine.submit(Request(id=3, prompt=prompt, max_tokens=4, ignore_stop=True, hold=True), 1)
    stem = finish(engine)[ticket, 0].tokens.tolist()
    for wrong, advice in (
        ({"count": 0}, "count=0"),
        ({"count": 2}, "not 0"),
        ({"count": 2, "max_tokens": 99}, "not 99"),
    ):
        with pytest.raises(UserError, match=advice):
            engine.fork(ticket, 0, **wrong)
    forks = engine.fork(ticket, 0, 6, max_tokens=5)
    found = finish(engine)
    texts = {fork: found[ticket, fork].tokens.tolist() for fork in forks}
    assert all(text[:4] == stem and len(text) == 9 for text in texts.values())
    assert len({tuple(text) for text in texts.values()}) > 3, "each fork has randomness of its own"
    for fork in forks:
        score = engine.score([[*prompt, *texts[fork]]])[0]
        np.testing.assert_allclose(found[ticket, fork].logp, score.logp[len(prompt) - 1 :], atol=1e-5)
    engine.commit(ticket, forks[2])
    assert engine.stats.held == 1
    engine.resume(ticket, forks[2], max_tokens=2)
    assert finish(engine)[ticket, forks[2]].tokens.tolist()[:9] == texts[forks[2]]
    engine.release(ticket, forks[2])
    assert empty(engine)


@both
def test_forks_beyond_the_slots_wait_and_change_nothing(layout):
    found = []
    for slots in (16, 3):
        engine = shared(layout, slots=slots)
        ticket = engine.submit(Request(id=3, prompt=[4, 5, 6], ignore_stop=True), 1)
        engine.step()
        forks = engine.fork(ticket, 0, 6)
        done = finish(engine)
        found.append([done[ticket, s].tokens.tolist() for s in (0, *forks)])
        assert empty(engine)
    assert found[0] == found[1]


@both
def test_a_fork_is_a_function_of_its_path_and_not_of_the_company(layout):
    prompt = prompts(1, seed=13, longest=6)[0]
    found = []
    for company in (0, 5):
        engine = shared(layout, slots=8)
        for i in range(company):
            engine.submit(Request(id=50 + i, prompt=[5, 6, 7], ignore_stop=True), 9)
        ticket = engine.submit(Request(id=3, prompt=prompt, ignore_stop=True), 1)
        engine.step()
        forks = engine.fork(ticket, 0, 2)  # while it runs
        done = finish(engine)
        found.append([done[ticket, s].tokens.tolist() for s in (0, *forks)])
        assert empty(engine)
    assert found[0] == found[1]
    assert found[0][0][:4] == found[0][1][:4]
    assert len({tuple(tokens) for tokens in found[0]}) == 3


@both
def test_a_rule_inside_the_loop_hands_a_sample_to_the_host(layout):
    """A router: after every even token the host writes token 7 in its place."""
    engine = make(layout, ask=lambda hidden, logits, token: token % 2 == 0)
    prompt = prompts(1, seed=14)[0]
    ticket = engine.submit(Request(id=0, prompt=prompt, temperature=0.0, ignore_stop=True), 0)
    asked, tokens = 0, None
    while not engine.idle:
        for update in engine.step():
            if update.completion is not None:
                tokens = update.completion.tokens.tolist()
            elif update.asked:
                asked += 1
                assert update.tokens[-1] % 2 == 0
                engine.resume(ticket, 0, token=7)
    want = list(prompt)
    for _ in range(10):
        (token,) = naive_greedy(small_model(), want, 1, stop=None)
        want.append(7 if token % 2 == 0 else token)
    assert asked > 0
    assert tokens[:-1] == want[len(prompt) :][:-1]  # the last one ends it before anybody is asked
    assert empty(engine)


def test_held_samples_that_block_everything_are_an_error_and_not_a_hang():
    engine = make(slots=1)
    ticket = engine.submit(Request(id=0, prompt=[3], max_tokens=1, hold=True), 0)
    finish(engine)
    engine.submit(Request(id=1, prompt=[4]), 0)
    with pytest.raises(RuntimeError, match="Release some"):
        engine.step()
    engine.release(ticket, 0)
    assert len(finish(engine)) == 1


@both
def test_new_weights_are_used_from_the_next_step_and_prompts_of_the_old_ones_are_not_shared(layout):
    import jax
    from flax import nnx

    engine = make(layout, slots=1)
    ticket = engine.submit(Request(id=0, prompt=[3, 4, 5], samples=2, ignore_stop=True, max_tokens=4), 0)
    while not any(update.completion for update in engine.step()):
        pass
    changed = jax.tree.map(lambda x: x * 0.7, nnx.state(small_model()))
    engine.load(changed, version=2)
    second = finish(engine)[ticket, 1]
    new = make(layout, slots=1)
    new.load(changed, version=2)
    assert second.version == 2
    want = new.generate([Request(id=0, prompt=[3, 4, 5], samples=2, ignore_stop=True, max_tokens=4)], 0)[1]
    assert second.tokens.tolist() == want.tokens.tolist()


@both
def test_after_warm_up_nothing_compiles_over_a_thousand_requests(layout):
    engine = make(layout, max_length=150, slots=8, prefill_tokens=64)
    engine.warmup()
    names = ("decode", "prefill", "extend", "insert", "copy", "resize")
    before = {name: engine.budget.traces(name) for name in names}
    rng = np.random.default_rng(0)
    live = []
    for number in range(1000):
        prompt = rng.integers(2, 40, int(rng.choice([1, 5, 20, 64, 65, 100, 140]))).tolist()
        live.append(
            engine.submit(
                Request(id=number, prompt=prompt, max_tokens=int(rng.integers(1, 10)), samples=int(rng.integers(1, 4))),
                0,
            )
        )
        if number % 3 == 0:
            engine.step()
    finish(engine)
    assert {name: engine.budget.traces(name) for name in names} == before
    assert empty(engine)


@pytest.mark.slow
@both
def test_ten_thousand_requests_with_aborts_leave_no_slot_page_or_record_behind(layout):
    budget = {"cache_bytes": 40 * 2 * 2 * 2 * 8 * 4 * 4} if layout == "paged" else {}
    engine = make(layout, slots=16, decode_steps=3, **budget)
    rng = np.random.default_rng(1)
    live, finished = [], 0
    for number in range(10_000):
        prompt = rng.integers(2, 40, int(rng.integers(1, 12))).tolist()
        live.append(engine.submit(Request(id=number, prompt=prompt, max_tokens=int(rng.integers(1, 6))), 0))
        if number % 8 == 0:
            finished += sum(u.completion is not None for u in engine.step())
        if rng.random() < 0.2:
            engine.abort(live[int(rng.integers(max(len(live) - 30, 0), len(live)))])
        if number % 500 == 0:
            engine._device.memory.check()
    finished += len(finish(engine))
    assert finished == 10_000
    assert empty(engine)
    assert engine.stats.generated_tokens > 10_000


# --- found by attacking it ---


def drawn_as(request: Request, key, *engines: Engine) -> list:
    return [[c.tokens.tolist() for c in engine.generate([request], key)] for engine in engines]


def test_a_member_of_a_group_that_closes_with_its_last_token_is_the_same_on_pages():
    """It once decoded a token for which it had no page."""
    changes = {"slots": 2, "max_length": 48, "max_new_tokens": 40, "decode_steps": 8}
    slots, paged = shared("slots", **changes), shared("paged", **changes)
    group = GroupStop(token=11, count=2)
    for seed in range(6):
        for i in range(4):
            request = Request(
                id=i, prompt=[2] * (1 + i), samples=4, max_tokens=30, temperature=0.8, ignore_stop=True, group=group
            )
            one, other = drawn_as(request, seed, slots, paged)
            assert one == other
    paged._device.memory.check()


@both
def test_many_tokens_put_in_by_hand_get_places_of_their_own(layout):
    engine = shared(layout, max_length=60)
    ticket = engine.submit(Request(id=0, prompt=[2, 3], max_tokens=4, hold=True, temperature=0.0, ignore_stop=True), 1)
    start = finish(engine)[ticket, 0].tokens.tolist()
    added = list(range(5, 25))
    engine.resume(ticket, 0, tokens=added, max_tokens=6)
    done = finish(engine)[ticket, 0]
    tokens = [2, 3, *start, *added]
    assert done.tokens.tolist() == [*start, *added, *naive_greedy(small_model(), tokens, 6, room=60, stop=None)]
    assert np.isnan(done.logp[4:24]).all()
    score = engine.score([[2, 3, *done.tokens]])[0].logp[1:]
    np.testing.assert_allclose(done.logp[24:], score[24:], atol=1e-5)
    engine.release(ticket, 0)
    assert empty(engine)


@both
@pytest.mark.parametrize("rounds", [1, 2], ids=["not read", "half read"])
def test_a_sample_can_be_forked_before_its_prompt_is_read(layout, rounds):
    engine = shared(layout, slots=6, max_length=120, prefill_tokens=64)
    prompt = np.random.default_rng(5).integers(2, 40, 100).tolist()
    other = engine.submit(Request(id=9, prompt=[3, 4], max_tokens=10, ignore_stop=True), 0)
    engine.step()
    ticket = engine.submit(Request(id=1, prompt=prompt, max_tokens=5, ignore_stop=True), 0)
    for _ in range(rounds - 1):
        engine.step()  # one part of the prompt, beside the other sample
    forks = engine.fork(ticket, 0, 3)
    done = finish(engine)
    assert len(done[other, 0].tokens) == 10
    for sample in (0, *forks):
        tokens = done[ticket, sample].tokens
        score = engine.score([[*prompt, *tokens]])[0].logp[len(prompt) - 1 :]
        np.testing.assert_allclose(done[ticket, sample].logp, score, atol=1e-5)
    assert empty(engine)


@both
def test_weights_that_change_while_a_prompt_is_half_read_are_used_for_all_of_it(layout):
    import jax
    from flax import nnx

    engine = make(layout, slots=2, max_length=120, prefill_tokens=64)
    prompt = np.random.default_rng(6).integers(2, 40, 100).tolist()
    engine.submit(Request(id=9, prompt=[3, 4], max_tokens=10, ignore_stop=True), 0)
    engine.step()
    ticket = engine.submit(Request(id=1, prompt=prompt, max_tokens=5, samples=3, ignore_stop=True), 0)
    engine.step()
    engine.load(jax.tree.map(lambda x: x * 0.7, nnx.state(small_model())), version=2)
    done = finish(engine)
    for sample in range(3):
        tokens = done[ticket, sample].tokens
        score = engine.score([[*prompt, *tokens]])[0].logp[len(prompt) - 1 :]
        np.testing.assert_allclose(done[ticket, sample].logp, score, atol=1e-5)


def test_numbers_of_tokens_put_in_by_hand_are_nan_and_stay_beside_their_tokens():
    engine = make(top_logprobs=2, keep_hidden=True, max_length=40)
    request = Request(id=0, prompt=[2, 3], max_tokens=4, hold=True, ignore_stop=True, top_logprobs=2)
    ticket = engine.submit(request, 1)
    first = finish(engine)[ticket, 0]
    engine.resume(ticket, 0, token=7, tokens=(8, 9), max_tokens=5)
    done = finish(engine)[ticket, 0]
    assert {len(x) for x in (done.tokens, done.logp, done.top_tokens, done.top_logp, done.hidden)} == {11}
    assert np.isnan(done.logp[3:6]).all()
    assert not np.isnan(np.delete(done.logp, [3, 4, 5])).any()
    np.testing.assert_array_equal(first.logp[:3], done.logp[:3])
    assert not np.isnan(first.logp).any(), "the completion given before stays as it was"


def test_held_samples_that_leave_too_few_pages_are_an_error_and_not_a_hang():
    page = 2 * 2 * 2 * 8 * 4 * 4
    changes = {"slots": 2, "max_length": 16, "max_new_tokens": 16, "decode_steps": 16, "cache_bytes": 5 * page}
    for length in (3, 5):
        engine = make("paged", **changes)
        request = Request(id=1, prompt=[2] * length, samples=2, max_tokens=11, hold=True, ignore_stop=True)
        engine.submit(request, 1)
        with pytest.raises(RuntimeError, match="Release some"):
            step(engine, 50)


def test_generate_says_so_when_a_sample_would_wait_for_ever():
    engine = make(ask=lambda hidden, logits, token: token >= 0)
    with pytest.raises(UserError, match=r"submit\(\) and step\(\)"):
        engine.generate([Request(id=0, prompt=[3, 4], ignore_stop=True)], 0)
    assert empty(engine)


def test_a_call_back_may_hand_in_and_abort_and_raise_and_nobody_elses_news_is_lost():
    engine = shared()
    heard, more = [], []

    def hear(update):
        heard.append((update.sample, update.completion and update.completion.finish_reason))
        if not more:
            more.append(engine.submit(Request(id=77, prompt=[5], max_tokens=2, ignore_stop=True), 0))

    (done,) = engine.generate([Request(id=0, prompt=[3, 4], ignore_stop=True)], 0, on_tokens=hear)
    assert len(done.tokens) == 10
    finish(engine)
    heard.clear()
    box = []

    def stop(update):
        heard.append((update.sample, update.completion and update.completion.finish_reason))
        if update.completion is not None and update.sample == 0:
            engine.abort(box[0])

    request = Request(id=0, prompt=[3, 4], samples=4, max_tokens=6, ignore_stop=True)
    box.append(engine.submit(request, 0, on_tokens=stop))
    finish(engine)
    assert {s for s, reason in heard if reason} == {0, 1, 2, 3}

    def broken(update):
        raise OSError("no space")

    first = engine.submit(Request(id=0, prompt=[3, 4], max_tokens=2, ignore_stop=True), 0, on_tokens=broken)
    second = engine.submit(Request(id=1, prompt=[3, 4], max_tokens=2, ignore_stop=True), 0)
    with pytest.raises(OSError, match="no space"):
        engine.step()
    assert [ticket for ticket, _ in finish(engine)] == [second]
    assert first not in engine._book.tickets
    assert empty(engine)


def test_aborting_a_held_sample_frees_everything_and_a_group_can_be_committed():
    engine = shared()
    ticket = engine.submit(Request(id=0, prompt=[3], max_tokens=2, hold=True, ignore_stop=True), 0)
    finish(engine)
    engine.abort(ticket)
    assert empty(engine)
    group = Request(id=1, prompt=[3, 4], samples=4, ignore_stop=True, group=GroupStop(token=39, count=4))
    ticket = engine.submit(group, 0)
    engine.step()
    engine.commit(ticket, 2)
    done = finish(engine)
    assert set(done) == {(ticket, 2)}
    with pytest.raises(UserError, match="cannot be forked"):
        engine.fork(engine.submit(group, 0), 0, 2)
    engine.abort(next(iter(engine._book.tickets)))
    finish(engine)
    assert empty(engine)
