"""A value of the wrong type is named with its field and the type that belongs there, however deep it sits."""

import dataclasses

import pytest

from experiments.entropy_mechanism import all_arms, paper, smoke, tiny
from framework.config_types import check_types
from framework.errors import UserError
from framework.optimizer import AdamW
from rl.config import Arm
from rl.losses import KLCov


@pytest.mark.parametrize("config", [smoke, tiny, all_arms, paper], ids=["smoke", "tiny", "all_arms", "paper"])
def test_the_shipped_configs_are_what_their_types_say(config):
    check_types(config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": "3"}, "steps='3' is of type str, but steps must be int"),
        ({"steps": 2.5}, "steps=2.5 is of type float"),
        ({"seed": None}, "seed=None is of type NoneType, but seed must be int"),
        ({"reward": "verifier"}, r"reward must be Callable\[\[Sample, str\], float\]"),
        ({"data": None}, "data must be QuestionSource .it has no method named 'build'"),
        ({"optimizer": None}, "optimizer must be Optimizer"),
        ({"evaluation": None}, "evaluation must be Evaluation"),
        ({"arms": smoke.arms[0]}, r"arms must be tuple\[Arm, ...\]\. A tuple of one item is written with a comma"),
        ({"arms": ("kl_cov",)}, r"arms must be tuple\[Arm, ...\]\.$"),
        ({"model": dataclasses.replace(smoke.model, dim=64.0)}, r"model\.dim=64\.0 is of type float"),
        ({"optimizer": AdamW(lr="1")}, r"optimizer\.lr='1'"),  # type: ignore[arg-type]
        ({"arms": (Arm(name="a", loss=KLCov(beta="1")),)}, r"arms\.0\.loss\.beta='1'"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_is_named_with_its_field_and_the_right_one(change, said):
    config = dataclasses.replace(smoke, **change)
    with pytest.raises(UserError, match=said):
        config.validate()


def test_a_whole_number_is_a_fine_float_and_a_function_is_a_fine_reward():
    check_types(dataclasses.replace(smoke, reward_timeout_s=2, reward=lambda sample, response: 0.0))
