"""Load a decoder from a Hugging Face checkpoint, one tensor at a time and straight to where it will live.

    model = from_hf("checkpoints/Qwen3-0.6B", dtype="bfloat16", param_dtype="bfloat16")

`models.decoder.hf_save` goes the other way.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from framework import state as state_lib
from framework.errors import UserError
from framework.mesh import abstract_tree
from kernels_pallas.attention import Impl as AttentionImpl
from models.decoder.config import DecoderConfig, DType, Remat
from models.decoder.hf_config import config_from_hf
from models.decoder.hf_names import Source, abstract_decoder, sources
from models.decoder.model import Decoder
from models.safetensors_io import DTYPES, Part, Stored, index_folder, read_into

__all__ = ["Progress", "abstract_state", "from_hf", "load_hf", "stored_dtype"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

Box = tuple[tuple[int, int], ...]  # first and behind the last, for each axis

_SHOWN = 10  # differences listed in full
_THREADS = min(8, os.cpu_count() or 1)


def from_hf(
    path: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
    remat: Remat = "none",
    scan: bool = False,
    attention: AttentionImpl = "auto",
    progress: Progress | None = None,
) -> Decoder:
    """The model of a checkpoint folder, its weights split over `mesh` (None: on the first device).

    Raises:
        UserError: a config or files that cannot be read, with everything that is wrong.
    """
    config = config_from_hf(path, dtype=dtype, param_dtype=param_dtype, remat=remat, scan=scan, attention=attention)
    graphdef, _ = nnx.split(abstract_decoder(config))
    return nnx.merge(graphdef, load_hf(path, config, mesh=mesh, progress=progress))


def load_hf(
    path: str | Path, config: DecoderConfig, *, mesh: Mesh | None = None, progress: Progress | None = None
) -> nnx.State:
    """The weights of a checkpoint folder for `config`, as `nnx.split(config.build(key))[1]` has them.

    This host reads only what its own devices keep. On a CPU the arrays that are read into become the parameters; elsewhere this
    host holds one tensor at a time.
    """
    state = nnx.split(abstract_decoder(config))[1]
    wanted, target = sources(config, state), abstract_state(state, mesh)
    stored = index_folder(Path(path))
    _check(Path(path), config, wanted, stored)
    shapes: Sequence[jax.ShapeDtypeStruct] = jax.tree.leaves(target)
    total, done = sum(stored[name].nbytes for source in wanted for name in source.tensors), 0
    arrays: dict[int, jax.Array] = {}
    # In the order of the files, so that a slow disk is read from front to back.
    order = sorted(
        range(len(wanted)), key=lambda i: (stored[wanted[i].tensors[0]].file, stored[wanted[i].tensors[0]].start)
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        for i in order:
            parts = [stored[name] for name in wanted[i].tensors]
            arrays[i] = _load(shapes[i], wanted[i], parts, pool)
            done += sum(part.nbytes for part in parts)
            if progress is not None:
                progress(done, total)
    return state_lib.rebuild(target, [arrays[i] for i in range(len(wanted))])


def stored_dtype(path: str | Path) -> DType:
    """The type that keeps all of a checkpoint's precision: that of its embedding, and float32 for float16."""
    embedding = index_folder(Path(path)).get("model.embed_tokens.weight")
    return "bfloat16" if embedding is not None and embedding.dtype == "BF16" else "float32"


def abstract_state(state: nnx.State, mesh: Mesh | None) -> nnx.State:
    """The state with a sharded jax.ShapeDtypeStruct for each array: split over the mesh, or whole on the first device."""
    if mesh is not None:
        return abstract_tree(mesh, state)
    here = jnp.zeros(()).sharding
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


def _check(folder: Path, config: DecoderConfig, wanted: Sequence[Source], stored: Mapping[str, Stored]) -> None:
    """One error for all tensors that are missing, of another shape, of a type that cannot be read, or not known."""
    want = {name: source.shape for source in wanted for name in source.tensors}
    missing = [f"{name}: not in the files, config {list(shape)}" for name, shape in want.items() if name not in stored]
    shaped = [
        f"{name}: files {list(stored[name].shape)}, config {list(shape)}"
        for name, shape in want.items()
        if name in stored and stored[name].shape != shape
    ]
    typed = [
        f"{name}: stored as {stored[name].dtype}, and only {', '.join(DTYPES)} can be read"
        for name in want
        if name in stored and stored[name].dtype not in DTYPES
    ]
    extra = [
        f"{name}: files {stored[name].dtype}{list(stored[name].shape)}, not in the config"
        for name in stored
        if name not in want and not _harmless(name, config)
    ]
    kinds = {"missing": missing, "of another shape": shaped, "of another type": typed, "unknown": extra}
    problems = [line for lines in kinds.values() for line in lines]
    if not problems:
        return
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in kinds.items() if lines)
    # Some of every kind: a thousand missing ones must not hide the one of another type.
    share = max(2, _SHOWN // sum(bool(lines) for lines in kinds.values()))
    shown = problems if len(problems) <= _SHOWN else [line for lines in kinds.values() for line in lines[:share]]
    rest = len(problems) - len(shown)
    listed = "\n".join([*(f"  {line}" for line in shown), *([f"  ... and {rest} more"] if rest else [])])
    raise UserError(
        f"The tensors in {folder} are not those that its config.json describes ({counts}):\n{listed}\n"
        "Use the config.json that these files came with, or download the checkpoint again."
    )


def _harmless(name: str, config: DecoderConfig) -> bool:
    """Tensors that some checkpoints carry and nothing needs: a copy of the tied embedding, rotary frequencies."""
    return (name == "lm_head.weight" and config.tied) or name.endswith("rotary_emb.inv_freq")


def _load(
    target: jax.ShapeDtypeStruct, source: Source, tensors: Sequence[Stored], pool: ThreadPoolExecutor
) -> jax.Array:
    sharding = target.sharding
    assert isinstance(sharding, Sharding)
    on_host = _on_cpu(sharding)
    if not source.stacked or on_host:
        array = _read(target.shape, target.dtype, sharding, source, tensors, pool)
    else:
        array = _stack_on_device(target, source, tensors, pool)
    return array if on_host else array.block_until_ready()  # the host's copy goes before the next tensor is read


def _on_cpu(sharding: Sharding) -> bool:
    return next(iter(sharding.device_set)).platform == "cpu"


def _read(
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
    source: Source,
    tensors: Sequence[Stored],
    pool: ThreadPoolExecutor,
) -> jax.Array:
    """A parameter, all its layers if they are stacked; each different piece of it is read once on this host."""
    boxes = {_box(index, shape) for index in sharding.addressable_devices_indices_map(shape).values()}
    pieces = {box: _aligned(tuple(b - a for a, b in box), dtype) for box in boxes}
    for layer, tensor in enumerate(tensors):
        parts = [_part(box, piece, layer, source) for box, piece in pieces.items()]
        read_into(tensor, [part for part in parts if part is not None], pool, _THREADS)
    return jax.make_array_from_callback(shape, sharding, lambda index: pieces[_box(index, shape)])


def _part(box: Box, piece: np.ndarray, layer: int, source: Source) -> Part | None:
    """The rows and columns of the stored matrix that a piece of the parameter takes from this layer."""
    if source.stacked:
        (first, last), box = box[0], box[1:]
        if not first <= layer < last:
            return None
        piece = piece[layer - first]
    if len(box) == 1:
        return Part((0, 1), box[0], piece.reshape(1, -1))
    return Part(box[1], box[0], piece.T) if source.turned else Part(box[0], box[1], piece)


def _box(index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> Box:
    return tuple((s.start or 0, size if s.stop is None else s.stop) for s, size in zip(index or (), shape, strict=True))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array whose address XLA's CPU device takes as it is, so that nothing is copied once more."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(shape)


def _stack_on_device(
    target: jax.ShapeDtypeStruct, source: Source, tensors: Sequence[Stored], pool: ThreadPoolExecutor
) -> jax.Array:
    """Stacked layers put in one after the other on the device: the host holds one of them, not all."""
    sharding = target.sharding
    if isinstance(sharding, NamedSharding):
        single: Sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    else:
        assert isinstance(sharding, Sharding)
        single = sharding
    stacked = jax.jit(lambda: jnp.zeros(target.shape, target.dtype), out_shardings=sharding)()
    put = jax.jit(lambda all, one, i: all.at[i].set(one), donate_argnums=0, out_shardings=sharding)
    one = Source(source.name, source.tensors[:1], source.shape, source.turned, stacked=False)
    for i, tensor in enumerate(tensors):
        layer = _read(target.shape[1:], target.dtype, single, one, [tensor], pool)
        stacked = put(stacked, layer, i).block_until_ready()
    return stacked
