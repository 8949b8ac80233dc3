"""Plain gradient steps move in proportion to the gradient; numbers that cannot work are refused with ones that can."""

import chex
import jax.numpy as jnp
import optax
import pytest

from framework.errors import UserError
from framework.optimizer import SGD

GRADIENT = {"w": jnp.array([3.0, -4.0])}


def stepped(config, scale=1.0):
    tx = config.build()
    params = {"w": jnp.zeros(2)}
    updates, _ = tx.update({"w": GRADIENT["w"] * scale}, tx.init(params), params)
    return optax.apply_updates(params, updates)["w"]


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_sgd_moves_by_minus_the_learning_rate_times_the_gradient(scale):
    chex.assert_trees_all_close(stepped(SGD(lr=0.1), scale), -0.1 * scale * GRADIENT["w"], rtol=1e-6)


def test_sgd_clips_by_the_global_norm_only_when_asked():
    chex.assert_trees_all_close(stepped(SGD(lr=0.1, grad_clip=1.0)), -0.1 * GRADIENT["w"] / 5.0, rtol=1e-6)


@pytest.mark.parametrize("bad", [SGD(lr=0.0), SGD(lr=float("nan")), SGD(lr=0.1, grad_clip=-1.0)])
def test_sgd_refuses_numbers_that_cannot_work(bad):
    with pytest.raises(UserError, match=r"such as lr=0\.1"):
        bad.build()
