"""Plain gradient steps move in proportion to the gradient; numbers that cannot work are refused with ones that can."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from framework.errors import UserError
from framework.optimizer import SGD, AdamW, clip_by_global_norm

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


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_schedules_end_at_the_floor(schedule):
    rate = AdamW(lr=2.0, schedule=schedule, total_steps=20, min_lr_ratio=0.1).learning_rate()
    np.testing.assert_allclose([rate(0), rate(20), rate(30)], [2.0, 0.2, 0.2], rtol=1e-6)


def test_wsd_warms_up_stays_and_falls_in_the_last_steps():
    rate = AdamW(lr=1.0, schedule="wsd", warmup_steps=2, total_steps=10, decay_steps=4).learning_rate()
    np.testing.assert_allclose([rate(i) for i in range(11)], [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0], atol=1e-7)
    tenth = AdamW(lr=1.0, schedule="wsd", total_steps=100).learning_rate()
    np.testing.assert_allclose([tenth(90), tenth(95), tenth(100)], [1.0, 0.5, 0.0], atol=1e-6)


def test_a_short_run_shrinks_the_warm_up_and_the_decay_of_wsd():
    tx = AdamW(lr=1.0, schedule="wsd", warmup_steps=100, decay_steps=100).build(total_steps=10)
    rates = [float(tx.learning_rate(i)) for i in range(10)]
    np.testing.assert_allclose(rates, [0.5, 1.0, *(1 - i / 8 for i in range(8))], rtol=1e-6)


def test_a_bfloat16_first_moment_keeps_the_second_in_float32_and_trains_as_well():
    def trained(config):
        tx = config.build()
        params = {"w": jnp.linspace(-2.0, 2.0, 16)}
        state = tx.init(params)
        for _ in range(50):
            updates, state = tx.update(jax.tree.map(lambda w: 2 * w, params), state, params)
            params = optax.apply_updates(params, updates)
        return params["w"], {str(x.dtype) for x in jax.tree.leaves(state)}

    small, dtypes = trained(AdamW(lr=0.05, moment_dtype="bfloat16"))
    full, _ = trained(AdamW(lr=0.05))
    assert dtypes == {"bfloat16", "float32", "int32"}
    np.testing.assert_allclose(small, full, atol=0.05)  # one step of lr


def test_clipping_equals_optax_and_lets_a_nan_through():
    tree = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    for largest in (1.0, 10.0):
        ours, theirs = (
            make(largest).update(tree, optax.EmptyState())[0]
            for make in (clip_by_global_norm, optax.clip_by_global_norm)
        )
        chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
    zeros, _ = clip_by_global_norm(1.0).update({"a": jnp.zeros(2)}, optax.EmptyState())
    np.testing.assert_array_equal(zeros["a"], 0.0)
    broken, _ = clip_by_global_norm(1.0).update({"a": jnp.array([jnp.nan, 1.0])}, optax.EmptyState())
    assert bool(jnp.isnan(broken["a"]).all())  # the loop stops on it


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AdamW(min_lr_ratio=1.5), "such as min_lr_ratio=0.1"),
        (AdamW(schedule="wsd", decay_steps=0, total_steps=9), "Use decay_steps=None"),
        (AdamW(schedule="wsd", decay_steps=8, warmup_steps=3, total_steps=9), "Use decay_steps=6 or less"),
        (AdamW(schedule="wsd"), "Set total_steps"),
        (AdamW(betas=(0.9, 1.0)), "such as \\(0.9, 0.95\\)"),
        (AdamW(eps=0.0), "Use eps=1e-8"),
        (AdamW(lr=float("inf")), "such as lr=1e-3"),
        (AdamW(grad_clip=float("nan")), "cannot be negative"),
        (AdamW(moment_dtype="float16"), "Use 'float32' or 'bfloat16'"),  # type: ignore[arg-type]
        (AdamW(schedule="step"), "'wsd'"),  # type: ignore[arg-type]
    ],
    ids=lambda value: None if isinstance(value, AdamW) else value[:24],
)
def test_adamw_refuses_numbers_that_cannot_work(config, message):
    with pytest.raises(UserError, match=message):
        config.build()
