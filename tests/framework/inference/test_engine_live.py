"""Samples under way: aborts, holding, resuming, forking; and a long life without a leak or a new compilation."""

import dataclasses
import functools

import numpy as np
import pytest
from engine_parts import CONFIG, naive_greedy, prompts, small_model

from framework.errors import UserError
from framework.inference import Engine, Request

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
