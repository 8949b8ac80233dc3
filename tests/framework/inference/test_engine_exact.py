"""What must not matter to the tokens of a request: layout, slots, company, order, length of a call, prompts in parts, devices."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
from engine_parts import CONFIG, MODEL, naive_greedy, prompts, small_model, wide
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.inference import Engine, EngineConfig, Request
from framework.mesh import MeshConfig, shard_tree
from models.decoder import DecoderConfig

FAMILIES = {
    "llama": {"qk_norm": False, "tied": False},
    "mistral": {"qk_norm": False, "sliding_window": 4},
    "qwen2": {"qk_norm": False, "qkv_bias": True},
    "qwen3": {},
    "stacked": {"scan": True},
}
LAYOUTS = {"slots": {}, "paged": {"layout": "paged", "page_size": 4}}


def config(layout: str, **changes) -> EngineConfig:
    return dataclasses.replace(CONFIG, **(LAYOUTS[layout] | changes))


@pytest.fixture(scope="module")
def want():
    """Nine requests of three samples, one engine alone at a time is compared with it."""
    return Engine(small_model(), dataclasses.replace(CONFIG, slots=32)).generate(REQUESTS, jax.random.key(5))


REQUESTS = [
    Request(id=100 + i, prompt=p, samples=3, temperature=1.0 if i % 2 else 0.7, top_p=0.9 if i % 3 else 1.0)
    for i, p in enumerate(prompts(9, seed=2))
]


def tokens(completions) -> list[list[int]]:
    return [c.tokens.tolist() for c in completions]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_full_recompute_for_ragged_prompts(family, layout):
    model = wide(DecoderConfig(**{**MODEL.__dict__, **FAMILIES[family]}))
    asked = prompts(7)
    engine = Engine(model, config(layout, slots=4, prefill_tokens=5))  # some prompts come in parts
    got = engine.generate([Request(id=i, prompt=p, temperature=0.0) for i, p in enumerate(asked)], 0)
    assert tokens(got) == [naive_greedy(model, p, 10) for p in asked]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "changes",
    [
        {"slots": 1},
        {"slots": 5, "decode_steps": 1},
        {"slots": 7, "decode_steps": 10},
        {"prefill_tokens": 3},
        {"max_length": 200, "slots": 3},
    ],
    ids=str,
)
def test_sizes_of_the_engine_change_no_token(want, layout, changes):
    got = Engine(small_model(), config(layout, **changes)).generate(REQUESTS, jax.random.key(5))
    assert tokens(got) == tokens(want)
    chex.assert_trees_all_close([c.logp for c in got], [c.logp for c in want], atol=1e-5)


def test_a_pool_too_small_for_all_makes_samples_wait_and_start_again_and_changes_no_token(want):
    bytes_of_page = 2 * 2 * 2 * 8 * 4 * 4  # layers x (keys, values) x heads x width x page x float32
    engine = Engine(small_model(), config("paged", cache_bytes=15 * bytes_of_page))
    assert tokens(engine.generate(REQUESTS, jax.random.key(5))) == tokens(want)
    assert engine.stats.retracted > 0
    engine._device.memory.check()
    assert engine._device.memory.free_pages(0) == 14  # the first page belongs to nobody


_ENGINES: dict[str, Engine] = {}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_request_gives_the_same_tokens_in_any_company_order_and_slot(data):
    layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
    if layout not in _ENGINES:  # an engine keeps what it did before: slots are reused in another order every time
        _ENGINES[layout] = Engine(small_model(), config(layout, slots=6))
    engine = _ENGINES[layout]
    chosen = data.draw(st.lists(st.sampled_from(range(len(REQUESTS))), min_size=1, max_size=6, unique=True))
    late = data.draw(st.integers(0, len(chosen)))
    key = jax.random.key(5)
    found, tickets = {}, {}
    for number in chosen[:late]:
        tickets[engine.submit(REQUESTS[number], key)] = number
    for number in chosen[late:]:
        tickets[engine.submit(dataclasses.replace(REQUESTS[number]), key)] = number
        for update in engine.step():
            if update.completion is not None:
                found[tickets[update.ticket], update.sample] = update.completion.tokens.tolist()
    while not engine.idle:
        for update in engine.step():
            if update.completion is not None:
                found[tickets[update.ticket], update.sample] = update.completion.tokens.tolist()
    assert found == {(n, s): _ALONE(n)[s] for n in chosen for s in range(3)}
    assert engine.stats.free_slots == 6


def _ALONE(number: int, known={}) -> list[list[int]]:  # noqa: B006 - a memory, on purpose
    if number not in known:
        engine = Engine(small_model(), dataclasses.replace(CONFIG, slots=3)) if not known else known["engine"]
        known["engine"] = engine
        known[number] = tokens(engine.generate([REQUESTS[number]], jax.random.key(5)))
    return known[number]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8}], ids=str)
def test_a_sharded_engine_samples_what_one_device_samples(want, shape, layout):
    mesh = MeshConfig(**shape).build()  # with data=8 there are fewer prompts than devices in some rounds
    graphdef, params = nnx.split(small_model())
    model = nnx.merge(graphdef, jax.device_put(params, shard_tree(mesh, params)))
    engine = Engine(model, config(layout, prefill_tokens=8), mesh=mesh)
    got = engine.generate(REQUESTS, jax.random.key(5))
    assert tokens(got) == tokens(want)
    chex.assert_trees_all_close([c.logp for c in got], [c.logp for c in want], atol=1e-5)


def test_weights_go_from_the_trainers_mesh_to_the_engines_own():
    devices = jax.devices()
    training, sampling = MeshConfig(fsdp=4).build(devices[:4]), MeshConfig(data=2, tensor=2).build(devices[4:])
    graphdef, params = nnx.split(small_model())
    trained = jax.device_put(params, shard_tree(training, params))
    engine = Engine(nnx.merge(graphdef, trained), CONFIG, mesh=sampling)
    moved = jax.tree.map(lambda x: x * 0.5, trained)
    with jax.transfer_guard_device_to_host("disallow"):  # nothing of it is read by the host
        engine.load(moved, version=3)
    assert {d for leaf in jax.tree.leaves(engine._device.params) for d in leaf.devices()} == set(devices[4:])
    got = engine.generate(REQUESTS[:2], jax.random.key(5))
    alone = Engine(nnx.merge(graphdef, jax.tree.map(lambda x: x * 0.5, params)), CONFIG)
    assert tokens(got) == tokens(alone.generate(REQUESTS[:2], jax.random.key(5)))
    assert {c.version for c in got} == {3}


def test_weights_on_the_engines_own_devices_are_not_copied():
    graphdef, params = nnx.split(small_model())
    engine = Engine(nnx.merge(graphdef, params), CONFIG)
    engine.load(params, version=1)
    assert all(a is b for a, b in zip(jax.tree.leaves(engine._device.params), jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_of_given_text_are_the_log_probabilities_it_was_sampled_with(layout):
    engine = Engine(small_model(), config(layout))
    asked = prompts(6, seed=11)
    for temperature in (1.0, 0.6):
        out = engine.generate([Request(id=i, prompt=p, temperature=temperature) for i, p in enumerate(asked)], 1)
        scores = engine.score([[*p, *c.tokens] for p, c in zip(asked, out, strict=True)], temperature=temperature)
        for prompt, completion, score in zip(asked, out, scores, strict=True):
            np.testing.assert_allclose(score.logp[len(prompt) - 1 :], completion.logp, atol=1e-5)  # asked for: 1e-4
            if temperature == 1.0:
                np.testing.assert_allclose(score.entropy[len(prompt) - 1 :], completion.entropy, atol=1e-5)
