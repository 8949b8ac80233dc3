"""The Tunix side of benchmarks/train_step.py: the compiled step of its PeftTrainer. Reads numbers of steps, gives seconds."""

import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _peer import job, serve
from _tunix_model import build
from flax import nnx
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

sizes = job()
shape = (sizes["rows"], sizes["length"])
mesh, model = build(sizes)
with mesh:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.0))
    trainer = PeftTrainer(model, optimizer, TrainingConfig(eval_every_n_steps=10**9, max_steps=10**9))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, sizes["vocab_size"], shape), jnp.int32)
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((shape[1], shape[1]), bool)), (shape[0], shape[1], shape[1]))
    batch = {
        "input_tokens": tokens,
        "input_mask": jnp.ones(shape, bool),
        "positions": jnp.broadcast_to(jnp.arange(shape[1]), shape),
        "attention_mask": causal,
    }
    step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
    start = time.perf_counter()
    jax.block_until_ready(step(batch))
    first_s = time.perf_counter() - start

    def steps(count: int) -> dict[str, float]:
        for _ in range(count):
            out = step(batch)
        jax.block_until_ready((out, nnx.state(trainer.model)))
        return {"loss": float(out[0])}

    about = f"google-tunix {version('google-tunix')}, jax {jax.__version__}"
    serve({"version": about, "first_step_s": first_s}, steps)
