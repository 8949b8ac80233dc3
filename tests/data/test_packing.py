"""A packed batch is a function of (seed, step), holds every example once an epoch, and its loss is that of the examples alone."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from data.packing import packed_stream
from framework.batch import TokenBatch, TokenExample
from framework.errors import UserError
from kernels_pallas.logprob import token_logprobs
from models.decoder import DecoderConfig


def example(size: int, first: int = 1, learnt: int = 1) -> TokenExample:
    """Tokens first, first + 1, ..; the last `learnt` are learnt."""
    return TokenExample(np.arange(first, first + size, dtype=np.int32), np.arange(size) >= size - learnt)


def ragged(count: int, longest: int, seed: int = 0) -> list[TokenExample]:
    """Examples with tokens of their own, so that a batch tells which ones it holds."""
    sizes = np.random.default_rng(seed).integers(2, longest + 1, count)
    return [example(int(size), first=1 + 1000 * i, learnt=int(size) // 2) for i, size in enumerate(sizes)]


def held(batch: TokenBatch) -> list[TokenExample]:
    """The segments of a batch, taken apart again."""
    found = []
    for tokens, segments, mask in zip(batch.tokens, batch.segment_ids, batch.mask, strict=True):
        for segment in range(1, int(segments.max()) + 1):
            here = np.asarray(segments) == segment
            found.append(TokenExample(np.asarray(tokens)[here], np.asarray(mask)[here] > 0))
    return found


def same(a: TokenBatch, b: TokenBatch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=1, max_size=25),
    rows=st.integers(1, 7),
    packing=st.booleans(),
    seed=st.integers(-5, 5),
)
def test_every_example_is_used_exactly_once_in_every_epoch(sizes, rows, packing, seed):
    examples = [example(size, first=1 + 100 * i) for i, size in enumerate(sizes)]
    stream = packed_stream(examples, rows, 12, seed, packing=packing)
    per_epoch = stream.stats.rows
    # As many steps as make whole epochs: rows of the stream, epoch after epoch, are the rows of the batches in turn.
    batches = [stream[step] for step in range(per_epoch)]
    lines = [(np.asarray(batch.tokens)[i], np.asarray(batch.segment_ids)[i]) for batch in batches for i in range(rows)]
    for epoch in range(rows):
        seen = []
        for tokens, segments in lines[epoch * per_epoch : (epoch + 1) * per_epoch]:
            seen += [tokens[segments == s].tolist() for s in range(1, segments.max() + 1)]
        assert sorted(seen) == [e.tokens.tolist() for e in examples]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 30), min_size=1, max_size=20),
    rows=st.integers(1, 4),
    packing=st.booleans(),
    step=st.integers(0, 10**12),
)
def test_a_batch_keeps_the_contract(sizes, rows, packing, step):
    """Segments 1, 2, .. without gaps, positions from 0 in each, zeros on padding, no first token learnt, something learnt."""
    examples = [TokenExample(np.full(size, 7, np.int32), np.ones(size, bool)) for size in sizes]
    batch = packed_stream(examples, rows, 16, 0, packing=packing)[step]
    for name, dtype in (("tokens", np.int32), ("positions", np.int32), ("segment_ids", np.int32), ("mask", np.float32)):
        array = getattr(batch, name)
        assert array.shape == (rows, 16)
        assert array.dtype == dtype
    for tokens, positions, segments, mask in zip(*(np.asarray(x) for x in jax.tree.leaves(batch)), strict=True):
        used = int((segments > 0).sum())
        assert used
        assert not any(array[used:].any() for array in (segments, tokens, mask, positions))
        new = np.diff(segments[:used], prepend=0)
        assert set(new.tolist()) <= {0, 1}
        starts = np.flatnonzero(new)
        assert packing or len(starts) == 1
        assert positions[:used].tolist() == [i - starts[starts <= i][-1] for i in range(used)]
        assert (
            mask[:used].tolist() == (1.0 - new).tolist()
        )  # all tokens were to be learnt, the first of a segment cannot


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "alone"])
def test_a_batch_is_a_function_of_seed_and_step_and_far_steps_replay_nothing(packing):
    examples = ragged(60, 20)
    stream = packed_stream(examples, 4, 24, 3, packing=packing)
    forward = [stream[step] for step in range(12)]
    again = packed_stream(examples, 4, 24, 3, packing=packing)
    assert all(same(again[step], forward[step]) for step in reversed(range(12)))
    began = time.monotonic()
    assert same(stream[10**15], again[10**15])
    assert time.monotonic() - began < 1.0  # some ten million epochs on; one epoch is planned in a millisecond
    assert not same(stream[0], packed_stream(examples, 4, 24, 4, packing=packing)[0])
    assert not same(packed_stream(examples, 4, 24, 1)[0], packed_stream(examples, 4, 24, -1)[0])


def test_each_epoch_has_another_order_and_other_neighbours():
    stream = packed_stream(ragged(400, 30), 1, 64, 0)
    rows = stream.stats.rows

    def company(epoch: int) -> list[frozenset[int]]:
        return [frozenset(stream.examples_of(step, 0).tolist()) for step in range(epoch * rows, (epoch + 1) * rows)]

    first, second = company(0), company(1)
    assert first != second
    assert len(set(first) & set(second)) < rows / 4  # examples of a length change places


def test_packing_fills_rows_and_says_how_full_they_are():
    examples = ragged(2000, 100)
    packed, alone = packed_stream(examples, 8, 128, 0).stats, packed_stream(examples, 8, 128, 0, packing=False).stats
    assert packed.tokens == alone.tokens == sum(len(e.tokens) for e in examples)
    assert packed.rows == -(-packed.tokens // 128)  # no packing needs fewer rows
    assert packed.efficiency > 0.99 > 0.5 > alone.efficiency
    stream = packed_stream(examples, 8, 128, 0)
    places = [np.mean(np.asarray(stream[step].segment_ids) > 0) for step in range(round(packed.rows / 8))]
    assert np.mean(places) == pytest.approx(
        packed.efficiency, abs=0.01
    )  # the last batch shares a row with the next epoch
    assert packed.metrics()["data/packing_efficiency"] == packed.efficiency
    assert packed.metrics()["data/learnt_frac"] == packed.learnt / packed.tokens
    assert packed.metrics()["data/epoch_steps"] == packed.rows / 8


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=40))
def test_no_two_rows_could_have_been_one(sizes):
    stream = packed_stream([example(size) for size in sizes], 1, 16, 0)
    used = [int((np.asarray(stream[step].segment_ids) > 0).sum()) for step in range(stream.stats.rows)]
    assert sum(used) == sum(sizes)
    assert len(used) == 1 or sum(sorted(used)[:2]) > 16


def test_an_example_longer_than_a_row_is_cut_on_the_right_or_left_out_and_counted():
    examples = [example(6), example(20, first=100, learnt=16), example(20, first=200, learnt=2)]
    stream = packed_stream(examples, 1, 8, 0)
    assert (stream.stats.used, stream.stats.truncated, stream.stats.dropped_unlearnt) == (2, 1, 1)
    assert sorted(e.tokens.tolist() for batch in (stream[0], stream[1]) for e in held(batch)) == [
        [1, 2, 3, 4, 5, 6],
        list(range(100, 108)),
    ]
    assert "1 cut to the length of a row; 1 dropped without a token to learn" in str(stream.stats)
    left = packed_stream(examples, 1, 8, 0, too_long="drop").stats
    assert (left.given, left.used, left.truncated, left.dropped_long) == (3, 1, 0, 2)
    assert left.metrics()["data/dropped"] == 2


def test_one_pass_shows_every_example_once_and_fills_the_last_batch_with_padding():
    examples = ragged(23, 16)
    stream = packed_stream(examples, 4, 16, 0)
    batches = list(stream.one_pass())
    seen = sorted(e.tokens.tolist() for batch in batches for e in held(batch))
    assert seen == [e.tokens.tolist() for e in examples]
    assert all(np.asarray(batch.tokens).shape == (4, 16) for batch in batches)
    assert sum(float(np.sum(batch.mask)) for batch in batches) == stream.stats.learnt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 0}, "rows=0 makes no batch"),
        ({"length": 1}, "length=1 leaves no token to predict"),
        ({"too_long": "wrap"}, "too_long='wrap' is not known"),
        ({"examples": []}, "no examples to train on"),
        (
            {"examples": [example(4, learnt=0)]},
            r"None of 1 examples is left .*1 without a token to learn in their first 8",
        ),
        (
            {"examples": [TokenExample(np.ones(3, np.int32), np.arange(3) == 0)]},
            "None of 1 examples",
        ),  # nothing precedes it
        ({"examples": [example(9)], "too_long": "drop"}, r"1 longer than length=8.* Use length=9"),
        (
            {"examples": [TokenExample(np.ones(3, np.int32), np.ones(2, bool))]},
            r"Example 0 has tokens \[3\] and learn \[2\]",
        ),
    ],
)
def test_what_makes_no_batch_says_what_to_type(change, said):
    given_ = {"examples": [example(4)], "rows": 2, "length": 8, "seed": 0} | change
    with pytest.raises(ValueError, match=said):
        packed_stream(**given_)
    with pytest.raises(IndexError, match="step=-1"):
        packed_stream([example(4)], 2, 8, 0)[-1]


def test_mistakes_of_a_person_are_user_errors():
    with pytest.raises(UserError):
        packed_stream([], 2, 8, 0)


def test_a_hundred_thousand_examples_are_planned_in_seconds():
    sizes = np.clip(np.random.default_rng(0).lognormal(5.3, 0.9, 100_000).astype(int), 4, 4096)
    examples = [TokenExample(np.ones(size, np.int32), np.arange(size) > 1) for size in sizes]
    began = time.monotonic()
    stream = packed_stream(examples, 16, 4096, 0)
    stream[0], stream[10**9]
    assert time.monotonic() - began < 10  # about one second on a quiet machine
    assert stream.stats.efficiency > 0.999


MODEL = DecoderConfig(vocab_size=48, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)


def test_packed_loss_and_gradient_equal_those_of_the_examples_alone():
    rng = np.random.default_rng(1)
    examples = [
        TokenExample(rng.integers(1, 48, size).astype(np.int32), rng.random(size) < 0.6)
        for size in rng.integers(4, 20, 24)
    ]
    graphdef, params = nnx.split(MODEL.build(jax.random.key(0)))

    @jax.jit
    @jax.value_and_grad
    def loss(params, batch):
        """The mean negative log-likelihood of the learnt tokens."""
        model = nnx.merge(graphdef, params)
        hidden, _ = model(batch.tokens, batch.positions, batch.segment_ids)
        logp, _ = token_logprobs(hidden[:, :-1], model.unembed, batch.tokens[:, 1:])
        return -jnp.sum(jnp.where(batch.mask[:, 1:] > 0, logp, 0.0)) / jnp.sum(batch.mask)

    rows = packed_stream(examples, 1, 32, 0).stats.used
    (packed,) = packed_stream(examples, rows, 32, 0).one_pass()  # as many rows, so that both are one compiled program
    (alone,) = packed_stream(examples, rows, 32, 0, packing=False).one_pass()
    assert np.asarray(packed.segment_ids).max() > 1 == np.asarray(alone.segment_ids).max()
    (a, grad_a), (b, grad_b) = loss(params, packed), loss(params, alone)
    assert float(jnp.abs(a - b)) < 1e-5  # another order of float32 sums; the loss is about 4
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), grad_a, grad_b)
