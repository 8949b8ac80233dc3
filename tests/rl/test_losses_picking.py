"""Choosing tokens: exact numbers of them, reproducibly, in the band that was asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl.covariance import token_covariance
from rl.losses import clip_cov_pick, kl_cov_pick
from rl.losses.picking import rank_threshold, share_of, top_n


def batch(rows: int = 40, length: int = 25, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    logp = -rng.gamma(1.0, 1.0, (rows, length))
    adv = rng.normal(size=(rows, length))
    mask = np.arange(length) < rng.integers(1, length + 1, (rows, 1))
    return logp.astype(np.float32), logp.astype(np.float32), adv.astype(np.float32), mask


@pytest.mark.parametrize("frac", [0.29, 0.002, 0.2, 2e-4, 0.1, 0.3, 1 / 3, 0.0, 1.0, 1e-9])
def test_the_share_of_a_count_is_pythons_for_every_count_to_a_million(frac):
    size = 1_000_000
    counts = np.unique(np.concatenate([np.arange(3000), np.random.default_rng(0).integers(0, size, 20_000), [size]]))
    got = jax.jit(jax.vmap(lambda n: share_of(n, frac, size=size)))(counts)
    np.testing.assert_array_equal(got, [int(int(n) * frac) for n in counts])


def test_float64_rounding_of_the_share_is_kept():
    # int(100 * 0.29) is 28 and int(10 * 0.3) is 3, although 0.29 and 0.3 are both stored too small.
    assert share_of(jnp.array(100), 0.29, size=100) == int(100 * 0.29) == 28
    assert share_of(jnp.array(10), 0.3, size=10) == int(10 * 0.3) == 3


def test_top_n_takes_exactly_n_of_equal_scores():
    eligible = jnp.array([[True, False, True, True]] * 3)
    taken = jax.jit(lambda n: top_n(jnp.ones((3, 4)), eligible, n, n_max=12).sum())
    assert [taken(n) for n in range(12)] == [min(n, 9) for n in range(12)]


def test_rank_threshold_counts_tokens():
    x, valid = jnp.arange(20.0).reshape(4, 5)[::-1], jnp.arange(20).reshape(4, 5) % 2 == 0
    for share in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert jnp.sum((x <= rank_threshold(x, valid, share)) & valid) == int(10 * share)


@pytest.mark.parametrize("frac", [0.002, 0.05, 0.29, 1.0])
def test_kl_cov_takes_the_largest_covariances(frac):
    logp, _, adv, mask = batch()
    picked, metrics = jax.jit(functools.partial(kl_cov_pick, frac=frac))(logp, adv, mask)
    cov = np.asarray(token_covariance(logp, adv, mask))
    n = max(1, int(int(mask.sum()) * frac))
    assert picked.sum() == n
    np.testing.assert_array_equal(np.sort(cov[np.asarray(picked)]), np.sort(cov[mask])[-n:])
    np.testing.assert_allclose(metrics["policy/picked_frac"], n / mask.sum(), rtol=1e-6)


def test_kl_cov_with_a_share_of_zero_takes_nothing():
    logp, _, adv, mask = batch()
    assert not kl_cov_pick(logp, adv, mask, frac=0.0)[0].any()


def test_clip_cov_is_a_function_of_its_key():
    pick = jax.jit(functools.partial(clip_cov_pick, frac=0.05, w_low=0.0, w_high=9.0))
    first, again, other = (np.asarray(pick(jax.random.key(k), *batch())[0]) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.sum() == other.sum() == int(int(batch()[3].sum()) * 0.05)


def test_clip_cov_draws_every_eligible_token_equally_often():
    logp, old, adv, mask = batch(rows=2, length=20, seed=3)
    mask = np.ones_like(mask)
    adv[:, ::2] = 0.0
    few = functools.partial(clip_cov_pick, frac=0.25, w_low=0.5, w_high=1.0, band="quantile")
    pick = jax.jit(jax.vmap(few, in_axes=(0, None, None, None, None)))
    picked, _ = pick(jax.random.split(jax.random.key(0), 2000), logp, old, adv, mask)  # 10 of 20 eligible
    often = np.asarray(picked).mean(axis=0)
    np.testing.assert_allclose(often[often > 0], 0.5, atol=0.06)  # 5 standard errors of 2000 draws
    assert (often > 0).sum() == 20


def test_the_absolute_band_is_open_at_both_ends():
    logp, old, adv, mask = batch()
    cov = np.asarray(token_covariance(logp, adv, mask))
    low, high = np.quantile(cov[mask], [0.4, 0.8], method="nearest")  # values that occur
    pick = jax.jit(functools.partial(clip_cov_pick, frac=1.0, w_low=float(low), w_high=float(high)))
    picked, metrics = pick(jax.random.key(0), logp, old, adv, mask)
    np.testing.assert_array_equal(picked, mask & (low < cov) & (cov < high))
    assert metrics["policy/eligible"] == picked.sum()


def test_the_quantile_band_includes_the_largest_token():
    logp, old, adv, mask = batch()
    cov, count = np.asarray(token_covariance(logp, adv, mask)), int(mask.sum())
    picked, _ = clip_cov_pick(jax.random.key(0), logp, old, adv, mask, frac=1.0, band="quantile", w_low=0.9, w_high=1.0)
    assert picked.sum() == count - int(0.9 * count)
    np.testing.assert_array_equal(np.sort(cov[np.asarray(picked)]), np.sort(cov[mask])[int(0.9 * count) :])


def test_an_empty_band_picks_nothing_although_at_least_one_is_allowed():
    pick = jax.jit(functools.partial(clip_cov_pick, frac=0.5, w_low=1e6, w_high=1e7))
    picked, metrics = pick(jax.random.key(0), *batch())
    assert not picked.any()
    assert metrics["policy/eligible"] == 0
