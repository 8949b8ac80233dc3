"""Parts of the tests of the engine: a small model with logits wide enough that sampling is neither uniform nor greedy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from framework.inference import EngineConfig
from models.decoder import DecoderConfig

MODEL = DecoderConfig(vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
CONFIG = EngineConfig(slots=16, max_length=22, max_new_tokens=10, decode_steps=4, stop_tokens=(1,))


def wide(config: DecoderConfig, seed: int = 0, scale: float = 0.15):
    """A random model whose answers differ."""
    graphdef, params = nnx.split(config.build(jax.random.key(seed)))
    params = jax.tree.map(lambda x: x + scale * jax.random.normal(jax.random.key(x.size), x.shape), params)
    return nnx.merge(graphdef, params)


def prompts(count: int, seed: int = 0, longest: int = 12) -> list[list[int]]:
    """Ragged prompts of tokens from 2 to 39."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 40, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def naive_greedy(model, prompt: list[int], limit: int, *, room: int = 22, stop: int | None = 1) -> list[int]:
    """Recompute everything for every token, padded on the right so that there is one shape to compile."""
    graphdef, params = nnx.split(model)

    @jax.jit
    def logits(params, tokens):
        model = nnx.merge(graphdef, params)
        return model(tokens, jnp.arange(room)[None])[0][0] @ model.unembed

    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        padded = jnp.array([tokens + [0] * (room - len(tokens))])
        tokens.append(int(jnp.argmax(logits(params, padded)[len(tokens) - 1])))
        if tokens[-1] == stop:
            break
    return tokens[len(prompt) :]


@functools.cache
def small_model():
    """Shared by all tests of a worker: nothing changes it."""
    return wide(MODEL)
