"""The decoder against plain numpy, its cache against full recompute, and its masks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.decoder import DecoderConfig, SlotCache

TINY = DecoderConfig(vocab_size=48, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
VARIANTS = {
    "qwen3": TINY,
    "qwen25": DecoderConfig(
        **{**TINY.__dict__, "qk_norm": False, "qkv_bias": True, "tied": False, "rope_theta": 1e6, "norm_eps": 1e-6}
    ),
    "multi_query": DecoderConfig(**{**TINY.__dict__, "kv_heads": 1}),
}


def build(config: DecoderConfig, seed: int = 0):
    """A model whose norms and biases are random too: ones and zeros would hide mistakes."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: config.build(jax.random.key(seed))))
    params = jax.jit(lambda: nnx.state(config.build(jax.random.key(seed))))()
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return nnx.merge(graphdef, jax.tree.unflatten(tree, leaves))


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, params, *arrays):
    return nnx.merge(graphdef, params)(*arrays)


def forward(model, *arrays):
    """`model(*arrays)`, compiled: operation by operation it would take seconds."""
    return _forward(*nnx.split(model), *arrays)


def ragged(batch: int, length: int, vocab: int, seed: int = 0):
    """Left-padded rows of different length: tokens, positions, segments."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocab, (batch, length))
    segments = (np.arange(length) >= rng.integers(0, length // 2, (batch, 1))).astype(np.int32)
    return jnp.asarray(tokens), jnp.maximum(jnp.cumsum(segments, 1) - 1, 0), jnp.asarray(segments)


def numpy_forward(model, tokens: np.ndarray) -> np.ndarray:
    """One unpadded row through the architecture, written out in float64 loops over heads."""
    c = model.config

    def get(p):
        return np.asarray(p[...], np.float64)

    def norm(x, scale):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.norm_eps) * get(scale)

    time = len(tokens)
    inverse = c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
    angle = np.arange(time)[:, None] * inverse
    cos, sin = np.concatenate([np.cos(angle)] * 2, -1), np.concatenate([np.sin(angle)] * 2, -1)
    half = c.head_dim // 2

    def turn(x):
        return x * cos + np.concatenate([-x[:, half:], x[:, :half]], -1) * sin

    x = get(model.embedding)[tokens]
    for block in model.blocks:
        a, h = block.attention, norm(x, block.attention_norm.scale)
        q, k, v = h @ get(a.q_proj.kernel), h @ get(a.k_proj.kernel), h @ get(a.v_proj.kernel)
        if c.qkv_bias:
            q, k, v = q + get(a.q_proj.bias), k + get(a.k_proj.bias), v + get(a.v_proj.bias)
        heads = []
        for i in range(c.heads):
            j = i // (c.heads // c.kv_heads)
            qi, kj, vj = (m[:, n * c.head_dim : (n + 1) * c.head_dim] for m, n in ((q, i), (k, j), (v, j)))
            if c.qk_norm:
                qi, kj = norm(qi, a.q_norm.scale), norm(kj, a.k_norm.scale)
            scores = turn(qi) @ turn(kj).T / np.sqrt(c.head_dim)
            scores = np.where(np.tril(np.ones((time, time))) > 0, scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ vj)
        x = x + np.concatenate(heads, -1) @ get(a.o_proj.kernel)
        h = norm(x, block.mlp_norm.scale)
        gate = h @ get(block.mlp.gate_proj.kernel)
        x = x + (gate / (1 + np.exp(-gate)) * (h @ get(block.mlp.up_proj.kernel))) @ get(block.mlp.down_proj.kernel)
    return norm(x, model.norm.scale)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_equals_the_architecture_written_out_in_numpy(name):
    model = build(VARIANTS[name])
    tokens = np.random.default_rng(0).integers(0, 48, 11)
    got, _ = forward(model, jnp.asarray(tokens)[None], jnp.arange(11)[None])
    np.testing.assert_allclose(got[0], numpy_forward(model, tokens), atol=2e-5)  # float32 against float64, two blocks


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_decoding_equals_the_full_forward_on_ragged_rows(name):
    config = VARIANTS[name]
    model = build(config)
    tokens, positions, segments = ragged(5, 14, 48)
    full, _ = forward(model, tokens, positions, segments)
    cache = model.init_cache(5, 14)
    pieces = []
    for start, stop in ((0, 8), (8, 9), (9, 12), (12, 13), (13, 14)):
        part, cache = forward(model, tokens[:, start:stop], positions[:, start:stop], segments[:, start:stop], cache)
        pieces.append(part)
    real = segments[..., None]
    chex.assert_trees_all_close(jnp.concatenate(pieces, 1) * real, full * real, atol=1e-5)  # other summation order


def test_padding_on_the_left_changes_nothing():
    model = build(TINY)
    tokens, positions, segments = ragged(4, 12, 48)
    padded, _ = forward(model, tokens, positions, segments)
    for row in range(4):
        start = int(np.argmax(np.asarray(segments[row])))
        alone, _ = forward(model, tokens[row : row + 1, start:], jnp.arange(12 - start)[None])
        chex.assert_trees_all_close(padded[row, start:], alone[0], atol=1e-5)


def test_packed_segments_do_not_see_each_other():
    model = build(TINY)
    tokens = ragged(1, 12, 48)[0]
    segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 3])
    positions = jnp.array([[*range(5), *range(4), 0, 0, 0]])
    packed, _ = forward(model, tokens, positions, segments)
    first, _ = forward(model, tokens[:, :5], positions[:, :5])
    second, _ = forward(model, tokens[:, 5:9], positions[:, 5:9])
    chex.assert_trees_all_close(packed[:, :9], jnp.concatenate([first, second], 1), atol=1e-5)


def test_a_copied_row_gives_the_continuation_of_its_origin():
    model = build(TINY)
    tokens, positions, segments = ragged(4, 8, 48)
    _, cache = forward(model, tokens, positions, segments, model.init_cache(4, 11))
    token, places = jnp.array([[3], [4], [5], [6]]), positions[:, -1:] + 1
    own, _ = forward(model, token, places, None, cache)
    source, target = jnp.array([[2, 1, 0]]), jnp.array([[0, 3, -1]])  # row 0 takes 2, row 3 takes 1
    shared, _ = forward(
        model, token[jnp.array([2, 1, 2, 1])], places[jnp.array([2, 1, 2, 1])], None, cache.copy(source, target)
    )
    chex.assert_trees_all_close(shared, own[jnp.array([2, 1, 2, 1])], atol=1e-6)


def test_a_flat_prefill_fills_the_rows_as_reading_them_one_by_one_does():
    model = build(TINY)
    tokens = ragged(1, 12, 48)[0]
    segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 3])
    positions = jnp.array([[*range(5), *range(4), 0, 0, 0]])
    _, fresh = forward(model, tokens, positions, segments, model.fresh_cache(segments))
    rows = jnp.array([[2] * 5 + [0] * 4 + [-1] * 3])
    cache = model.init_cache(3, 8).insert(fresh, rows, positions)
    for row, start, n in ((2, 0, 5), (0, 5, 4)):
        part = tokens[:, start : start + n]
        _, alone = forward(model, part, jnp.arange(n)[None], None, model.init_cache(1, 8))
        for got, want in zip((*cache.keys, *cache.values), (*alone.keys, *alone.values), strict=True):
            chex.assert_trees_all_close(got[row], want[0], atol=1e-5)  # other summation order
    assert not any(x[1].any() for x in (*cache.keys, *cache.values)), "a row that nobody wrote to"


def test_every_parameter_names_its_axes_and_the_count_is_right():
    for config in VARIANTS.values():
        params = nnx.state(build(config))
        leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, nnx.Variable))
        assert all(len(leaf.get_metadata()["logical"]) == leaf[...].ndim for leaf in leaves)
        assert sum(leaf[...].size for leaf in leaves) == config.parameter_count()


def test_remat_changes_no_gradient():
    tokens, positions, segments = ragged(3, 9, 48)

    def grads(config):
        graphdef, params = nnx.split(build(config))
        return jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(tokens, positions, segments)[0] ** 2))(params)

    plain, remat = grads(TINY), grads(DecoderConfig(**{**TINY.__dict__, "remat": "full"}))
    chex.assert_trees_all_close(jax.tree.leaves(plain), jax.tree.leaves(remat), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"kv_heads": 3}, "kv_heads"),
        ({"head_dim": 7}, "Use 8"),
        ({"layers": 0}, "at least 1"),
        ({"dtype": "int8"}, "bfloat16"),
    ],
)
def test_sizes_that_cannot_work_say_what_to_type(change, advice):
    with pytest.raises(ValueError, match=advice):
        DecoderConfig(**{**TINY.__dict__, **change}).build(jax.random.key(0))


def test_an_empty_cache_is_made_of_separate_arrays_a_layer():
    cache = SlotCache.create(TINY, 3, 5)
    assert len(cache.keys) == TINY.layers
    assert cache.keys[0].shape == (3, TINY.kv_heads, 5, TINY.head_dim, 1)  # blocks of a divisor of 64
    assert cache.values[0].shape == (3, TINY.kv_heads, 5, TINY.head_dim)
