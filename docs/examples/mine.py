"""Right answers count, short ones count more:  maypole run docs/examples/mine.py:config"""

import dataclasses

from data.synlogic import verifier_reward
from experiments.entropy_mechanism import tiny
from framework.sample import Sample
from rl.config import Arm
from rl.losses import Clipped, KLCov


def short_and_right(sample: Sample, response: str) -> float:
    """A plain function of the question and the whole response; it runs in a process of its own."""
    return verifier_reward(sample, response) - 0.005 * len(response)


config = dataclasses.replace(
    tiny,
    name="mine",
    reward=short_and_right,
    evaluation=dataclasses.replace(tiny.evaluation, score=verifier_reward),  # accuracy stays "right or wrong"
    arms=(Arm(name="clip_higher", loss=Clipped(eps_hi=0.28)), Arm(name="kl_cov", loss=KLCov(frac=0.05))),
)
