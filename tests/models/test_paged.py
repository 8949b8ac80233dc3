"""The paged cache: whatever is inserted, forked, decoded or extended, attention over it is dense attention over the row."""

import dataclasses
import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from framework.inference.pages import PageTable
from framework.mesh import MeshConfig, sharding
from models.decoder import DecoderConfig, FreshCache
from models.decoder.paged import PagedCache

CONFIG = DecoderConfig(layers=2, heads=4, kv_heads=2, head_dim=8)
ROWS, PAGE, MAX_PAGES = 4, 4, 6
# A softmax in another order, over at most 24 keys: a few float32 steps (1.2e-7) of numbers up to about 4.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@functools.partial(jax.jit, static_argnames=("layer", "window"))
def attend(cache, layer, q, k, v, places, window):
    return cache.attend(layer, q, k, v, places, window)


insert, copy = jax.jit(PagedCache.insert), jax.jit(PagedCache.copy)


def dense(q, keys, values, first, window):
    """A query at a time: q [T, H, h] at places first ..., keys and values [S, Hkv, h] -> [T, H, h]."""
    out = np.zeros(q.shape)
    for t, head in np.ndindex(q.shape[:2]):
        seen = slice(0 if window is None else max(first + t + 1 - window, 0), first + t + 1)
        group = head * CONFIG.kv_heads // CONFIG.heads
        scores = keys[seen, group] @ q[t, head] * CONFIG.head_dim**-0.5
        weights = np.exp(scores - scores.max())
        out[t, head] = weights @ values[seen, group] / weights.sum()
    return out


def fresh_cache(keys, values):
    return FreshCache(tuple(keys), tuple(values), np.zeros(keys[0].shape[:2], np.int32))


class Rows:
    """A cache with its pages, and beside it what each row should hold: layers x [tokens, Hkv, h]."""

    def __init__(self, shards=1, window=None, mesh=None, seed=0):
        self.rng, self.shards, self.window, self.mesh = np.random.default_rng(seed), shards, window, mesh
        sizes = {"pages": 1 + ROWS // shards * MAX_PAGES, "page": PAGE, "max_pages": MAX_PAGES, "shards": shards}
        self.table = PageTable(slots=ROWS, **sizes)
        self.cache = PagedCache.create(CONFIG, rows=ROWS, **sizes)
        none = np.zeros((0, CONFIG.kv_heads, CONFIG.head_dim), np.float32)
        self.keys = [[none] * CONFIG.layers for _ in range(ROWS)]
        self.values = [[none] * CONFIG.layers for _ in range(ROWS)]

    def length(self, row):
        return len(self.keys[row][0])

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def put(self, array, *logical):
        return array if self.mesh is None else jax.device_put(array, sharding(self.mesh, *logical))

    def grow(self, row, layer, keys, values):
        self.keys[row][layer] = np.concatenate([self.keys[row][layer], keys])
        self.values[row][layer] = np.concatenate([self.values[row][layer], values])

    def with_table(self):
        return self.cache.with_table(self.put(self.table.table, "batch", None))

    def prefill(self, prompts, tokens):
        """Empty rows get prompts of so many tokens, packed one after another in each shard, padding behind and between."""
        rows = np.full((self.shards, tokens), -1, np.int32)
        places = np.full((self.shards, tokens), -1, np.int32)
        fresh = [
            [self.normal(self.shards, tokens, CONFIG.kv_heads, CONFIG.head_dim) for _ in range(2)] for _ in range(2)
        ]
        filled = [0] * self.shards
        for row, count in prompts.items():
            assert self.table.ensure(row, count)
            shard = self.table.shard(row)
            where = slice(filled[shard], filled[shard] + count)
            rows[shard, where], places[shard, where] = row % (ROWS // self.shards), np.arange(count)
            filled[shard] += count + 1
            for layer in range(CONFIG.layers):
                self.grow(row, layer, fresh[0][layer][shard, where], fresh[1][layer][shard, where])
        keys, values = ([self.put(x, "batch", None, "kv_heads", None) for x in xs] for xs in fresh)
        rows, places = self.put(rows, "batch", None), self.put(places, "batch", None)
        self.cache = insert(self.with_table(), fresh_cache(keys, values), rows, places)

    def fork(self, source, target, length):
        copies = self.table.share(source, target, length)
        pairs = np.full((2, self.shards, 3), -1, np.int32)
        for i, pair in enumerate(copies):
            pairs[:, self.table.shard(source), 1 + i] = pair
        self.cache = copy(self.cache, *(self.put(x, "batch", None) for x in pairs))
        for layer in range(CONFIG.layers):
            self.keys[target][layer] = self.keys[source][layer][:length]
            self.values[target][layer] = self.values[source][layer][:length]

    def free(self, row):
        self.table.free(row)
        none = self.keys[row][0][:0]
        self.keys[row], self.values[row] = [none] * CONFIG.layers, [none] * CONFIG.layers

    def step(self, counts, length):
        """Rows get so many new tokens each, in arrays of `length` tokens; all layers are attended to and checked."""
        places = np.full((ROWS, length), -1, np.int32)
        for row, count in counts.items():
            places[row, :count] = self.length(row) + np.arange(count)
            assert self.table.ensure(row, self.length(row) + count)
        self.cache = self.with_table()
        outs = []
        for layer in range(CONFIG.layers):
            q = self.normal(ROWS, length, CONFIG.heads, CONFIG.head_dim)
            k, v = (self.normal(ROWS, length, CONFIG.kv_heads, CONFIG.head_dim) for _ in range(2))
            args = [
                self.put(x, "batch", None, name, None)
                for x, name in zip((q, k, v), ("heads", "kv_heads", "kv_heads"), strict=True)
            ]
            out, self.cache = attend(self.cache, layer, *args, self.put(places, "batch", None), self.window)
            outs.append(np.asarray(out))
            for row, count in counts.items():
                first = self.length(row) if layer == 0 else len(self.keys[row][layer])
                self.grow(row, layer, k[row, :count], v[row, :count])
                keys, values = self.keys[row][layer], self.values[row][layer]
                want = dense(q[row, :count], keys, values, first, self.window)
                np.testing.assert_allclose(outs[-1][row, :count], want, **CLOSE)
                assert not outs[-1][row, count:].any()
        return outs


def story(rows: Rows):
    """A bit of everything; each step checks itself against dense attention."""
    outs = []
    rows.prefill({0: 6, 2: 8, 3: 1}, tokens=18)
    outs += rows.step({0: 1, 2: 1, 3: 1}, 1)
    rows.fork(0, 1, 7)
    outs += rows.step({0: 1, 1: 1, 2: 1, 3: 1}, 1)  # both write to the page that was forked
    outs += rows.step({0: 1, 1: 1}, 1)  # rows 2 and 3 pause
    rows.free(3)
    rows.fork(2, 3, 8)  # whole pages
    outs += rows.step({1: 5, 2: 2, 3: 7}, 7)  # chunks, over the ends of pages
    rows.free(0)
    rows.prefill({0: 11}, tokens=18)  # in pages that others had
    outs += rows.step({0: 7, 1: 1, 2: 3}, 7)
    return outs + rows.step({0: 1, 1: 1, 2: 1, 3: 1}, 1)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("window", [None, 1, 6])
def test_attention_over_pages_is_dense_attention_through_inserts_forks_and_chunks(shards, window):
    story(Rows(shards, window))


def test_four_shards_on_eight_devices_are_dense_attention():
    mesh = MeshConfig(data=2, fsdp=2, tensor=2).build()
    with jax.set_mesh(mesh):
        rows = Rows(4, 6, mesh)  # a row a shard: no forks
        rows.prefill({0: 6, 2: 8, 3: 1}, tokens=18)
        rows.step({0: 1, 2: 1, 3: 1}, 1)
        rows.step({0: 3, 1: 7}, 7)
        assert rows.cache.pages[0].sharding.is_equivalent_to(sharding(mesh, "batch", None, None, "kv_heads", None), 5)


def test_eight_devices_do_what_one_does():
    mesh = MeshConfig(data=2, tensor=2, context=2).build()
    with jax.set_mesh(mesh):
        got = story(Rows(2, 6, mesh))
    for one, other in zip(got, story(Rows(2, 6)), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


def test_on_a_mesh_nothing_crosses_shards():
    mesh = MeshConfig(data=2, fsdp=2, tensor=2).build()
    with jax.set_mesh(mesh):
        rows = Rows(4, 6, mesh)
        pairs = rows.put(np.zeros((4, 3), np.int32), "batch", None)
        kv = rows.put(rows.normal(4, 5, 2, 8), "batch", None, "kv_heads", None)
        q = rows.put(rows.normal(4, 3, 4, 8), "batch", None, "heads", None)
        k, v, places = kv[:, :3], kv[:, :3], pairs
        cache, tokens = rows.with_table(), rows.put(np.zeros((4, 5), np.int32), "batch", None)
        compiled = [
            copy.lower(cache, pairs, pairs).compile(),
            insert.lower(cache, fresh_cache([kv] * 2, [kv] * 2), tokens, tokens).compile(),
            attend.lower(cache, 1, q, k, v, places, None).compile(),
        ]
    for program in compiled:
        assert not re.search(r"all-|collective-|reduce-scatter", program.as_text())


def test_what_is_not_kept_goes_to_page_0_and_nowhere_else():
    rows = Rows()
    rows.prefill({0: 8, 2: 24, 3: 5}, tokens=40)
    before = [np.asarray(pool) for pool in rows.cache.pages]
    q, kv = rows.normal(ROWS, 2, 4, 8), rows.normal(ROWS, 2, 2, 8)
    # A row whose pages are full, one without a page, one at the end of its table, padding.
    places = np.array([[8, 9], [0, 1], [24, 25], [-1, -1]], np.int32)
    _, cache = attend(rows.cache, 1, q, kv, kv, places, None)
    tokens = np.array([[-1, 3, 2, 1, 0]], np.int32), np.array([[0, -1, 24, 0, 8]], np.int32)
    fresh = [rows.normal(1, 5, 2, 8)] * 2
    cache = copy(
        insert(cache, fresh_cache(fresh, fresh), *tokens), np.array([[3, 1]], np.int32), np.array([[-1, -1]], np.int32)
    )
    for old, new in zip(before, cache.pages, strict=True):
        assert np.array_equal(old[:, 1:], new[:, 1:])
        assert not np.array_equal(old[:, 0], new[:, 0])


def test_one_row_of_a_shard_can_be_extended_alone():
    rows = Rows(shards=2)
    rows.prefill({0: 6, 1: 3, 2: 8, 3: 1}, tokens=18)
    before = rows.cache
    assert rows.table.ensure(1, 3 + 5)
    cache = rows.with_table()
    q, kv = rows.normal(2, 5, 4, 8), rows.normal(2, 5, 2, 8)
    chosen = np.array([1, 0], np.int32)  # of the second shard none: all its tokens are padding
    places = np.array([[3, 4, 5, 6, 7], [-1] * 5], np.int32)
    out, part = jax.jit(lambda cache: cache.take(chosen).attend(1, q, kv, kv, places, None))(cache)
    after = cache.put(chosen, part)
    keys, values = (np.concatenate([x[1][1], kv[0]]) for x in (rows.keys, rows.values))
    np.testing.assert_allclose(out[0], dense(q[0], keys, values, 3, None), **CLOSE)
    assert np.array_equal(after.table, cache.table)
    assert np.array_equal(after.pages[0], before.pages[0])
    changed = {(int(r), int(p)) for r, p in np.argwhere((np.asarray(after.pages[1]) != before.pages[1]).any((2, 3, 4)))}
    assert changed == {(1, 0)} | {(0, int(page)) for page in rows.table.table[1, :2]}


def test_a_decoder_with_pages_says_what_it_says_in_training():
    config = DecoderConfig(
        vocab_size=50, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48, sliding_window=6, full_layers=1
    )
    model = config.build(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 50, (2, 20)).astype(np.int32)
    positions = np.tile(np.arange(20, dtype=np.int32), (2, 1))
    run = nnx.jit(lambda model, *args: model(*args))
    want, _ = run(model, tokens, positions)
    table = PageTable(slots=2, pages=11, page=4, max_pages=5)
    cache: PagedCache = PagedCache.create(config, rows=2, pages=11, page=4, max_pages=5)
    done = np.array([0, 0])
    for new in ([7, 3], [1, 1], [5, 2], [0, 1], [7, 7], [0, 6]):
        segments = (np.arange(7) < np.array(new)[:, None]).astype(np.int32)
        at = np.minimum(done[:, None] + np.arange(7), 19)
        assert all(table.ensure(row, int(length)) for row, length in enumerate(done + new))
        chunk = np.take_along_axis(tokens, at, axis=1)
        hidden, cache = run(model, chunk, at.astype(np.int32), segments, cache.with_table(table.table))
        for row in range(2):
            np.testing.assert_allclose(hidden[row, : new[row]], want[row, done[row] :][: new[row]], **CLOSE)
        done += new
    assert done.tolist() == [20, 20]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_page_bytes_are_those_of_the_arrays(dtype):
    config = dataclasses.replace(CONFIG, dtype=dtype)
    cache = PagedCache.create(config, rows=2, pages=5, page=16, max_pages=3)
    assert cache.slots == 3 * 16
    assert sum(pool.nbytes for pool in cache.pages) == 5 * PagedCache.page_bytes(config, 16)
    assert {pool.dtype for pool in cache.pages} == {config.compute_dtype}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 6}, "rows=6 cannot be dealt out to shards=4 evenly. Use a multiple of 4"),
        ({"pages": 1}, "2 pages or more"),
        ({"max_pages": 0}, "1 page or more"),
    ],
    ids=["rows", "pages", "max_pages"],
)
def test_a_cache_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        PagedCache.create(CONFIG, **({"rows": 4, "pages": 3, "page": 4, "max_pages": 2, "shards": 4} | changes))


def test_an_implementation_asked_for_by_name_is_not_replaced():
    rows = Rows()
    q, kv = rows.normal(ROWS, 1, 4, 8), rows.normal(ROWS, 1, 2, 8)
    cache = dataclasses.replace(rows.cache, impl="tpu")
    with pytest.raises(ValueError, match="tpu paged attention cannot run: it is a TPU kernel"):
        attend(cache, 0, q, kv, kv, np.zeros((ROWS, 1), np.int32), None)


@pytest.mark.parametrize(("head_dim", "length"), [(128, 1), (64, 1), (64, 16)], ids=["wide", "narrow", "chunk"])
def test_a_decode_loop_compiled_for_a_tpu_updates_the_pages_in_place(head_dim, length):
    pytest.importorskip("libtpu", reason="the compiler for TPUs comes with the extra `plan`")
    # Not on a Cloud machine, so there is no metadata to ask; and other programs may be compiling too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental.topologies import get_topology_desc

    config = DecoderConfig(layers=2, heads=8, kv_heads=4, head_dim=head_dim, dtype="bfloat16")
    mesh = MeshConfig(data=2, tensor=2).build(get_topology_desc("v5e:2x2", "tpu").devices)

    def loop(cache, q, kv, places):
        def step(_, carry):
            cache, q, places = carry
            for layer in range(config.layers):
                q, cache = cache.attend(layer, q, kv, kv, places, None)
            return cache, q, places + length

        return jax.lax.fori_loop(0, 4, step, (cache, q, places))

    def shape(shape, dtype, *logical):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(mesh, *logical))

    with jax.set_mesh(mesh):
        cache = jax.eval_shape(lambda: PagedCache.create(config, rows=8, pages=1025, page=16, max_pages=16, shards=2))
        pools = [shape(pool.shape, pool.dtype, "batch", None, None, "kv_heads", None) for pool in cache.pages]
        assert {pool.shape for pool in pools} == {(2, 1025, 16, 8, 128)}
        cache = PagedCache(tuple(pools), shape((8, 16), jnp.int32, "batch", None))
        q, kv = (
            shape((8, length, n, head_dim), jnp.bfloat16, "batch", None, name, None)
            for n, name in ((8, "heads"), (4, "kv_heads"))
        )
        program = (
            jax.jit(loop, donate_argnums=0).lower(cache, q, kv, shape((8, length), jnp.int32, "batch", None)).compile()
        )
        assert PagedCache.page_bytes(config, 16) == 2 * 2 * 16 * 4 * 128 * 2
        device = 1025 * PagedCache.page_bytes(config, 16) // 2  # of a shard, with half of the heads
    assert "ragged_paged_attention_kernel" in program.as_text()
    assert not re.search(r"all-|collective-|reduce-scatter", program.as_text())
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= device
    assert memory.temp_size_in_bytes < device / 8
