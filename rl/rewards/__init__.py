"""Rewards are plain functions (sample, response) -> float, run in worker processes. Imports no jax."""

from rl.rewards.pool import RewardBatch, RewardError, RewardPool

__all__ = ["RewardBatch", "RewardError", "RewardPool"]
