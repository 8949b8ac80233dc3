"""Policy losses against the numbers of the official code."""

import functools

import jax
import numpy as np

from rl.losses import (
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
OFFICIAL = (LOGP, OLD, ADV, MASK)

# Tolerance: 1e-6, a few units in the last place of float32.


def test_ppo_baseline():
    loss, metrics = jax.jit(clipped_loss)(*OFFICIAL)
    np.testing.assert_allclose(loss, 0.20338442, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/clip_frac"], 0.2, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/kl_old"], -0.16, atol=1e-6)


def test_kl_cov_with_a_fifth_of_the_tokens():
    loss_of = functools.partial(kl_cov_loss, frac=0.2, beta=1.0)
    (loss, metrics), grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(*OFFICIAL)
    np.testing.assert_allclose(loss, 0.39910386, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/abs_log_ratio"], 0.36, atol=1e-6)
    np.testing.assert_allclose(metrics["policy/picked_frac"], 0.2, atol=1e-6)
    np.testing.assert_allclose(grad, [[-0.2443, -0.2, -0.1213], [0.2210, 0.7437, 0]], atol=5e-5)  # printed to 4 digits


def test_kl_cov_with_two_fifths_of_the_tokens():
    loss_of = functools.partial(kl_cov_loss, frac=0.4, beta=0.5)
    (loss, _), grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(*OFFICIAL)
    np.testing.assert_allclose(loss, 0.29910387, atol=1e-6)
    np.testing.assert_allclose([grad[1, 1], grad[0, 1]], [0.6437, -0.2], atol=5e-5)  # no penalty at a log-ratio of 0


def test_kl_cov_is_the_policy_gradient_while_the_policy_has_not_moved():
    grads = [jax.jit(jax.grad(lambda x, f=f: f(x, LOGP, ADV, MASK)[0]))(LOGP) for f in (kl_cov_loss, pg_loss)]
    np.testing.assert_array_equal(*grads)


def test_kl_cov_picks_at_least_one_token_unless_the_share_is_zero():
    few, none = (jax.jit(functools.partial(kl_cov_loss, frac=frac))(*OFFICIAL)[0] for frac in (0.002, 0.0))
    np.testing.assert_allclose(few, 0.39910386, atol=1e-6)
    np.testing.assert_allclose(none, jax.jit(pg_loss)(*OFFICIAL)[0], rtol=1e-6)


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
        picked, metrics = pick(jax.random.key(seed), *OFFICIAL)
        assert picked.sum() == 2
        assert not np.any(picked & ~eligible)
        assert metrics["policy/eligible"] == 3
        seen |= np.asarray(picked)
    np.testing.assert_array_equal(seen, eligible)


def test_clip_cov_leaves_out_tokens_that_ppo_clips():
    loss_of = functools.partial(clip_cov_loss, **CLIP_COV, clip_lo=0.2, clip_hi=0.2)
    loss, metrics = jax.jit(loss_of)(*OFFICIAL, key=jax.random.key(0))
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


def test_a_nan_shows_in_the_loss_even_on_a_token_whose_loss_is_dropped():
    everything, logp = MASK > 0, LOGP.copy()
    logp[0, 0] = np.nan
    assert np.isnan(jax.jit(clip_cov_loss)(logp, OLD, ADV, MASK, picked=everything)[0])
