"""Drawing a token against plain numpy: which tokens may be drawn, how often each is, and what its log-probability is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.inference.sampling import Sampling, draw, row_keys

NO_STOPS = -np.ones((1, 2), np.int32)


def how(rows: int, **given) -> Sampling:
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "minimum": 0}
    kinds = {"top_k": np.int32, "minimum": np.int32}
    return Sampling(**{n: np.full(rows, given.get(n, v), kinds.get(n, np.float32)) for n, v in plain.items()})


run = jax.jit(draw)


def drawn(logits, rows: int = 1, *, seed: int = 0, position: int = 0, stops=NO_STOPS, **settings):
    """`rows` draws from the same logits [V], each with a key of its own."""
    logits = np.broadcast_to(np.asarray(logits, np.float32), (rows, len(logits)))
    base = np.broadcast_to(np.array([0, seed], np.uint32), (rows, 2))
    keys = row_keys(base, np.arange(rows, dtype=np.uint32), np.zeros(rows, np.uint32))
    stops = np.broadcast_to(stops, (rows, np.shape(stops)[1]))
    return run(keys, np.full(rows, position, np.int32), logits, how(rows, **settings), stops)


def numpy_chances(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, forbidden=()):
    """The definition, by sorting, in float64."""
    logits = np.array(logits, np.float64) / temperature
    logits[list(forbidden)] = -np.inf
    p = np.exp(logits - logits.max())
    p /= p.sum()
    if top_k:
        p[p < np.sort(p)[::-1][min(top_k, len(p)) - 1]] = 0
        p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        enough = int(np.argmax(np.cumsum(p[order]) >= top_p * (1 - 1e-9)))
        p[p < p[order[enough]]] = 0
        p /= p.sum()
    p[p < min_p * p.max() * (1 - 1e-6)] = 0
    return p / p.sum()


CASES = {
    "plain": {},
    "hot": {"temperature": 1.7},
    "cold": {"temperature": 0.4},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.7},
    "min-p": {"min_p": 0.2},
    "all": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
}


@pytest.mark.parametrize("vocab", [48, 64, 130], ids=lambda v: f"V={v}")
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_as_frequent_as_they_are_likely(case, vocab):
    logits = np.random.default_rng(vocab).normal(size=vocab) * 2
    p = numpy_chances(logits, **CASES[case])
    n = 20_000
    out = drawn(logits, n, seed=3, **CASES[case])
    counts = np.bincount(out.token, minlength=vocab)
    assert not counts[p == 0].any(), "drew a token that was cut off"
    likely = p * n >= 5  # chi-square holds for cells with a few expected counts; the others are one cell
    expected = np.append(p[likely] * n, p[~likely].sum() * n)
    seen = np.append(counts[likely], counts[~likely].sum())
    keep = expected > 0
    chi2, freedom = (((seen - expected) ** 2)[keep] / expected[keep]).sum(), keep.sum() - 1
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom) + 10, (chi2, freedom)  # exceeded less than once in 100,000 seeds
    logp = np.log(p, where=p > 0, out=np.full(vocab, -np.inf))
    np.testing.assert_allclose(out.logp, logp[out.token], atol=1e-5)  # float32 sums of 130 terms


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 40), st.floats(0.05, 1.0), st.floats(0.0, 1.0), st.floats(0.2, 3.0))
def test_only_tokens_that_are_left_are_drawn(seed, top_k, top_p, min_p, temperature):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=48) * 3, 1)  # rounded: equal ones occur, and are kept or cut together
    out = drawn(logits, 64, seed=seed, top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    top_p, min_p, temperature = (float(np.float32(x)) for x in (top_p, min_p, temperature))
    # A threshold within rounding of a token's own probability may fall on either side: both are right.
    choices = [
        numpy_chances(
            logits, top_k=top_k, top_p=min(top_p * a, 1.0), min_p=min(min_p * b, 1.0), temperature=temperature
        )
        for a in (1 - 1e-5, 1 + 1e-5)
        for b in (1 - 1e-5, 1 + 1e-5)
    ]
    best = min(np.abs(np.exp(np.asarray(out.logp)) - p[out.token]).max() for p in choices)
    assert best < 2e-5


def test_greedy_takes_the_first_of_the_largest_and_gives_the_untempered_probability():
    logits = np.array([0.0, 3.0, 1.0, 3.0])
    out = drawn(logits, temperature=0.0, top_k=1, top_p=0.1)
    assert out.token[0] == 1
    assert out.logp[0] == out.logp_untempered[0] == pytest.approx(3 - np.log(np.exp(logits).sum()), abs=1e-6)


def test_entropy_and_untempered_probability_are_those_of_the_model_whatever_is_cut():
    logits = np.random.default_rng(0).normal(size=48) * 2
    p = numpy_chances(logits)
    for settings_ in CASES.values():
        out = drawn(logits, 8, **settings_)
        np.testing.assert_allclose(out.entropy, -(p * np.log(p)).sum(), atol=1e-5)
        np.testing.assert_allclose(out.logp_untempered, np.log(p)[out.token], atol=1e-5)


def test_stop_tokens_are_not_drawn_before_the_minimum():
    logits = np.zeros(48)
    logits[[3, 7]] = 12.0
    stops = np.array([[7, 3]], np.int32)
    early = drawn(logits, 200, minimum=5, position=4, stops=stops)
    late = drawn(logits, 200, minimum=5, position=5, stops=stops)
    assert not np.isin(early.token, [3, 7]).any()
    np.testing.assert_allclose(early.logp, np.log(1 / 46), atol=1e-5)
    assert np.isin(late.token, [3, 7]).mean() > 0.9
    assert drawn(logits, minimum=1, temperature=0.0, stops=stops).token[0] not in (3, 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_a_damaged_logit_is_marked_and_no_other(bad):
    logits = np.zeros((3, 48), np.float32)
    logits[1, 5] = bad
    keys = row_keys(np.zeros((3, 2), np.uint32), np.arange(3, dtype=np.uint32), np.zeros(3, np.uint32))
    out = run(keys, np.zeros(3, np.int32), logits, how(3), np.repeat(NO_STOPS, 3, 0))
    assert out.finite.tolist() == [True, False, True]


def test_a_token_with_no_probability_is_never_drawn():
    logits = np.full(130, -1e4)  # exp underflows to 0 in most blocks
    logits[[0, 77, 129]] = 0.0
    out = drawn(logits, 3000, seed=1)
    assert set(out.token.tolist()) == {0, 77, 129}


def test_randomness_is_a_function_of_key_request_sample_and_position_alone():
    logits = np.zeros(130)
    many = drawn(logits, 8, seed=5)
    assert [int(drawn(logits, 8, seed=5).token[i]) for i in range(8)] == many.token.tolist()
    for change in ({"seed": 6}, {"position": 1}):
        assert (drawn(logits, 8, **({"seed": 5} | change)).token != many.token).sum() >= 6
    key = np.zeros((2, 2), np.uint32)
    other = row_keys(key, np.array([1, 0], np.uint32), np.array([0, 1], np.uint32))
    assert not jnp.array_equal(jax.random.key_data(other[0]), jax.random.key_data(other[1]))
