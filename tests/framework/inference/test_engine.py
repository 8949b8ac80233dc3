"""The engine against naive recomputation, and against the trainer's log-probabilities."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_parts import CONFIG, naive_greedy, prompts, small_model
from flax import nnx

from framework.errors import UserError
from framework.inference import Engine, Request
from framework.mesh import MeshConfig, shard_tree
from rl.batch import make_batch, response_logprobs


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def engine(model):
    return Engine(model, CONFIG)


def test_greedy_equals_full_recompute_for_ragged_prompts(model, engine):
    asked = prompts(7)
    got = engine.generate([Request(id=i, prompt=p, temperature=0.0) for i, p in enumerate(asked)], jax.random.key(0))
    assert [c.tokens.tolist() for c in got] == [naive_greedy(model, p, 10) for p in asked]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_and_entropy_are_those_of_the_trainer(model, engine, temperature):
    asked = prompts(8, seed=1)
    requests = [Request(id=i, prompt=p, samples=4, temperature=temperature) for i, p in enumerate(asked)]
    out = engine.generate(requests, jax.random.key(3))
    batch = make_batch(
        [p for p in asked for _ in range(4)], [c.tokens for c in out], prompt_length=12, response_length=10
    )
    logp, entropy = response_logprobs(model, batch, temperature=temperature)
    for row, completion in enumerate(out):
        n = len(completion.tokens)
        np.testing.assert_allclose(completion.logp, logp[row, :n], atol=1e-5)  # asked for: 1e-4
        np.testing.assert_allclose(completion.entropy, entropy[row, :n], atol=1e-5)
    assert np.concatenate([c.logp for c in out]).min() < -2, "too peaked a model would prove nothing"


def test_tokens_of_a_request_do_not_depend_on_what_else_runs(engine):
    asked = [Request(id=100 + i, prompt=p, samples=4) for i, p in enumerate(prompts(9, seed=2))]
    key = jax.random.key(5)
    together = engine.generate(asked, key)
    turned = engine.generate(asked[::-1], key)
    for i, request in enumerate(asked):
        alone = engine.generate([request], key)
        for s in range(4):
            want = together[4 * i + s].tokens.tolist()
            assert alone[s].tokens.tolist() == want
            assert turned[4 * (len(asked) - 1 - i) + s].tokens.tolist() == want


def test_samples_of_a_group_differ_and_are_those_of_a_smaller_group(engine):
    prompt = prompts(1, seed=3)[0]
    group = engine.generate([Request(id=7, prompt=prompt, samples=4)], jax.random.key(1))
    three = engine.generate([Request(id=7, prompt=prompt, samples=3)], jax.random.key(1))
    assert [c.tokens.tolist() for c in group[:3]] == [c.tokens.tolist() for c in three]
    assert len({tuple(c.tokens.tolist()) for c in group}) > 1
    assert [c.sample for c in group] == [0, 1, 2, 3]


def test_stop_tokens_end_a_row_and_limits_are_kept(engine):
    out = engine.generate(
        [Request(id=i, prompt=p, samples=4, max_tokens=5) for i, p in enumerate(prompts(12, seed=4))], jax.random.key(2)
    )
    for completion in out:
        tokens = completion.tokens.tolist()
        assert 1 <= len(tokens) <= 5
        assert 1 not in tokens[:-1]
        assert completion.finish_reason == ("stop" if tokens[-1] == 1 else "length")
        assert completion.finish_reason == "stop" or len(tokens) == 5
        assert len(completion.logp) == len(completion.entropy) == len(tokens)


def test_sampled_frequencies_are_those_of_the_softmax(model, engine):
    prompt = prompts(1, seed=6)[0]
    hidden, _ = model(jnp.array([prompt]), jnp.arange(len(prompt))[None])
    p = np.asarray(jax.nn.softmax(hidden[0, -1] @ model.unembed / 0.7), np.float64)
    out = engine.generate(
        [Request(id=i, prompt=prompt, samples=4, temperature=0.7, max_tokens=1) for i in range(500)], jax.random.key(9)
    )
    counts = np.bincount([int(c.tokens[0]) for c in out], minlength=40)
    chi2 = float((((counts - 2000 * p) ** 2) / (2000 * p)).sum())
    assert chi2 < 85, chi2  # 39 degrees of freedom: 85 is exceeded once in 30,000 seeds


def test_nothing_to_do_gives_nothing(engine):
    assert engine.generate([], jax.random.key(0)) == []


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"prompt": []}, "empty prompt"),
        ({"prompt": list(range(22))}, "engine.max_length=32"),
        ({"samples": 0}, "at least 1"),
        ({"max_tokens": 21}, "at most 20, or set engine.max_length=23"),
        ({"temperature": -1.0}, "0 for greedy"),
        ({"temperature": float("nan")}, "0 for greedy"),
        ({"prompt": [2, 40]}, r"token 40 at place 1 of its prompt, but the model has tokens 0 to 39"),
        ({"prompt": [-1, 2]}, r"token -1 at place 0"),
        ({"prompt": [2.0, 3.0]}, r"not a list of whole numbers: \[2\.0, 3\.0\]\. Give token ids from 0 to 39"),
        ({"prompt": "text"}, "not a list of whole numbers: text"),
        ({"prompt": [[2], [3, 4]]}, "not a list of whole numbers"),
        ({"id": -1}, r"id=-1.* from 0 to 4294967295"),
        ({"id": 2**32}, "id=4294967296"),
        ({"id": 1.5}, "id=1.5"),
    ],
)
def test_requests_that_cannot_run_say_what_to_type(engine, change, advice):
    request = dataclasses.replace(Request(id=0, prompt=[2, 3]), **change)
    with pytest.raises(UserError, match=advice):
        engine.generate([request], jax.random.key(0))


def test_the_first_and_last_of_ids_and_tokens_run(engine):
    asked = [Request(id=i, prompt=np.array([0, 39]), max_tokens=1) for i in (0, np.int64(7), 2**32 - 1)]
    assert len(engine.generate(asked, jax.random.key(0))) == 3


def test_nan_weights_are_an_error_that_names_the_version(model):
    engine = Engine(model, CONFIG)
    engine.load(jax.tree.map(lambda x: x * jnp.nan, nnx.state(model)), version=17)
    with pytest.raises(FloatingPointError, match="version 17"):
        engine.generate([Request(id=0, prompt=[2, 3])], jax.random.key(0))


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8}], ids=str)
def test_a_sharded_engine_samples_what_one_device_samples(model, engine, shape):
    mesh = MeshConfig(**shape).build()  # with data=8 there are fewer prompts in a call than devices
    graphdef, params = nnx.split(model)
    sharded = Engine(nnx.merge(graphdef, jax.device_put(params, shard_tree(mesh, params))), CONFIG, mesh=mesh)
    asked = [Request(id=i, prompt=p, samples=4) for i, p in enumerate(prompts(4, seed=8))]
    got, want = (e.generate(asked, jax.random.key(4)) for e in (sharded, engine))
    assert [c.tokens.tolist() for c in got] == [c.tokens.tolist() for c in want]
    chex.assert_trees_all_close([c.logp for c in got], [c.logp for c in want], atol=1e-5)
