"""Our side of benchmarks/train_step.py: the training step of `experiments/sft.py`. Reads numbers of steps, gives seconds."""

import time

from _peer import job, serve

from framework.allocator import keep_freed_memory

keep_freed_memory()

import functools  # noqa: E402 - memory is asked for while jax is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from framework.batch import TokenBatch  # noqa: E402
from framework.mesh import MeshConfig, jit_on  # noqa: E402
from framework.optimizer import AdamW  # noqa: E402
from models import quant  # noqa: E402
from models.decoder import DecoderConfig  # noqa: E402
from rl.model_setup import ModelSetup  # noqa: E402
from rl.supervised import token_step  # noqa: E402

sizes = job()
fields = ("vocab_size", "dim", "mlp_dim", "layers", "heads", "kv_heads", "head_dim")
rule = getattr(quant, sizes["quant"]) if "quant" in sizes else None  # benchmarks/quartet_step.py
config = DecoderConfig(**{f: sizes[f] for f in fields})
setup = ModelSetup(MeshConfig().build(), config, jax.random.key(0), quant=rule)
tx = AdamW(lr=1e-4).build()
trained, frozen = setup.init()
state = setup.new_state(trained, tx)
shape = (sizes["rows"], sizes["length"])
batch = TokenBatch(
    tokens=jnp.asarray(np.random.default_rng(0).integers(0, sizes["vocab_size"], shape), jnp.int32),
    positions=jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape),
    segment_ids=jnp.ones(shape, jnp.int32),
    mask=jnp.ones(shape, jnp.float32).at[:, 0].set(0),
)
update = jit_on(
    setup.mesh,
    functools.partial(token_step, setup.graphdef, tx=tx, microbatches=sizes["microbatches"]),
    donate_argnums=0,
)
start = time.perf_counter()
state, metrics = jax.block_until_ready(update(state, frozen, batch))
first_s = time.perf_counter() - start


def steps(count: int) -> dict[str, float]:
    global state, metrics
    for _ in range(count):
        state, metrics = update(state, frozen, batch)
    return {"loss": float(metrics["loss/total"])}


serve({"version": f"jax {jax.__version__}", "first_step_s": first_s}, steps)
