"""The device side of the engine: weights, cache, and the compiled calls. Knows nothing of requests."""

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from framework.distributed import fetch
from framework.errors import UserError
from framework.inference.config import EngineConfig
from framework.inference.decode import Decoded, Rows, decode, extend, prefill, score
from framework.inference.memory import Memory, SlotMemory
from framework.inference.pages import PageTable
from framework.inference.types import Ask, Cache, LanguageModel
from framework.mesh import batch_shards, put_batch, shard_tree, sharding
from framework.retrace import TraceBudget

__all__ = ["WATCH_LINES", "Device"]

WATCH_LINES = 8
"""Lines of the watch table; the first is empty."""


class Device:
    """R batch shards; rows of shard r are the r-th part of all rows, and nothing crosses between shards."""

    def __init__(self, model: nnx.Module, config: EngineConfig, mesh: Mesh | None, ask: Ask | None):
        self.config, self.mesh = config, mesh
        self.graphdef, params = nnx.split(model)
        self.shards = 1 if mesh is None else batch_shards(mesh)
        self._shardings = None
        if mesh is not None:
            # Whole along `embed`: weights that training splits over fsdp would be gathered at every decode step.
            self._shardings = shard_tree(mesh, params, whole=("embed",))
        self.load(params)
        self.width, self.vocab_size = self._shape_of_unembed()
        if config.top_logprobs > self.vocab_size:
            raise UserError(
                f"engine.top_logprobs={config.top_logprobs} is more than the {self.vocab_size} tokens of the model. "
                f"Set engine.top_logprobs={self.vocab_size} or less."
            )
        self.rows = config.slots_within(self.cache_bytes, self.shards)
        self.memory: Memory = self._new_memory()
        self.budget = TraceBudget()
        lengths, flats = len(config.cache_lengths), len(config.prefill_lengths)
        counted = self.budget.counted
        options = {
            "steps": config.decode_steps,
            "top": config.top_logprobs,
            "keep_hidden": config.keep_hidden,
            "ask": ask,
        }
        step = functools.partial(counted(decode, "decode", lengths), **options)
        self._decode = jax.jit(step, static_argnums=0, donate_argnums=2)
        self._prefill = jax.jit(counted(prefill, "prefill", flats), static_argnums=0)
        self._extend = jax.jit(counted(extend, "extend", lengths * flats), static_argnums=0, donate_argnums=2)
        self._insert = jax.jit(counted(_insert, "insert", lengths * flats), donate_argnums=0)
        self._copy = jax.jit(counted(_copy, "copy", lengths * len(self.copy_sizes)), donate_argnums=0)
        self._resize = jax.jit(counted(_resize, "resize", lengths * lengths), static_argnums=1)
        self._score = jax.jit(counted(score, "score", 64), static_argnums=0)
        self.length = config.cache_lengths[0]
        self.cache: Cache = self._new_cache()
        self._table: np.ndarray | None = None
        self._watch = self._put_whole(np.zeros((WATCH_LINES, self.vocab_size), bool))

    # --- weights ---

    def load(self, params: Any) -> None:
        """Use these weights: by reference where they lie as the engine wants them, else sent from device to device."""
        self.params = params if self._shardings is None else _placed(params, self._shardings)

    # --- calls; arrays of the host come in, arrays of the host go out ---

    def prefill(self, tokens: np.ndarray, positions: np.ndarray, segments: np.ndarray, rows: np.ndarray) -> None:
        """Read prompts without a past and write their keys and values; all [R, N], rows within the shard, -1 for padding."""
        with self._on_mesh():
            self._deal_pages()
            fresh = self._prefill(self.graphdef, self.params, *self._put((tokens, positions, segments)))
            self.cache = self._insert(self.cache, fresh, *self._put((rows, positions)))

    def extend(self, rows: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> None:
        """Read more tokens of one row of each shard; rows [R], the others [R, N]; -1 is none."""
        with self._on_mesh():
            self._deal_pages()
            self.cache = self._extend(self.graphdef, self.params, self.cache, *self._put((rows, tokens, positions)))

    def copy(self, pairs: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Give rows what others hold: (from, to) within the shard, for each shard."""
        most = max(map(len, pairs), default=0)
        if not most:
            return
        size = next(n for n in self.copy_sizes if n >= most)
        table = np.full((2, self.shards, size), -1, np.int32)
        table[0] = 0
        for r, shard in enumerate(pairs):
            for j, pair in enumerate(shard):
                table[:, r, j] = pair
        with self._on_mesh():
            self.cache = self._copy(self.cache, *self._put((table[0], table[1])))

    def decode(self, rows: Rows, enough: int) -> Decoded:
        """Up to `decode_steps` tokens for every live row, see `decode.decode`. Arrays of the host."""
        with self._on_mesh():
            self._deal_pages()
            ended = np.int32(enough)
            self.cache, out = self._decode(self.graphdef, self.params, self.cache, self._put(rows), self._watch, ended)
        return fetch(out)

    def score(self, tokens: np.ndarray, segments: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability and entropy of the token after each; [B, T]."""
        with self._on_mesh():
            arrays = self._put((tokens, segments))
            return fetch(self._score(self.graphdef, self.params, *arrays, np.float32(temperature)))

    def watch(self, table: np.ndarray) -> None:
        """Tokens after which the host wants to look, [WATCH_LINES, V] bool; the first line is empty."""
        self._watch = self._put_whole(table)

    # --- the cache ---

    def resize(self, length: int) -> None:
        """Read all rows to this length. Of the slots layout the old and the new cache are both there for a moment."""
        if isinstance(self.memory, PageTable):
            self.length = length
        elif length != self.length:
            with self._on_mesh():
                self.cache = self._resize(self.cache, length)
            self.length = length

    def recover(self) -> bool:
        """Make a new, empty cache if a call that failed has taken the old one with it; True if it had."""
        lost = any(x.is_deleted() for x in jax.tree.leaves(self.cache))
        if lost:
            self.cache, self._table = self._new_cache(), None
        return lost

    def cache_bytes(self, rows: int, length: int) -> int:
        """Size of a cache of the slots layout, over all devices."""
        shapes = jax.eval_shape(functools.partial(self._model_cache, rows=rows, length=length), self.params)
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))

    def _model_cache(self, params: Any, rows: int, length: int) -> Any:
        model: LanguageModel = nnx.merge(self.graphdef, params)  # pyright: ignore[reportAssignmentType]
        return model.init_cache(rows, length)

    def _new_cache(self) -> Any:
        memory = self.memory
        if isinstance(memory, PageTable):
            make = functools.partial(self._model_pages, rows=self.rows, pages=memory.pages)
        else:
            make = functools.partial(self._model_cache, rows=self.rows, length=self.length)
        with self._on_mesh():
            return jax.jit(make)(self.params)

    def _new_memory(self) -> Memory:
        config = self.config
        if config.layout == "slots":
            return SlotMemory(self.rows, self.shards, config.capacity)
        two = jax.eval_shape(functools.partial(self._model_pages, rows=self.shards, pages=2), self.params).pages
        each = sum(math.prod(x.shape) * x.dtype.itemsize for x in two) // (2 * self.shards)
        pages = config.pages_within(each, self.rows, self.shards)
        return PageTable(
            slots=self.rows, pages=pages, page=config.page_size, max_pages=config.max_pages, shards=self.shards
        )

    def _model_pages(self, params: Any, rows: int, pages: int) -> Any:
        model: LanguageModel = nnx.merge(self.graphdef, params)  # pyright: ignore[reportAssignmentType]
        page, most = self.config.page_size, self.config.max_pages
        return model.init_paged(rows, pages=pages, page=page, max_pages=most, shards=self.shards)

    def _deal_pages(self) -> None:
        """Tell the device who has which page, where that has changed."""
        if not isinstance(self.memory, PageTable):
            return
        table = self.memory.table[:, : self.length // self.config.page_size]
        if self._table is None or not np.array_equal(table, self._table):
            self._table = table.copy()
            self.cache = self.cache.with_table(self._put(self._table))  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def copy_sizes(self) -> tuple[int, ...]:
        """Numbers of rows that are copied at once."""
        most = self.rows // self.shards
        return (*(n for n in (1, 4, 16, 64, 256) if n < most), most)

    # --- placing ---

    def _shape_of_unembed(self) -> tuple[int, int]:
        """[D, V]; nothing is computed."""

        def unembed(params: Any) -> jax.Array:
            model: LanguageModel = nnx.merge(self.graphdef, params)  # pyright: ignore[reportAssignmentType]
            return model.unembed

        width, vocab = jax.eval_shape(unembed, self.params).shape
        return width, vocab

    def _put(self, tree: Any) -> Any:
        return tree if self.mesh is None else put_batch(self.mesh, tree)

    def _put_whole(self, x: np.ndarray) -> jax.Array:
        if self.mesh is None:
            return jnp.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding(self.mesh), lambda index: x[index])

    def _on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def _placed(params: Any, shardings: Any) -> Any:
    """`params` where they are wanted, sent only if they lie elsewhere."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True))
    if all(isinstance(x, jax.Array) for x, _ in pairs):
        if all(x.sharding.is_equivalent_to(wanted, x.ndim) for x, wanted in pairs):
            return params
        if all(x.sharding.device_set == wanted.device_set for x, wanted in pairs):
            # Compiled, which also works where the devices are on several hosts.
            return jax.jit(lambda tree: tree, out_shardings=shardings)(params)
    return jax.device_put(params, shardings)


def _insert(cache: Cache, fresh: Any, rows: jax.Array, places: jax.Array) -> Cache:
    return cache.insert(fresh, rows, places)


def _copy(cache: Cache, source: jax.Array, target: jax.Array) -> Cache:
    return cache.copy(source, target)


def _resize(cache: Any, length: int) -> Any:
    return cache.resize(length)
