"""Policy losses against the numbers of the official code, on padding, under splits and on eight devices."""

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
    clip_cov_pick,
    clipped_loss,
    kl_cov_loss,
    pg_loss,
)

# Arrays on which the official functions of arXiv:2505.22617 were run in float64.
OLD = np.array([[-1.0, -0.5, -2.0], [-0.2, -3.0, -9.0]], np.float32)
LOGP = np.array([[-0.8, -0.5, -2.5], [-0.1, -2.0, -9.0]], np.float32)
ADV = np.array([[1, 1, 1], [-1, -1, 0]], np.float32)
MASK = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
CARD = (LOGP, OLD, ADV, MASK)

CONFIGS = {
    "unclipped": Unclipped(entropy_coef=0.01),
    "clipped": Clipped(eps_hi=0.28),
    "clip_cov": ClipCov(frac=0.1, band="quantile", w_low=0.5, w_high=1.0),
    "kl_cov": KLCov(frac=0.1, beta=0.7, entropy_coef=0.01),
}


def batch(seed: int = 0, rows: int = 16, length: int = 12) -> tuple[np.ndarray, ...]:
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


# Numbers of the official code. Tolerance: 1e-6, a few units in the last place of float32.


def test_ppo_baseline():
    loss, metrics = jax.jit(clipped_loss)(*CARD)
    np.testing.assert_allclose(loss, 0.20338442, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/clip_frac"], 0.2, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/kl_old"], -0.16, atol=1e-6)


def test_kl_cov_with_a_fifth_of_the_tokens():
    loss_of = functools.partial(kl_cov_loss, frac=0.2, beta=1.0)
    (loss, metrics), grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(*CARD)
    np.testing.assert_allclose(loss, 0.39910386, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/abs_log_ratio"], 0.36, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/picked_frac"], 0.2, atol=1e-6)
    np.testing.assert_allclose(grad, [[-0.2443, -0.2, -0.1213], [0.2210, 0.7437, 0]], atol=5e-5)  # printed to 4 digits


def test_kl_cov_with_two_fifths_of_the_tokens():
    loss_of = functools.partial(kl_cov_loss, frac=0.4, beta=0.5)
    (loss, _), grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(*CARD)
    np.testing.assert_allclose(loss, 0.29910387, atol=1e-6)
    np.testing.assert_allclose([grad[1, 1], grad[0, 1]], [0.6437, -0.2], atol=5e-5)  # no penalty at a log-ratio of 0


def test_kl_cov_is_the_policy_gradient_while_the_policy_has_not_moved():
    grads = [jax.jit(jax.grad(lambda x, f=f: f(x, LOGP, ADV, MASK)[0]))(LOGP) for f in (kl_cov_loss, pg_loss)]
    np.testing.assert_array_equal(*grads)


def test_kl_cov_picks_at_least_one_token_unless_the_share_is_zero():
    few, none = (jax.jit(functools.partial(kl_cov_loss, frac=frac))(*CARD)[0] for frac in (0.002, 0.0))
    np.testing.assert_allclose(few, 0.39910386, atol=1e-6)
    np.testing.assert_allclose(none, jax.jit(pg_loss)(*CARD)[0], rtol=1e-6)


CLIP_COV = {"frac": 0.4, "w_low": 0.1, "w_high": 5.0}


def test_clip_cov_with_given_tokens():
    picked = np.array([[True, False, False], [False, True, False]])
    (loss, metrics), grad = jax.value_and_grad(lambda x: clip_cov_loss(x, OLD, ADV, MASK, picked=picked), has_aux=True)(
        LOGP
    )
    np.testing.assert_allclose(loss, -0.10027195, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/picked_frac"], 0.4, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/kl_old"], -0.16, atol=1e-6)
    assert not np.any(grad[picked])
    assert np.all(grad[~picked & (MASK > 0)])


def test_clip_cov_draws_two_of_three_eligible_tokens():
    eligible = np.array([[True, True, False], [False, True, False]])
    pick = jax.jit(functools.partial(clip_cov_pick, **CLIP_COV))
    seen = np.zeros_like(eligible)
    for seed in range(12):
        picked, metrics = pick(jax.random.key(seed), *CARD)
        assert picked.sum() == 2
        assert not np.any(picked & ~eligible)
        assert metrics["policy/eligible"] == 3
        seen |= np.asarray(picked)
    np.testing.assert_array_equal(seen, eligible)


def test_clip_cov_leaves_out_tokens_that_ppo_clips():
    loss_of = functools.partial(clip_cov_loss, **CLIP_COV, clip_lo=0.2, clip_hi=0.2)
    loss, metrics = jax.jit(loss_of)(*CARD, key=jax.random.key(0))
    np.testing.assert_allclose(loss, -0.14027195, atol=1e-6)
    assert metrics["policy/eligible"] == 2


def test_token_level_mean_and_clip_higher():
    # SynLogic, arXiv:2505.19641: responses of 1 and 3 tokens; a mean per response would give 0.
    loss = jax.jit(functools.partial(clipped_loss, eps_lo=0.2, eps_hi=0.28))
    mask, zeros = np.array([[1, 0, 0], [1, 1, 1]]), np.zeros((2, 3))
    np.testing.assert_allclose(loss(zeros, zeros, np.array([[1.0] * 3, [-1.0] * 3]), mask)[0], 0.5)
    one = np.zeros((2, 3))
    one[0, 0] = 1.0
    for adv, ratio, want in [(1, 1.5, 1.28), (1, 0.5, 0.5), (-1, 1.5, -1.5), (-1, 0.5, -0.8)]:
        np.testing.assert_allclose(-loss(np.log(ratio) * one, zeros, adv * one, one)[0], want, rtol=1e-6)


# What holds for every loss.


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


def test_a_nan_shows_in_the_loss_even_on_a_token_whose_loss_is_dropped():
    everything, logp = MASK > 0, LOGP.copy()
    logp[0, 0] = np.nan
    assert np.isnan(jax.jit(clip_cov_loss)(logp, OLD, ADV, MASK, picked=everything)[0])


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
@pytest.mark.parametrize("cuts", [(4,), (4, 8)], ids=str)
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
    arrays, none = batch(), np.zeros((16, 12), bool)
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


@pytest.mark.parametrize("logp", [np.zeros(3), np.zeros((2, 4))])
def test_wrong_shapes_are_refused(logp):
    with pytest.raises(ValueError, match="logp has shape"):
        pg_loss(logp, OLD, ADV, MASK)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (KLCov(frac=2.0), r"KLCov\.from_percent\(2\.0\), that is frac=0\.02"),
        (KLCov(frac=-0.1), "from 0 to 1"),
        (KLCov(beta=-1.0), "beta=1.0"),
        (KLCov(scope="device"), "scope='global'"),  # pyright: ignore[reportArgumentType]
        (ClipCov(frac=1.5), "ClipCov.from_percent"),
        (ClipCov(w_low=5.0, w_high=1.0), "w_low < w_high"),
        (ClipCov(band="quantile"), "w_low=0.9, w_high=1.0"),
        (ClipCov(band="top"), "band='absolute'"),  # pyright: ignore[reportArgumentType]
        (ClipCov(clip_lo=-0.2), "clip_lo=1.0"),
        (Clipped(eps_lo=-0.2), "eps_lo=0.2"),
    ],
)
def test_a_config_that_cannot_work_says_what_to_type(config, match):
    with pytest.raises(ValueError, match=match):
        config.build()


def test_percent_becomes_a_fraction():
    assert KLCov.from_percent(0.2) == KLCov(frac=2e-3)
    assert ClipCov.from_percent(0.02).frac == pytest.approx(2e-4)


def test_a_loss_that_picks_asks_for_the_pick():
    with pytest.raises(ValueError, match=r"KLCov\.pick\(key"):
        KLCov().build().loss(*CARD)
    with pytest.raises(ValueError, match="key="):
        clip_cov_loss(*CARD)
    assert not Clipped().build().needs_pick
