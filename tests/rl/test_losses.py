"""What holds for every policy loss: on padding, on bad numbers, under splits and on eight devices."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rl.losses import (
    ClipCov,
    Clipped,
    KLCov,
    Unclipped,
    clip_cov_loss,
    clipped_loss,
    kl_cov_loss,
    pg_loss,
)

CONFIGS = {
    "unclipped": Unclipped(entropy_coef=0.01),
    "clipped": Clipped(eps_hi=0.28),
    "clip_cov": ClipCov(frac=0.1, band="quantile", w_low=0.5, w_high=1.0),
    "kl_cov": KLCov(frac=0.1, beta=0.7, entropy_coef=0.01),
}


def batch(seed: int = 0, rows: int = 24, length: int = 12) -> tuple[np.ndarray, ...]:
    """Random logp, old_logp, adv, mask [rows, length]: off-policy, responses of 0 to `length` tokens."""
    rng = np.random.default_rng(seed)
    old = -rng.gamma(1.0, 1.0, (rows, length))
    logp = np.minimum(old + 0.3 * rng.normal(size=old.shape), 0.0)
    adv = np.repeat(rng.normal(size=(rows, 1)), length, axis=1)
    mask = np.arange(length) < rng.integers(0, length + 1, (rows, 1))
    return tuple(x.astype(np.float32) for x in (logp, old, adv, mask))


@functools.cache
def runner(name: str):
    """jit of: pick on the batch, then loss, metrics and gradient with respect to logp."""
    loss = CONFIGS[name].build()

    @jax.jit
    def run(key, logp, old, adv, mask):
        picked, pick_metrics = loss.pick(key, logp, old, adv, mask)

        def objective(logp):
            return loss.loss(logp, old, adv, mask, picked=picked, denom=mask.sum(), entropy=jnp.abs(logp))

        (value, metrics), grad = jax.value_and_grad(objective, has_aux=True)(logp)
        return value, grad, picked, metrics | pick_metrics

    return run


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_reaches_neither_loss_nor_gradient_nor_pick(name):
    arrays = batch()
    dirty = [np.where(arrays[3] > 0, x, np.nan).astype(np.float32) for x in arrays[:3]]
    clean = runner(name)(jax.random.key(0), *arrays)
    for got, want in zip(
        jax.tree.leaves(runner(name)(jax.random.key(0), *dirty, arrays[3])), jax.tree.leaves(clean), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    assert not np.any(np.asarray(clean[1])[arrays[3] == 0])


@pytest.mark.parametrize("name", CONFIGS)
@hypothesis.given(
    value=st.sampled_from([1e30, -1e30, 1e4, -1e4, 3e38, np.inf, -np.inf, np.nan]), seed=st.integers(0, 99)
)
@hypothesis.settings(max_examples=10, deadline=None)
def test_padding_is_never_picked_whatever_it_holds(name, value, seed):
    logp, old, adv, mask = batch(seed)
    logp, adv = np.where(mask > 0, logp, value), np.where(mask > 0, adv, -value)
    _, grad, picked, _ = runner(name)(jax.random.key(seed), logp.astype(np.float32), old, adv.astype(np.float32), mask)
    assert not np.any(np.asarray(picked)[mask == 0])
    assert not np.any(np.asarray(grad)[mask == 0])


@pytest.mark.parametrize("name", CONFIGS)
def test_an_empty_mask_gives_zero_and_picks_nothing(name):
    logp, old, adv, mask = batch()
    value, grad, picked, metrics = runner(name)(jax.random.key(0), logp, old, adv, 0 * mask)
    assert value == 0
    assert not any(np.any(x) for x in (grad, picked, *metrics.values()))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_nan_on_a_real_token_shows_in_the_loss(name):
    logp, old, adv, mask = batch()
    logp[np.argmax(mask[:, 0]), 0] = np.nan
    assert np.isnan(runner(name)(jax.random.key(0), logp, old, adv, mask)[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_huge_log_ratio_stays_finite(name):
    logp, old, adv, mask = batch()
    value, grad, *_ = runner(name)(jax.random.key(0), logp, old - 200, adv, mask)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


@functools.cache
def part_runner(name: str):
    """jit of: loss, metrics and gradient of some rows of a batch of `denom` tokens."""
    loss = CONFIGS[name].build()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(logp, old, adv, mask, picked, denom):
        return loss.loss(logp, old, adv, mask, picked=picked, denom=denom, entropy=jnp.abs(logp))

    return run


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cuts", [(8,), (8, 16)], ids=str)
def test_microbatches_add_up_to_the_batch(name, cuts):
    arrays = batch()
    value, grad, picked, metrics = runner(name)(jax.random.key(0), *arrays)
    rows = zip(*(np.split(np.asarray(x), cuts) for x in (*arrays, picked)), strict=True)
    parts = [part_runner(name)(*row, arrays[3].sum()) for row in rows]
    np.testing.assert_allclose(sum(v for (v, _), _ in parts), value, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), grad, atol=1e-6)
    for key in parts[0][0][1]:
        np.testing.assert_allclose(sum(m[key] for (_, m), _ in parts), metrics[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", CONFIGS)
def test_eight_devices_give_the_numbers_of_one(name):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices; tests/conftest.py makes them on CPU")
    rows = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data"))
    one = runner(name)(jax.random.key(3), *batch())
    eight = runner(name)(jax.random.key(3), *(jax.device_put(x, rows) for x in batch()))
    np.testing.assert_array_equal(one[2], eight[2])
    for got, want in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_nothing_picked_leaves_the_plain_losses():
    arrays, none = batch(), np.zeros((24, 12), bool)
    for picking, plain in (
        (kl_cov_loss, pg_loss),
        (clip_cov_loss, functools.partial(clipped_loss, eps_lo=1.0, eps_hi=1.0)),
    ):
        np.testing.assert_allclose(jax.jit(picking)(*arrays, picked=none)[0], jax.jit(plain)(*arrays)[0], rtol=1e-6)


def test_entropy_bonus_pays_for_entropy():
    logp, old, adv, mask = batch()
    plain, paid = Unclipped().build(), Unclipped(entropy_coef=0.5).build()
    entropy = np.full_like(mask, 2.0)
    value, metrics = paid.loss(logp, old, adv, mask, entropy=entropy)
    np.testing.assert_allclose(value, plain.loss(logp, old, adv, mask)[0] - 1.0, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/entropy_bonus"], 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="Pass entropy="):
        paid.loss(logp, old, adv, mask)
