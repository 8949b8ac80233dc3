"""The Tunix side of benchmarks/train_step.py: the compiled step of its PeftTrainer. Reads numbers of steps, prints seconds."""

import json
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen3.model import ModelConfig, Qwen3
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

sizes = json.loads(sys.argv[1])
config = ModelConfig(
    num_layers=sizes["layers"],
    vocab_size=sizes["vocab_size"],
    embed_dim=sizes["dim"],
    hidden_dim=sizes["mlp_dim"],
    num_heads=sizes["heads"],
    num_kv_heads=sizes["kv_heads"],
    head_dim=sizes["head_dim"],
    rope_theta=10_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
)
shape = (sizes["rows"], sizes["length"])
mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
with mesh:
    model = Qwen3(config, rngs=nnx.Rngs(0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.0))
    trainer = PeftTrainer(model, optimizer, TrainingConfig(eval_every_n_steps=10**9, max_steps=10**9))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocab_size, shape), jnp.int32)
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((shape[1], shape[1]), bool)), (shape[0], shape[1], shape[1]))
    batch = {
        "input_tokens": tokens,
        "input_mask": jnp.ones(shape, bool),
        "positions": jnp.broadcast_to(jnp.arange(shape[1]), shape),
        "attention_mask": causal,
    }
    step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
    start = time.perf_counter()
    out = jax.block_until_ready(step(batch))
    first_s = time.perf_counter() - start
    about = f"google-tunix {version('google-tunix')}, jax {jax.__version__}"
    print(json.dumps({"ready": True, "version": about, "first_step_s": first_s}), flush=True)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            out = step(batch)
        jax.block_until_ready((out, nnx.state(trainer.model)))
        seconds = time.perf_counter() - start
        print(json.dumps({"wall_s": seconds, "cpu_s": time.process_time() - cpu, "loss": float(out[0])}), flush=True)
