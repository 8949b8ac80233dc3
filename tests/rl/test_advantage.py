"""Group advantages against numbers worked out by hand and by the official code."""

import jax.numpy as jnp
import numpy as np
import pytest

from rl.advantage import group_advantage


@pytest.mark.parametrize(
    ("rewards", "ddof", "expected"),
    [
        # Entropy mechanism, arXiv:2505.22617: the official function.
        ([1, 0, 0, 1], 1, [0.8660, -0.8660, -0.8660, 0.8660]),
        # SynLogic, arXiv:2505.19641: the formula with the population deviation, and with DAPO's n - 1.
        ([1, 0, 0, 0], 0, [1.7320508, -0.5773503, -0.5773503, -0.5773503]),
        ([1, 1, 1, 1], 0, [0, 0, 0, 0]),
        ([1, 1, 0, 0], 0, [1, 1, -1, -1]),
        ([1, 0, 0, 0], 1, [1.5, -0.5, -0.5, -0.5]),
        ([1, 1, 0, 0], 1, [0.8660254, 0.8660254, -0.8660254, -0.8660254]),
    ],
)
def test_advantages_are_those_of_the_papers(rewards, ddof, expected):
    # The papers' numbers are for eps = 0; eps = 1e-6 moves them by 4e-6.
    np.testing.assert_allclose(group_advantage([rewards], ddof=ddof)[0], expected, atol=3e-5 if ddof else 1e-5)
    np.testing.assert_allclose(
        group_advantage([rewards], ddof=ddof, eps=0.0)[0], expected, atol=3e-5 if rewards == [1, 0, 0, 1] else 1e-6
    )


def test_each_prompt_is_its_own_group():
    both = group_advantage([[1, 0, 0, 1], [5, 5, 5, 1]])
    np.testing.assert_array_equal(both[1], group_advantage([[5, 5, 5, 1]])[0])
    np.testing.assert_allclose(both.sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e6, -0.7])
def test_equal_rewards_give_exactly_zero_although_their_float32_mean_is_off(reward):
    assert not np.any(group_advantage(jnp.full((3, 7), reward)))


def test_without_scale_the_advantage_is_the_centred_reward():
    np.testing.assert_allclose(group_advantage([[4.0, 0.0]], scale=False), [[2.0, -2.0]])


def test_nan_stays_in_its_group():
    adv = group_advantage([[np.nan, 1.0], [0.0, 1.0]])
    assert np.isnan(adv[0]).all()
    assert np.isfinite(adv[1]).all()


def test_a_group_of_one_is_refused_unless_its_reward_is_asked_for():
    with pytest.raises(ValueError, match="Sample 2 or more answers per prompt"):
        group_advantage([[1.0], [0.0]])
    np.testing.assert_array_equal(group_advantage([[1.0], [0.5]], single="reward"), [[1.0], [0.5]])


@pytest.mark.parametrize(("kwargs", "match"), [({"ddof": 2}, "ddof=2"), ({"single": "zero"}, "single='zero'")])
def test_unknown_options_say_what_to_type(kwargs, match):
    with pytest.raises(ValueError, match=match):
        group_advantage([[1.0, 0.0]], **kwargs)


def test_flat_rewards_say_what_to_type():
    with pytest.raises(ValueError, match="reshape"):
        group_advantage([1.0, 0.0])
