"""Tunix's GRPOLearner for benchmarks/rl_iteration.py. A question is a number of iterations.

The learner owns the loop, so questions are read where it asks for the prompts of the next step. No reference model (beta 0),
one update per generation, its own sampler, weights shared between sampler and trainer.
"""

import time
from collections.abc import Iterator
from importlib.metadata import version

import jax
import numpy as np
import optax
from _peer import answer, job, questions
from _tunix_model import NumberTokenizer, build
from flax import nnx
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

about = job()
sizes, count, samples = about["sizes"], len(about["prompts"]), about["samples"]
longest = max(map(len, about["prompts"]))
mesh, model = build(sizes)


class Cluster(RLCluster):
    """Knows how long its generation takes."""

    generation_s = 0.0

    def generate(self, *args, **kwargs):
        start = time.perf_counter()
        found = super().generate(*args, **kwargs)
        self.generation_s += time.perf_counter() - start
        return found


def reward(prompts: list[str], completions: list[str], **_: object) -> list[float]:
    """Even first tokens are good: something that differs within a group."""
    words = [completion.split() for completion in completions]
    assert all(len(found) == about["new"] for found in words), "no row may end early"
    return [float(int(found[0]) % 2 == 0) for found in words]


def batches(cluster: Cluster) -> Iterator[dict[str, np.ndarray]]:
    """The prompts of a step; asking for the next ones means that the step before has been done."""
    batch = {"prompts": np.array([" ".join(map(str, prompt)) for prompt in about["prompts"]])}
    for _ in range(about["warm_up"]):
        yield batch
    jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
    answer({"ready": True, "version": f"google-tunix {version('google-tunix')}, jax {jax.__version__}"})
    for iterations in questions():
        cluster.generation_s = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(iterations):
            yield batch
        jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer({"wall_s": wall, "cpu_s": cpu, "generation_s": cluster.generation_s})


cluster = Cluster(
    actor=model,
    tokenizer=NumberTokenizer(sizes["vocab_size"]),
    cluster_config=ClusterConfig(
        role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
        training_config=RLTrainingConfig(
            actor_optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.0)
            ),
            eval_every_n_steps=10**9,
            max_steps=10**6,
            mini_batch_size=count,
            train_micro_batch_size=count,
        ),
        rollout_config=RolloutConfig(
            max_tokens_to_generate=about["new"],
            max_prompt_length=longest,
            kv_cache_size=longest + about["new"],
            temperature=1.0,
            top_p=1.0,
        ),
    ),
)
learner = GRPOLearner(
    rl_cluster=cluster,
    reward_fns=reward,
    algo_config=GRPOConfig(num_generations=samples, num_iterations=1, beta=0.0),
)
learner.train(batches(cluster))
