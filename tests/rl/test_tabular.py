"""The entropy theory on one softmax state, against exact numbers (theory of arXiv:2505.22617, section 3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl import tabular

Z, REWARDS = [1.0, 0.0, -1.0], [1.0, 0.0, -1.0]


def test_exact_numbers():
    np.testing.assert_allclose(tabular.centred_advantage(Z, REWARDS), [0.42478962, -0.57521038, -1.57521038], atol=1e-8)
    np.testing.assert_allclose(tabular.entropy(Z), 0.83239558, atol=1e-8)
    pg = tabular.policy_gradient_step(Z, REWARDS, lr=0.1)
    np.testing.assert_allclose(tabular.first_order_change(Z, pg), -0.01197840, atol=1e-8)
    np.testing.assert_allclose(tabular.entropy_change(Z, pg), -0.01209117, atol=1e-8)
    npg = tabular.natural_gradient_step(Z, REWARDS, lr=0.1)
    np.testing.assert_allclose(tabular.first_order_change(Z, npg), -0.04244045, atol=1e-8)
    np.testing.assert_allclose(tabular.entropy_change(Z, npg), -0.04272302, atol=1e-8)


def test_policy_gradient_step_is_the_gradient_of_the_expected_reward():
    grad = jax.grad(lambda z: jax.nn.softmax(z) @ jnp.asarray(REWARDS))(jnp.asarray(Z))
    np.testing.assert_allclose(tabular.policy_gradient_step(Z, REWARDS, lr=1.0), grad, atol=1e-6)


@pytest.mark.parametrize("step", [tabular.policy_gradient_step, tabular.natural_gradient_step])
def test_the_error_of_the_first_order_change_is_of_second_order(step):
    rng = np.random.default_rng(0)
    z, rewards = rng.normal(size=6), rng.normal(size=6)

    def error(lr: float) -> float:
        dz = step(z, rewards, lr=lr)
        return abs(tabular.entropy_change(z, dz) - tabular.first_order_change(z, dz))

    np.testing.assert_allclose(error(1e-3) / error(5e-4), 4.0, rtol=0.05)


def test_a_rare_good_action_raises_entropy_and_a_likely_good_one_lowers_it():
    assert tabular.entropy_change([2.0, 0.0], tabular.natural_gradient_step([2.0, 0.0], [0.0, 1.0], lr=0.1)) > 0
    assert tabular.entropy_change([2.0, 0.0], tabular.natural_gradient_step([2.0, 0.0], [1.0, 0.0], lr=0.1)) < 0


def test_a_certain_action_has_no_entropy_and_no_nan():
    assert tabular.entropy([0.0, -2000.0]) == 0.0
    with pytest.raises(ValueError, match="one state"):
        tabular.softmax([[0.0, 1.0]])
