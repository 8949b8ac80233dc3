"""What a request can ask: stop texts, limits, cut-off sampling, groups, most likely tokens, hidden states; and what goes wrong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_parts import CONFIG, MODEL, prompts, small_model, wide
from flax import nnx

from framework.errors import UserError
from framework.inference import Completion, Engine, EngineConfig, GroupStop, QueueFull, Request
from models.decoder import DecoderConfig
from models.tokenizer import ByteTokenizer

LAYOUTS = {"slots": {}, "paged": {"layout": "paged", "page_size": 4}}
TOKENIZER = ByteTokenizer().build()
TEXT = EngineConfig(slots=6, max_length=60, max_new_tokens=40, decode_steps=8, stop_tokens=TOKENIZER.stop_ids)


@functools.cache
def speaker():
    """A model of bytes that says something else for every prompt."""
    return wide(DecoderConfig(**{**MODEL.__dict__, "vocab_size": TOKENIZER.vocab_size}), scale=0.2)


@functools.cache
def talker(layout: str = "slots") -> Engine:
    return Engine(speaker(), dataclasses.replace(TEXT, **LAYOUTS[layout]), tokenizer=TOKENIZER)


@functools.cache
def plain(layout: str = "slots", **changes) -> Engine:
    return Engine(small_model(), dataclasses.replace(CONFIG, **LAYOUTS[layout], **changes))


def ask(text: str = "Say something", **more) -> Request:
    return Request(id=0, prompt=TOKENIZER.encode(text), **more)


# --- texts ---


def test_a_stop_text_ends_a_sample_at_the_token_that_completes_it():
    engine = talker()
    whole = engine.generate([ask()], 3)[0]
    assert whole.text == TOKENIZER.decode(whole.tokens.tolist())
    letters = [i for i in range(4, 36) if whole.text[i : i + 3].isascii()]
    for start in letters[::6]:
        stop = whole.text[start : start + 3]  # three bytes, three tokens
        first = whole.text.find(stop)
        (found,) = engine.generate([ask(stop=("never said", stop))], 3)
        assert (found.finish_reason, found.stop, found.text) == ("stop", stop, whole.text[:first])
        assert found.tokens.tolist() == whole.tokens.tolist()[: len(found.tokens)]
        said = TOKENIZER.decode(found.tokens.tolist())
        assert said.startswith(whole.text[:first] + stop)  # its last token may say more, such as <answer>
        assert len(TOKENIZER.decode(found.tokens.tolist()[:-1])) < first + len(stop)
        assert len(found.logp) == len(found.tokens)


def test_more_stop_texts_than_the_table_has_lines_still_all_work():
    engine = talker()
    (whole,) = engine.generate([ask()], 3)
    stops = [whole.text[i : i + 2] for i in range(2, 30, 2)]
    requests = [ask(stop=(stop,)) for stop in stops]
    for stop, got in zip(stops, engine.generate(requests, 3), strict=True):
        assert (got.stop, got.text) == (stop, whole.text[: whole.text.find(stop)])
    assert not any(engine._watches._users.values())


def test_the_call_back_gets_every_text_and_token_once_and_in_order():
    engine, said, tokens, logp = talker(), [], [], []

    def hear(update):
        said.append(update.text)
        tokens.extend(update.tokens.tolist())
        logp.extend(update.logp.tolist())

    (got,) = engine.generate([ask(stop=("zz never",))], 3, on_tokens=hear)
    assert len(said) > 2
    assert "".join(said) == got.text
    assert tokens == got.tokens.tolist()
    assert logp == got.logp.tolist()


def test_a_stop_text_without_a_tokenizer_is_refused():
    with pytest.raises(UserError, match=r"tokenizer=\.\.\."):
        plain().generate([Request(id=0, prompt=[2], stop=("x",))], 0)


def test_a_stop_text_is_found_also_when_every_token_is_asked_about():
    engine = Engine(speaker(), TEXT, tokenizer=TOKENIZER, ask=lambda hidden, logits, token: token >= 0)
    (whole,) = talker().generate([ask()], 3)
    stop = whole.text[9:12]
    ticket, said, done = engine.submit(ask(stop=(stop,)), 3), [], None
    while not engine.idle:
        for update in engine.step():
            said.append(update.text)
            done = update.completion or done
            if update.asked:
                engine.resume(ticket, 0)
    assert (done.finish_reason, done.stop, done.text) == ("stop", stop, whole.text[: whole.text.find(stop)])
    assert "".join(said) == done.text


def test_text_of_a_sample_that_goes_on_behind_its_stop_is_said_once_and_whole():
    engine = talker()
    (whole,) = engine.generate([ask()], 3)
    stop = whole.text[9:12]
    ticket, said, done = engine.submit(ask(stop=(stop,), hold=True), 3), [], None
    for _ in range(40):
        while not engine.idle:
            for update in engine.step():
                said.append(update.text)
                done = update.completion or done
        if done.finish_reason == "length":
            break
        engine.resume(ticket, 0)
    assert done.tokens.tolist() == whole.tokens.tolist()
    assert "".join(said) == done.text == whole.text
    engine.release(ticket, 0)


def test_a_watched_token_stays_watched_when_other_requests_come_and_go():
    engine = talker()
    (whole,) = engine.generate([ask()], 3)
    stop = whole.text[20:23]
    go = lambda *stops: engine.submit(ask(stop=stops), 3)  # noqa: E731
    filling = [go(f"zzz{i}") for i in range(6)]
    beyond = go(stop)  # all lines are taken
    engine.abort(filling[0])
    kept = go(stop)
    engine.abort(beyond)
    go("qqq")
    found = {}
    while not engine.idle:
        for update in engine.step():
            if update.completion is not None:
                found[update.ticket] = update.completion
    (alone,) = engine.generate([ask(stop=(stop,))], 3)
    assert found[kept].tokens.tolist() == alone.tokens.tolist()
    assert found[kept].stop == stop


# --- lengths and stop tokens ---


def test_limits_stop_tokens_of_the_request_and_ignoring_those_of_the_engine():
    engine = plain()
    asked = [Request(id=i, prompt=p, samples=4) for i, p in enumerate(prompts(8, seed=4))]
    usual = engine.generate(asked, 2)
    assert {c.finish_reason for c in usual} == {"stop", "length"}
    ignored = engine.generate([dataclasses.replace(r, ignore_stop=True) for r in asked], 2)
    assert all(len(c.tokens) == 10 and c.finish_reason == "length" for c in ignored)
    assert any(1 in c.tokens[:-1] for c in ignored)
    own = engine.generate([dataclasses.replace(r, stop_tokens=(7, 9), ignore_stop=True) for r in asked], 2)
    for got, free in zip(own, ignored, strict=True):
        tokens = free.tokens.tolist()
        ends = [i for i, t in enumerate(tokens) if t in (7, 9)]
        want = tokens[: ends[0] + 1] if ends else tokens
        assert got.tokens.tolist() == want
        assert got.stop == (want[-1] if ends else None)
    late = engine.generate([dataclasses.replace(r, min_tokens=6) for r in asked], 2)
    assert min(len(c.tokens) for c in late) > 6
    assert any(c.finish_reason == "stop" for c in late)


def test_without_a_limit_of_its_own_a_request_gets_what_fits():
    (got,) = plain().generate([Request(id=0, prompt=[2] * 18, ignore_stop=True)], 0)
    assert len(got.tokens) == 4  # 22 in all


# --- numbers beside the tokens ---


@pytest.mark.parametrize("layout", LAYOUTS)
def test_most_likely_tokens_and_hidden_states_are_those_of_the_forward(layout):
    engine = plain(layout, top_logprobs=5, keep_hidden=True)
    prompt = prompts(1, seed=5)[0]
    few, none = engine.generate(
        [Request(id=0, prompt=prompt, top_logprobs=3, temperature=0.5), Request(id=1, prompt=prompt)], 7
    )
    assert none.top_tokens is None
    tokens = jnp.array([[*prompt, *few.tokens]])
    hidden, _ = small_model()(tokens, jnp.arange(tokens.shape[1])[None])
    logp = jax.nn.log_softmax(hidden[0, len(prompt) - 1 : -1] @ small_model().unembed)
    best = np.argsort(-np.asarray(logp), axis=1)[:, :3]
    np.testing.assert_array_equal(few.top_tokens, best)
    np.testing.assert_allclose(few.top_logp, np.take_along_axis(np.asarray(logp), best, 1), atol=1e-5)
    np.testing.assert_allclose(few.hidden, hidden[0, len(prompt) - 1 : -1], atol=1e-5)
    np.testing.assert_allclose(
        few.logp_untempered, np.take_along_axis(np.asarray(logp), few.tokens[:, None], 1)[:, 0], atol=1e-5
    )
    with pytest.raises(UserError, match=r"engine\.top_logprobs=6"):
        engine.generate([Request(id=0, prompt=prompt, top_logprobs=6)], 7)


# --- groups ---


def lengths_before(completions: list[Completion], token: int) -> list[int | None]:
    found = [np.flatnonzero(c.tokens == token) for c in completions]
    return [int(f[0]) if len(f) else None for f in found]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slots", [16, 3], ids=lambda n: f"{n} slots")
@pytest.mark.parametrize("count", [1, 3])
def test_a_group_ends_by_length_whatever_waits(count, slots, layout):
    """The count shortest go on to their end; all others are cut at T, the length of the last of them (short-m@k, section 2)."""
    engine = plain(layout, slots=slots)
    close, samples = 5, 10
    for number, prompt in enumerate(prompts(6, seed=6)):
        request = Request(id=number, prompt=prompt, samples=samples, ignore_stop=True)
        free = engine.generate([request], 4)
        group = engine.generate([dataclasses.replace(request, group=GroupStop(token=close, count=count))], 4)
        lengths = lengths_before(free, close)
        closed = sorted((n, s) for s, n in enumerate(lengths) if n is not None)
        if len(closed) < count:
            assert [c.finish_reason for c in group] == ["length"] * samples
            continue
        longest, chosen = closed[count - 1][0], {s for _, s in closed[:count]}
        for s in range(samples):
            if s in chosen:
                assert group[s].tokens.tolist() == free[s].tokens.tolist()
                assert group[s].finish_reason == "length"
            else:
                assert group[s].finish_reason == "group"
                tie = lengths[s] == longest
                assert group[s].tokens.tolist() == free[s].tokens.tolist()[: longest + tie]
        thinking = sum(
            min(len(c.tokens), n) if n is not None else len(c.tokens) for c, n in zip(group, lengths, strict=True)
        )
        assert thinking == sum(min(10 if n is None else n, longest) for n in lengths)  # the card's sum of min(l_i, T)
    engine._device.memory.check()
    assert engine.stats.free_slots == slots


# --- damage ---


def test_nan_weights_are_an_error_that_names_the_version_and_leave_the_engine_usable():
    engine = Engine(small_model(), CONFIG)
    good = nnx.state(small_model())
    before = engine.generate([Request(id=0, prompt=[2, 3], samples=20)], 0)
    engine.load(jax.tree.map(lambda x: x * jnp.nan, good), version=17)
    with pytest.raises(FloatingPointError, match="version 17"):
        engine.generate([Request(id=0, prompt=[2, 3], samples=20)], 0)
    assert (engine.idle, engine.stats.free_slots, engine._book.tickets) == (True, 16, {})
    engine.load(good, version=18)
    after = engine.generate([Request(id=0, prompt=[2, 3], samples=20)], 0)
    assert [c.tokens.tolist() for c in after] == [c.tokens.tolist() for c in before]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_request_reaches_neither_its_neighbours_nor_who_gets_its_slot(layout):
    model = wide(DecoderConfig(**{**MODEL.__dict__, "tied": False}))
    graphdef, state = nnx.split(model)
    state["embedding"].set_value(state["embedding"][...].at[33].set(jnp.nan))  # who reads token 33 is lost
    config = dataclasses.replace(CONFIG, **LAYOUTS[layout], slots=3)
    engine = Engine(nnx.merge(graphdef, state), config)
    asked = [
        Request(id=i, prompt=p, ignore_stop=True) for i, p in enumerate([[4, 33, 6, 7], [5, 6], [8, 9, 10], [33, 4]])
    ]
    found = {}
    tickets = [engine.submit(r, 0) for r in (*asked, *asked)]
    while not engine.idle:
        for update in engine.step():
            if update.completion is not None:
                found[update.ticket] = update.completion
    want = Engine(wide(DecoderConfig(**{**MODEL.__dict__, "tied": False})), config).generate(asked, 0)
    for number, ticket in enumerate(tickets):
        good = want[number % 4].tokens.tolist()
        if number % 4 in (0, 3):
            assert (found[ticket].finish_reason, len(found[ticket].tokens)) == ("error", 0)
            assert "NaN" in found[ticket].error
        else:
            until = good.index(33) + 1 if 33 in good else len(good)  # it may say token 33 itself
            assert found[ticket].tokens.tolist() == good[:until]
    assert engine.stats.free_slots == 3


def test_a_full_queue_refuses_and_keeps_what_it_has():
    engine = plain(slots=2, max_queue=3)
    tickets = [engine.submit(Request(id=i, prompt=[3, 4]), 0) for i in range(5)]  # two seats, three wait
    with pytest.raises(QueueFull, match="max_queue=3"):
        engine.submit(Request(id=9, prompt=[3, 4]), 0)
    done = set()
    while not engine.idle:
        done |= {u.ticket for u in engine.step() if u.completion is not None}
    assert done == set(tickets)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"min_tokens": 11, "max_tokens": 10}, "Use 0 to 10"),
        ({"stop": "text"}, "Give a tuple of texts"),
        ({"stop_tokens": (40,)}, "from 0 to 39"),
        ({"stop_tokens": tuple(range(2, 12))}, "max_stop_tokens=11"),
        ({"group": GroupStop(token=5, count=2)}, "Use a count from 1 to 1"),
        ({"hold": True}, "submit"),
        ({"stop": ["x"]}, "Give a tuple of texts"),
        ({"temperature": 1e39}, "up to 1e30"),
        ({"samples": 2, "group": GroupStop(token=40, count=1)}, "group.token=40"),
    ],
)
def test_requests_that_cannot_run_say_what_to_type(change, advice):
    with pytest.raises(UserError, match=advice):
        plain().generate([dataclasses.replace(Request(id=0, prompt=[2, 3]), **change)], 0)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"slots": 0}, "slots=0"),
        ({"max_length": 1}, "at least 2"),
        ({"layout": "heap"}, "slots, paged"),
        ({"cache_bytes": 100}, "Set cache_bytes="),
        ({"cache_bytes": 100, "layout": "paged"}, "Set cache_bytes="),
        ({"stop_tokens": tuple(range(9))}, "max_stop_tokens=9"),
        ({"top_logprobs": 41}, "40 tokens of the model"),
    ],
)
def test_sizes_that_cannot_work_say_what_to_type(change, advice):
    with pytest.raises(UserError, match=advice):
        Engine(small_model(), dataclasses.replace(CONFIG, **change))


def test_a_budget_in_bytes_decides_how_many_run():
    engine = plain()
    each = engine._device.cache_bytes(1, CONFIG.capacity)
    small = Engine(small_model(), dataclasses.replace(CONFIG, cache_bytes=3 * each + 7))
    assert small.stats.slots == 3
    asked = [Request(id=i, prompt=p, samples=2) for i, p in enumerate(prompts(5, seed=7))]
    assert [c.tokens.tolist() for c in small.generate(asked, 1)] == [
        c.tokens.tolist() for c in engine.generate(asked, 1)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupt_in_a_call_that_took_the_cache_leaves_the_engine_usable(layout, monkeypatch):
    engine = Engine(small_model(), dataclasses.replace(CONFIG, **LAYOUTS[layout]))
    asked = [Request(id=i, prompt=p, samples=3) for i, p in enumerate(prompts(8, seed=9))]
    before = engine.generate(asked, 1)
    long = Request(id=70, prompt=[4, 5, 6], max_tokens=9, ignore_stop=True)
    (whole,) = engine.generate([long], 2)
    held = engine.submit(dataclasses.replace(long, max_tokens=3, hold=True), 2)
    while not engine.idle:
        engine.step()
    compiled, calls = engine._device._decode, []

    def interrupted(*args):
        calls.append(compiled(*args))  # the cache is given away, and what came back is lost
        if len(calls) == 2:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(engine._device, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(asked, 1)
    assert (engine.idle, engine.stats.free_slots, list(engine._book.tickets)) == (True, 15, [held])
    after = engine.generate(asked, 1)
    assert [c.tokens.tolist() for c in after] == [c.tokens.tolist() for c in before]
    engine.resume(held, 0, max_tokens=6)  # its cache was lost too: it is read again
    ends = [u.completion for _ in range(6) for u in engine.step() if u.completion is not None]
    assert [c.tokens.tolist() for c in ends] == [whole.tokens.tolist()]
    engine.release(held, 0)
    assert engine.stats.free_slots == 16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_step_can_be_followed_by_the_next(layout, monkeypatch):
    engine = Engine(small_model(), dataclasses.replace(CONFIG, **LAYOUTS[layout]))
    asked = [Request(id=i, prompt=p, samples=2) for i, p in enumerate(prompts(6, seed=10))]
    want = engine.generate(asked, 1)
    tickets = [engine.submit(request, 1) for request in asked]
    engine.step()
    compiled = engine._device._decode

    def interrupted(*args):
        compiled(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._device, "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    found = {}
    while not engine.idle:
        found |= {(u.ticket, u.sample): u.completion for u in engine.step() if u.completion is not None}
    # Completions of the first step were given then.
    for (ticket, sample), completion in found.items():
        assert completion.tokens.tolist() == want[2 * tickets.index(ticket) + sample].tokens.tolist()
    assert len(found) > 6


def test_scores_refuse_a_bad_token_wherever_it_stands():
    for text in ([2] * 21 + [99_999], [99_999, 2], [2, -1]):
        with pytest.raises(UserError, match="the model has tokens 0 to 39"):
            plain().score([[2, 3], text])
    with pytest.raises(UserError, match=r"text 0 has 23 tokens"):
        plain().score([[2] * 23])
