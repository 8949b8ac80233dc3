"""Token covariance, group covariance, entropy, and the masked mean below them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl.covariance import covariance_metrics, group_covariance, response_entropy, token_covariance
from rl.masked import masked_mean

LOGP = np.array([[-0.8, -0.5, -2.5], [-0.1, -2.0, -9.0]], np.float32)
ADV = np.array([[1, 1, 1], [-1, -1, 0]], np.float32)
MASK = np.array([[1, 1, 1], [1, 1, 0]], np.float32)


def test_token_covariance_is_that_of_the_official_code():
    # Entropy mechanism, arXiv:2505.22617: the official function on these arrays, in float64.
    want = [[0.304, 0.544, -1.056], [-1.296, 0.984, 0.0]]
    np.testing.assert_allclose(token_covariance(LOGP, ADV, MASK), want, atol=1e-6)


def test_mean_token_covariance_is_the_population_covariance():
    rng = np.random.default_rng(0)
    logp, adv, mask = rng.normal(size=(4, 9)), rng.normal(size=(4, 9)), rng.random((4, 9)) < 0.7
    want = np.cov(logp[mask], adv[mask], ddof=0)[0, 1]
    np.testing.assert_allclose(masked_mean(token_covariance(logp, adv, mask), mask), want, atol=1e-6)
    metrics = covariance_metrics(logp, adv, mask)
    np.testing.assert_allclose(metrics["policy/cov_mean"], want, atol=1e-6)
    cov = np.sort(np.asarray(token_covariance(logp, adv, mask))[mask])
    np.testing.assert_allclose(metrics["policy/cov_max"], cov[-1])
    np.testing.assert_allclose(metrics["policy/cov_p90"], cov[int(np.ceil(0.9 * len(cov))) - 1])


def test_no_gradient_flows_through_the_covariances():
    assert not np.any(jax.grad(lambda x: token_covariance(x, ADV, MASK).sum())(LOGP))
    assert not np.any(jax.grad(lambda x: group_covariance(x, ADV, MASK, 2).sum())(LOGP))


def test_padding_reaches_nothing():
    logp, adv = LOGP.copy(), ADV.copy()
    logp[1, 2], adv[1, 2] = np.nan, 1e30
    np.testing.assert_array_equal(token_covariance(logp, adv, MASK), token_covariance(LOGP, ADV, MASK))
    np.testing.assert_array_equal(group_covariance(logp, adv, MASK, 2), group_covariance(LOGP, ADV, MASK, 2))
    np.testing.assert_array_equal(response_entropy(logp, MASK), response_entropy(LOGP, MASK))
    grad = jax.grad(lambda x: masked_mean(jnp.exp(x), MASK))(jnp.asarray(logp))
    assert np.isfinite(np.asarray(grad)[MASK > 0]).all()
    assert masked_mean(logp, MASK) == masked_mean(LOGP, MASK)


def test_gradient_of_the_masked_mean_is_zero_at_a_nan_padding_place():
    grad = jax.grad(lambda x: masked_mean(x, jnp.array([1.0, 0.0])))(jnp.array([2.0, jnp.nan]))
    np.testing.assert_array_equal(grad, [1.0, 0.0])


def test_empty_mask_gives_zero_everywhere():
    empty = np.zeros_like(MASK)
    assert masked_mean(LOGP, empty) == 0
    assert response_entropy(LOGP, empty) == 0
    assert not np.any(group_covariance(LOGP, ADV, empty, 2))
    assert not any(covariance_metrics(LOGP, ADV, empty).values())


def test_masked_mean_of_microbatches_adds_up_with_the_denominator_of_the_batch():
    parts = [masked_mean(LOGP[i : i + 1], MASK[i : i + 1], denom=5.0) for i in range(2)]
    np.testing.assert_allclose(sum(parts), masked_mean(LOGP, MASK), rtol=1e-6)


def test_group_covariance_by_hand():
    # Per answer: mean log-probability and advantage; then E[xy] - E[x]E[y] over the answers of each prompt.
    rng = np.random.default_rng(1)
    logp, mask = -rng.random((6, 4)), np.arange(4) < rng.integers(1, 5, size=(6, 1))
    adv = np.repeat(rng.normal(size=(6, 1)), 4, axis=1)
    answer = np.array([row[m].mean() for row, m in zip(logp, mask, strict=True)]).reshape(2, 3)
    gain = np.exp(answer) * adv[:, 0].reshape(2, 3)
    want = (answer * gain).mean(1) - answer.mean(1) * gain.mean(1)
    np.testing.assert_allclose(group_covariance(logp, adv, mask, 3), want, atol=1e-6)


def test_an_answer_without_tokens_is_left_out_of_its_group():
    logp, adv = np.array([[-1.0], [-2.0], [-5.0]]), np.array([[1.0], [-1.0], [3.0]])
    got = group_covariance(logp, adv, np.array([[1], [1], [0]]), 3)
    np.testing.assert_allclose(got, group_covariance(logp[:2], adv[:2], np.ones((2, 1)), 2), rtol=1e-5)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="group_size=4"):
        group_covariance(LOGP, ADV, MASK, 4)


def test_response_entropy_weighs_responses_not_tokens():
    entropy = np.array([[1.0, 1.0, 1.0], [4.0, 99.0, 99.0], [9.0, 9.0, 9.0]])
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(response_entropy(entropy, mask), 2.5)  # (1 + 4) / 2; the token mean would be 1.75


def test_a_wrong_shape_says_how_to_repair_it():
    with pytest.raises(ValueError, match=r"adv\[:, None\] \* mask"):
        token_covariance(LOGP, ADV[:, 0], MASK)
