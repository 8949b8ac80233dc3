"""Our side of benchmarks/rl_iteration.py: engine, group advantages, one update, as in `rl/arm.py`. Reads numbers of iterations."""

from _peer import job, serve

from framework.allocator import keep_freed_memory

keep_freed_memory()

import functools  # noqa: E402 - memory is asked for while jax is imported
import itertools  # noqa: E402
import time  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from framework.inference import Engine, EngineConfig, Request  # noqa: E402
from framework.mesh import MeshConfig, jit_on, put_batch  # noqa: E402
from framework.optimizer import AdamW  # noqa: E402
from models.decoder import DecoderConfig  # noqa: E402
from rl.advantage import group_advantage  # noqa: E402
from rl.batch import make_batch  # noqa: E402
from rl.learner import policy_step  # noqa: E402
from rl.losses import Clipped  # noqa: E402
from rl.model_setup import ModelSetup  # noqa: E402

about = job()
prompts, samples, new = about["prompts"], about["samples"], about["new"]
longest = max(map(len, prompts))
setup = ModelSetup(MeshConfig().build(), DecoderConfig(**about["sizes"]), jax.random.key(0))
tx = AdamW(lr=1e-4).build()
trained, frozen = setup.init()
state = setup.new_state(trained, tx)
engine = Engine(
    nnx.merge(setup.graphdef, trained, frozen),
    EngineConfig(
        slots=len(prompts) * samples,
        max_length=longest + new,
        max_new_tokens=new,
        layout=about["layout"],
        stop_tokens=(),
    ),
    mesh=setup.mesh,
)
step = functools.partial(policy_step, setup.graphdef, loss=Clipped().build(), tx=tx, temperature=1.0)
update = jit_on(setup.mesh, step, donate_argnums=0)
requests = [Request(id=i, prompt=prompt, samples=samples) for i, prompt in enumerate(prompts)]
numbers = itertools.count()


def iterate(iterations: int) -> dict[str, float]:
    """Generation, rewards and advantages, then the update."""
    global state
    generation_s, gap = 0.0, 0.0
    for number in itertools.islice(numbers, iterations):
        start = time.perf_counter()
        engine.load(setup.whole(state.params, frozen), number)
        completions = engine.generate(requests, number)
        assert all(len(completion.tokens) == new for completion in completions), "no row may end early"
        # Even first tokens are good: something that differs within a group.
        rewards = np.array([completion.tokens[0] % 2 == 0 for completion in completions], np.float32)
        adv = np.asarray(group_advantage(rewards.reshape(len(prompts), samples))).reshape(-1)
        batch = make_batch(
            [prompt for prompt in prompts for _ in range(samples)],
            [completion.tokens for completion in completions],  # pyright: ignore[reportArgumentType]
            prompt_length=longest,
            response_length=new,
            old_logp=[completion.logp for completion in completions],
            adv=adv,
        )
        generation_s += time.perf_counter() - start
        state, metrics = update(state, frozen, put_batch(setup.mesh, batch), jax.random.key(number))
        gap = max(gap, float(metrics["sampler/logp_gap_max"]))  # waits for the update
    jax.block_until_ready(state)
    return {"generation_s": generation_s, "logp_gap_max": gap}


start = time.perf_counter()
engine.warmup()
iterate(1)
first_s = time.perf_counter() - start
iterate(about["warm_up"] - 1)
serve({"version": f"jax {jax.__version__}", "compile_s": round(first_s, 2)}, iterate)
