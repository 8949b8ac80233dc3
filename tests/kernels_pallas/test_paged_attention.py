"""Attention over pages: all implementations against dense attention in numpy; jax's TPU kernel in the interpreter, and compiled."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.experimental.pallas import tpu as pallas_tpu

from framework.mesh import MeshConfig, sharding
from kernels_pallas.paged_attention import head_width, paged_attention, reference, tpu

# A softmax in another order, over at most 90 keys: a few float32 steps (1.2e-7) of numbers up to about 4.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

# Tokens a row has, new ones among them, (H, K, h), page, pages a row can have, window, shards. Rows of one page and of many; that
# end with a page, and within one; heads grouped, single and equal; windows of one token, within a page, over pages, over the row.
GRID = {
    "one token": ([1], 1, (1, 1, 2), 1, 1, None, 1),
    "ragged decode": ([1, 4, 5, 90, 33], 1, (4, 2, 8), 4, 23, None, 1),
    "one page each": ([7, 16, 1], 1, (4, 1, 8), 16, 1, None, 1),
    "pages of a token": ([5, 1, 9], 1, (2, 2, 4), 1, 9, 3, 1),
    "window in a page": ([30, 3, 16, 17], 1, (4, 2, 8), 16, 3, 5, 1),
    "window of one": ([30, 3], 1, (4, 2, 8), 16, 3, 1, 1),
    "window over pages": ([70, 3, 21], 1, (4, 2, 8), 5, 14, 18, 1),
    "chunk": ([13, 90, 33, 14], 13, (4, 2, 8), 4, 23, None, 1),  # more queries than a block of the kernel has
    "chunk and window": ([6, 90, 33, 13], 6, (4, 4, 8), 4, 23, 3, 1),
    "shards": ([9, 4, 31, 8], 3, (4, 2, 8), 4, 8, 10, 2),
}
# In the interpreter a case takes seconds to compile.
SLOW = set(GRID) - {"window in a page", "shards"}


def make(lengths, new, heads, page, max_pages, shards, *, width=None, dtype=np.float32, padding=0, seed=0):
    """Keys and values of rows, and the same in shuffled pages with nan wherever no row has a token.

    With `padding`, so many new tokens are padding: the last of even rows, the first of odd ones. Every third row is only padding.
    """
    h, k, size = heads
    batch, rng = len(lengths), np.random.default_rng(seed)
    keys, values = (rng.standard_normal((batch, max_pages * page, k, size)).astype(dtype) for _ in range(2))
    q = rng.standard_normal((batch, new, h, size)).astype(dtype)
    places = np.asarray(lengths)[:, None] - new + np.arange(new)
    if padding:
        places[::2, -padding:] = -1
        places[1::2, :padding] = -1
        places[::3] = -1
    total = 1 + batch // shards * max_pages
    pool = np.full((shards, total, page, 2 * k, width or size), np.nan, dtype)
    table = np.zeros((batch, max_pages), np.int32)
    for shard in range(shards):
        free = list(1 + rng.permutation(total - 1))
        for row in range(shard * batch // shards, (shard + 1) * batch // shards):
            for token in range(places[row].max() + 1):
                if token % page == 0:
                    table[row, token // page] = free.pop()
                slot = pool[shard, table[row, token // page], token % page]
                slot[:, size:] = 0
                slot[0::2, :size], slot[1::2, :size] = keys[row, token], values[row, token]
    return q, keys, values, pool, table, places.astype(np.int32)


def dense(q, keys, values, places, window):
    """A query at a time in float64; zeros for padding."""
    out = np.zeros(q.shape)
    for row, t in zip(*np.nonzero(places >= 0), strict=True):
        place = places[row, t]
        seen = slice(0 if window is None else max(place + 1 - window, 0), place + 1)
        for head in range(q.shape[2]):
            group = head * keys.shape[2] // q.shape[2]
            k, v = keys[row, seen, group].astype(np.float64), values[row, seen, group].astype(np.float64)
            scores = k @ q[row, t, head].astype(np.float64) * q.shape[3] ** -0.5
            weights = np.exp(scores - scores.max())
            out[row, t, head] = weights @ v / weights.sum()
    return out


def check(run, case, close=CLOSE, **options):
    lengths, new, heads, page, max_pages, window, shards = GRID[case]
    q, keys, values, pool, table, places = make(lengths, new, heads, page, max_pages, shards, **options)
    out = np.asarray(jax.jit(functools.partial(run, window=window))(q, pool, table, places), np.float64)
    np.testing.assert_allclose(out, dense(q, keys, values, places, window), **close)


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel in jax's interpreter, which cannot do a masked store into one head of a scratch array: a select does the same."""

    def store(ref, value, *, mask):
        ref[...] = jnp.where(mask, value, ref[...])

    monkeypatch.setattr(pallas, "pallas_call", functools.partial(pallas.pallas_call, interpret=True))
    monkeypatch.setattr(pallas_tpu, "store", store)
    tpu.ragged_paged_attention.clear_cache()
    yield
    tpu.ragged_paged_attention.clear_cache()


@pytest.mark.parametrize("case", GRID)
def test_the_reference_is_dense_attention_whatever_else_pages_hold(case):
    check(reference.attention, case)


@pytest.mark.parametrize("case", ["chunk", "chunk and window", "shards"])
def test_padding_changes_nothing_and_comes_out_as_zeros(case):
    check(reference.attention, case, padding=2)


def test_the_reference_in_bfloat16_rounds_and_no_more():
    # Weights and output are rounded to 8 bits, 2 ** -9 each, of values up to about 4.
    check(reference.attention, "ragged decode", {"rtol": 2**-7, "atol": 2**-6}, dtype=jnp.bfloat16)


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in GRID])
def test_the_tpu_kernel_is_dense_attention(interpreted, case):
    check(tpu.attention, case, width=tpu.LANES)


@pytest.mark.parametrize("case", [pytest.param("chunk", marks=pytest.mark.slow), "shards"])
def test_padding_in_the_tpu_kernel_changes_nothing_and_comes_out_as_zeros(interpreted, case):
    check(tpu.attention, case, padding=2, width=tpu.LANES)


@pytest.mark.slow
def test_the_tpu_kernel_in_bfloat16_rounds_and_no_more(interpreted):
    close = {"rtol": 2**-7, "atol": 2**-6}  # as for the reference
    check(tpu.attention, "chunk", close, width=tpu.LANES, dtype=jnp.bfloat16)


MESH = MeshConfig(data=2, fsdp=2, tensor=2)
LOGICAL = [("batch", None, "heads", None), ("batch", None, None, "kv_heads", None), ("batch", None), ("batch", None)]


def test_on_a_mesh_nothing_crosses_shards_or_heads():
    q, keys, values, pool, table, places = make([9, 4, 31, 8, 1, 2, 3, 30], 1, (4, 2, 8), 4, 8, 4)
    mesh = MESH.build()
    args = [jax.device_put(x, sharding(mesh, *axes)) for x, axes in zip((q, pool, table, places), LOGICAL, strict=True)]
    with jax.set_mesh(mesh):
        run = jax.jit(functools.partial(paged_attention, window=7)).lower(*args).compile()
        assert not re.search(r"all-|collective-|reduce-scatter", run.as_text())
        np.testing.assert_allclose(run(*args), dense(q, keys, values, places, 7), **CLOSE)


def test_the_tpu_kernel_on_a_mesh_is_the_same(interpreted):
    q, keys, values, pool, table, places = make([9, 4, 31, 8], 1, (4, 2, 8), 4, 8, 2, width=tpu.LANES)
    mesh = MeshConfig(data=2, tensor=2).build()
    with jax.set_mesh(mesh):
        run = jax.jit(functools.partial(tpu.attention, window=None, mesh=jax.sharding.get_abstract_mesh()))
        np.testing.assert_allclose(run(q, pool, table, places), dense(q, keys, values, places, None), **CLOSE)


def arrays(q=(4, 1, 8, 64), pool=(1, 9, 16, 8, 128), table=(4, 8), dtype=np.float32):
    return np.zeros(q, dtype), np.zeros(pool, dtype), np.zeros(table, np.int32), np.zeros(q[:2], np.int32)


def test_the_kernel_asked_for_by_name_says_why_it_cannot_run():
    with pytest.raises(ValueError, match=r"tpu paged attention cannot run: it is a TPU kernel.*runs on cpu.*'auto'"):
        paged_attention(*arrays(), impl="tpu")
    with pytest.raises(ValueError, match=r"impl='cudnn' is not one. Use 'auto' or 'tpu' or 'reference'"):
        paged_attention(*arrays(), impl="cudnn")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": np.float16}, "takes float32 or bfloat16.*float16"),
        ({"pool": (1, 9, 16, 8, 64)}, "64 wide in kv_pages, and it takes 128"),
        ({"q": (4, 1, 9, 64), "pool": (1, 9, 16, 6, 128)}, "3 key/value heads"),
        ({"q": (900, 1, 8, 64), "table": (900, 129)}, "900 rows x 129 pages takes 921600 bytes.*use larger pages"),
    ],
    ids=["type", "width", "heads", "table"],
)
def test_what_the_kernel_cannot_do_is_said(changes, said):
    assert tpu.unsupported_shape(*arrays()[:3], None) is None
    assert re.search(said, tpu.unsupported_shape(*arrays(**changes)[:3], None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": (3, 8)}, r"Expected q \[B, T, H, h\].*table \[3, 8\]"),
        ({"pool": (3, 9, 16, 8, 128)}, "B=4 rows cannot be in R=3 shards"),
        ({"pool": (1, 9, 16, 6, 128)}, "K a divisor of H=8"),
        ({"pool": (1, 9, 16, 8, 32)}, "at least h=64"),
    ],
    ids=["rows", "shards", "heads", "width"],
)
def test_arrays_that_do_not_fit_together_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        paged_attention(*arrays(**changes))


def test_heads_that_the_mesh_does_not_divide_are_refused():
    four_keys_and_four_values = arrays(q=(4, 1, 24, 64), pool=(1, 9, 16, 8, 128))
    with (
        jax.set_mesh(MeshConfig(tensor=8).build()),
        pytest.raises(ValueError, match=r"kv_heads.*cannot be split over 8"),
    ):
        paged_attention(*four_keys_and_four_values)


@pytest.fixture(scope="module")
def devices():
    pytest.importorskip("libtpu", reason="the compiler for TPUs comes with the extra `plan`")
    # Not on a Cloud machine, so there is no metadata to ask; and other programs may be compiling too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental.topologies import get_topology_desc

    return get_topology_desc("v5e:2x2", "tpu").devices


def lower(mesh, batch, new, heads, page, max_pages, shards, *, dtype=jnp.bfloat16, **options):
    h, k, size = heads
    with jax.set_mesh(mesh):
        pool = (shards, 1 + batch // shards * max_pages, page, 2 * k, head_width(size))
        shapes = [(batch, new, h, size), pool, (batch, max_pages), (batch, new)]
        args = [
            jax.ShapeDtypeStruct(shape, kind, sharding=sharding(mesh, *axes))
            for shape, kind, axes in zip(shapes, (dtype, dtype, jnp.int32, jnp.int32), LOGICAL, strict=True)
        ]
        return jax.jit(functools.partial(paged_attention, **options)).lower(*args)


@pytest.mark.parametrize(
    ("mesh", "batch", "new", "heads", "page", "max_pages", "shards", "options"),
    [
        (MeshConfig(), 8, 1, (8, 4, 128), 16, 32, 1, {}),
        (MeshConfig(), 64, 1, (14, 2, 64), 16, 128, 1, {}),  # Qwen2.5-0.5B
        (MeshConfig(), 3, 7, (4, 2, 32), 5, 9, 1, {"dtype": jnp.float32, "window": 20}),
        (MeshConfig(data=2, tensor=2), 8, 1, (16, 8, 128), 128, 8, 2, {}),
        (MeshConfig(data=2, fsdp=2), 8, 33, (4, 1, 128), 16, 32, 4, {"window": 100}),
    ],
    ids=["decode", "narrow heads", "unaligned chunk", "rows and heads", "chunk in shards"],
)
def test_auto_is_the_kernel_which_compiles_without_a_copy_of_the_pool(
    devices, mesh, batch, new, heads, page, max_pages, shards, options
):
    run = lower(mesh.build(devices), batch, new, heads, page, max_pages, shards, **options).compile()
    text = run.as_text()
    assert "ragged_paged_attention_kernel" in text
    assert not re.search(r"all-|collective-|reduce-scatter", text)
    item = jnp.dtype(options.get("dtype", jnp.bfloat16)).itemsize
    pool = batch // shards * max_pages * page * 2 * heads[1] // mesh.tensor * tpu.LANES * item  # of a device
    assert run.memory_analysis().temp_size_in_bytes < pool / 2


def test_auto_on_a_tpu_without_a_kernel_for_the_heads_is_the_reference(devices):
    mesh = MeshConfig().build(devices)
    shape = {"batch": 4, "new": 1, "heads": (8, 4, 256), "page": 16, "max_pages": 4, "shards": 1}
    assert "ragged_paged_attention" not in lower(mesh, **shape).as_text()
    with pytest.raises(ValueError, match="tpu paged attention cannot run: heads are 256 wide"):
        lower(mesh, **shape, impl="tpu")
