"""The paged key/value cache: rows take pages from a pool as they grow, and rows with the same beginning share its pages."""

import dataclasses

import jax
import jax.numpy as jnp

from framework.errors import UserError
from framework.mesh import constrain
from kernels_pallas.paged_attention import Impl, head_width, paged_attention
from models.decoder.cache import FreshCache
from models.decoder.config import DecoderConfig

__all__ = ["PagedCache"]

_POOL = ("batch", None, None, "kv_heads", None)  # logical axes of a layer's pages


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PagedCache:
    """Keys and values of the tokens seen so far, in pages. Who has which page is decided on the host: `framework.inference.pages`.

    Token p of a row lies in slot p % page of the row's page number p // page. Rows, their pages and copies stay within a shard: R
    shards of B / R neighbouring rows and P pages. Page 0 of a shard belongs to nobody: what is not to be kept is written there.

    One pool a layer, keys and values interleaved (see `kernels_pallas.paged_attention`): the compiler updates each in place.
    """

    pages: tuple[jax.Array, ...]  # layers x [R, P, page, 2 Hkv, w]
    table: jax.Array  # [B, M] int32, page numbers within the row's shard; 0: no page
    impl: Impl = dataclasses.field(default="auto", metadata={"static": True})

    @classmethod
    def create(
        cls,
        config: DecoderConfig,
        *,
        rows: int,  # B, of all shards
        pages: int,  # P, of one shard, its page 0 included
        page: int,  # tokens of a page
        max_pages: int,  # M, the most that a row can have
        shards: int = 1,  # R
        impl: Impl = "auto",
    ) -> "PagedCache":
        """An empty cache: no row has a page yet.

        Raises:
            UserError: rows that cannot be dealt out to the shards, or a pool without a page to give.
        """
        if rows < 1 or shards < 1 or rows % shards:
            raise UserError(
                f"rows={rows} cannot be dealt out to shards={shards} evenly. Use a multiple of {max(shards, 1)}."
            )
        if pages < 2 or page < 1 or max_pages < 1:
            raise UserError(
                f"pages={pages} with page={page} and max_pages={max_pages} hold no token: a shard needs 2 pages or more (the first "
                "belongs to nobody), of 1 token or more, and rows of 1 page or more."
            )
        shape = (shards, pages, page, 2 * config.kv_heads, head_width(config.head_dim))
        pools = tuple(constrain(jnp.zeros(shape, config.compute_dtype), *_POOL) for _ in range(config.layers))
        return cls(pools, constrain(jnp.zeros((rows, max_pages), jnp.int32), "batch", None), impl)

    @staticmethod
    def page_bytes(config: DecoderConfig, page: int) -> int:
        """Bytes that a page takes in all layers: 2 x layers x page x kv_heads x head width x bytes of a number."""
        heads = 2 * config.layers * page * config.kv_heads
        return heads * head_width(config.head_dim) * config.compute_dtype.itemsize

    def with_table(self, table: jax.Array) -> "PagedCache":
        """The same pages, dealt out as `table` [B, M] says."""
        return dataclasses.replace(self, table=table)

    def attend(
        self, layer: int, q: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array, window: int | None
    ) -> tuple[jax.Array, "PagedCache"]:
        """Write k and v at their places, then attend.

        q [B, T, H, h]; k, v [B, T, Hkv, h]; places [B, T] int32, counting up by one along a row; -1 is padding, which is not kept.
        A place that the row has no page for is not kept either.

        Returns:
            [B, T, H, h] and the cache after the write. The query at place p sees slots s <= p, with a window p - s < window.
        """
        shards = self.pages[layer].shape[0]
        batch, length = places.shape
        rows = jnp.broadcast_to(jnp.arange(batch // shards, dtype=jnp.int32)[:, None], (batch // shards, length))
        rows = jnp.broadcast_to(rows.reshape(-1), (shards, rows.size))
        flat = [x.reshape(shards, -1, *x.shape[2:]) for x in (k, v, places)]
        pool = self._write(layer, flat[0], flat[1], rows, flat[2])
        out = paged_attention(q, pool, self.table, places, window=window, impl=self.impl)
        pages = (*self.pages[:layer], pool, *self.pages[layer + 1 :])
        return out, dataclasses.replace(self, pages=pages)

    def insert(self, fresh: FreshCache, rows: jax.Array, places: jax.Array) -> "PagedCache":
        """Write the tokens of a flat prefill [R, N] to their rows (within the shard; -1: nowhere) and places."""
        kv = zip(fresh.keys, fresh.values, strict=True)
        pools = tuple(self._write(layer, k, v, rows, places) for layer, (k, v) in enumerate(kv))
        return dataclasses.replace(self, pages=pools)

    def copy(self, source: jax.Array, target: jax.Array) -> "PagedCache":
        """Give pages `target` the contents of pages `source`, [R, J] page numbers within the shard; target -1 is unused.

        All are read before any is written: a page can be copied many times, but the target of one copy cannot be the source of
        another.
        """
        used = target >= 0
        source, target = jnp.where(used, source, 0), jnp.where(used, target, 0)
        run = jax.vmap(lambda pool, source, target: pool.at[target].set(pool[source]))
        return dataclasses.replace(
            self, pages=tuple(constrain(run(pool, source, target), *_POOL) for pool in self.pages)
        )

    def take(self, rows: jax.Array) -> "PagedCache":
        """The cache of one row of each shard, [R] -> R rows: the same pages, with the lines of these rows of the table."""
        table = self.table.reshape(len(rows), -1, self.table.shape[1])
        pick = jax.vmap(lambda lines, row: jax.lax.dynamic_index_in_dim(lines, row, keepdims=False))
        return self.with_table(pick(table, rows))

    def put(self, rows: jax.Array, part: "PagedCache") -> "PagedCache":
        """The reverse of `take`. What was not to be kept is in page 0, so that rows that are none need nothing more."""
        del rows
        return dataclasses.replace(part, table=self.table)

    @property
    def slots(self) -> int:
        """Places that a row can have."""
        return self.table.shape[1] * self.pages[0].shape[2]

    def _write(self, layer: int, k: jax.Array, v: jax.Array, rows: jax.Array, places: jax.Array) -> jax.Array:
        """The pool of a layer with k, v [R, N, Hkv, h] written at rows, places [R, N]."""
        pool = self.pages[layer]
        shards, _, page, combined, width = pool.shape
        table = self.table.reshape(shards, -1, self.table.shape[1])
        kept = (rows >= 0) & (places >= 0) & (places < self.slots)
        rows, places = jnp.where(kept, rows, 0), jnp.where(kept, places, 0)
        wide = ((0, 0), (0, 0), (0, 0), (0, 0), (0, width - k.shape[-1]))
        kv = jnp.pad(jnp.stack([k, v], axis=3), wide).reshape(*places.shape, combined, width).astype(pool.dtype)

        # Of one shard. Mapped over, so that nothing goes from one to another.
        def write(pool, table, rows, places, kept, kv):
            numbers = jnp.where(kept, table[rows, places // page], 0)
            return pool.at[numbers, places % page].set(kv)

        return constrain(jax.vmap(write)(pool, table, rows, places, kept, kv), *_POOL)
