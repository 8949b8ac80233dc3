"""Write a decoder as a Hugging Face checkpoint, one tensor at a time: a crash leaves no folder that looks like one."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from framework import state as state_lib
from framework.errors import UserError
from models.decoder.config import DecoderConfig
from models.decoder.hf import Progress
from models.decoder.hf_config import config_to_hf, read_json
from models.decoder.hf_names import sources
from models.decoder.model import Decoder
from models.safetensors_io import INDEX, SINGLE, write_file

__all__ = [
    "TOKENIZER_FILES",
    "SavesToFile",
    "SavesToFolder",
    "check_new",
    "copy_tokenizer",
    "new_folder",
    "save_hf",
    "token_ids",
]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
"""What belongs to a tokenizer, chat templates and the end tokens for generation included."""

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


@runtime_checkable
class SavesToFolder(Protocol):
    """A tokenizer of transformers, or one that saves itself in the same way."""

    def save_pretrained(self, save_directory: str) -> object: ...


@runtime_checkable
class SavesToFile(Protocol):
    """A tokenizer with `save(folder)`."""

    def save(self, path: Path) -> object: ...


def save_hf(
    model: Decoder | tuple[DecoderConfig, nnx.State],
    folder: str | Path,
    *,
    tokenizer: SavesToFolder | SavesToFile | Path | None = None,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    shard_size: int = 5_000_000_000,
    progress: Progress | None = None,
) -> Path:
    """Write config.json, safetensors, generation_config.json and the tokenizer; returns the folder.

    Args:
        model: a decoder, or its config and state (arrays split over any mesh; with several hosts all must call this).
        folder: must not exist, or be empty.
        tokenizer: saved with it; a Path is a folder whose tokenizer files are copied.
        dtype: type of the stored numbers.
        shard_size: bytes after which another file begins.
        progress: called after each tensor.

    Raises:
        UserError: a model that no Hugging Face family can hold, or a folder with content.
    """
    folder = Path(folder)
    config, state = (model.config, nnx.split(model)[1]) if isinstance(model, Decoder) else model
    hf = config_to_hf(config) | {"torch_dtype": dtype}
    if dtype not in ("bfloat16", "float32"):
        raise UserError(f"dtype={dtype!r} is not a type to save in. Use 'bfloat16' or 'float32'.")
    if shard_size < 1:
        raise UserError(f"shard_size={shard_size} bytes is no size. Use 5_000_000_000, or what your disk likes.")
    with new_folder(folder) as temporary:
        if tokenizer is not None and jax.process_index() == 0:
            _save_tokenizer(tokenizer, temporary)
        ids = token_ids(tokenizer) if isinstance(tokenizer, Path) else token_ids(temporary) or _ids_of(tokenizer)
        _write_json(temporary / "config.json", hf | {key: ids.get(key) for key in _TOKENS})
        if "eos_token_id" in ids and not (temporary / "generation_config.json").is_file():
            _write_json(temporary / "generation_config.json", ids)
        _write_weights(temporary, config, state, np.dtype(dtype), shard_size, progress)
    return folder


def check_new(folder: Path) -> None:
    """A `UserError` for a folder with content, or a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty. Give a folder that is not there yet.")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when all is written. One with content is refused; what a crash leaves starts with a dot.

    With several hosts only the first has a folder that stays, the others write to one of their own that goes.
    """
    check_new(folder)
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.{jax.process_index()}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if jax.process_index() == 0:
            os.replace(temporary, folder)  # also in the place of an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_tokenizer(tokenizer: SavesToFolder | SavesToFile | Path, folder: Path) -> None:
    if isinstance(tokenizer, Path):
        copy_tokenizer(tokenizer, folder)
    elif isinstance(tokenizer, SavesToFolder):
        tokenizer.save_pretrained(str(folder))
    else:
        tokenizer.save(folder)


def _ids_of(tokenizer: object) -> dict[str, object]:
    """Begin, end and padding of a tokenizer that follows `models.tokenizer` or transformers; several ends are a list."""
    stops = tuple(getattr(tokenizer, "stop_ids", ())) or (getattr(tokenizer, "eos_token_id", None),)
    starts = tuple(getattr(tokenizer, "start_ids", ())) or (getattr(tokenizer, "bos_token_id", None),)
    pad = getattr(tokenizer, "pad_id", getattr(tokenizer, "pad_token_id", None))
    found = {
        "bos_token_id": starts[0],
        "eos_token_id": list(stops) if len(stops) > 1 else stops[0],
        "pad_token_id": pad,
    }
    return {key: value for key, value in found.items() if value is not None}


def copy_tokenizer(source: Path, folder: Path) -> list[str]:
    """Copy the tokenizer files that are there; their names."""
    found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, folder / name)
    return found


def token_ids(folder: Path) -> dict[str, object]:
    """Ids of begin, end and padding that a checkpoint's files state; generation_config.json goes first."""
    found: dict[str, object] = {}
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            found |= {key: content[key] for key in _TOKENS if key not in found and content.get(key) is not None}
    return found


def _write_weights(
    folder: Path,
    config: DecoderConfig,
    state: nnx.State,
    dtype: np.dtype,
    shard_size: int,
    progress: Progress | None,
) -> None:
    leaves = list(state_lib.leaves(state))
    shapes: dict[str, tuple[int, ...]] = {}
    where: dict[str, tuple[jax.Array, int | None, bool]] = {}
    for source, leaf in zip(sources(config, state), leaves, strict=True):
        assert isinstance(leaf.value, jax.Array)
        for layer, name in enumerate(source.tensors):
            shapes[name] = source.shape
            where[name] = (leaf.value, layer if source.stacked else None, source.turned)
    files = _split(shapes, dtype.itemsize, shard_size)
    total, done = sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.itemsize, 0

    def get(name: str) -> np.ndarray:
        nonlocal done
        array, layer, turned = where[name]
        value = _on_host(array, layer)
        done += value.size * dtype.itemsize
        if progress is not None:
            progress(done, total)
        return value.T if turned else value

    for number, names in enumerate(files, start=1):
        file = SINGLE if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        if jax.process_index() == 0:
            write_file(folder / file, {name: shapes[name] for name in names}, dtype, get)
        else:
            for name in names:  # gathering takes all hosts
                get(name)
    if len(files) > 1:
        map_ = {
            name: f"model-{number:05d}-of-{len(files):05d}.safetensors"
            for number, names in enumerate(files, start=1)
            for name in names
        }
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": map_})


def _split(shapes: Mapping[str, tuple[int, ...]], itemsize: int, shard_size: int) -> list[list[str]]:
    """Names by file, in the order they have in a checkpoint of transformers: embedding, layers, last norm, output matrix."""

    def place(name: str) -> tuple[int, int]:
        if name.startswith("model.layers."):
            return 1, int(name.split(".")[2])
        return (0, 0) if name.startswith("model.embed") else (2, 0)

    files: list[list[str]] = [[]]
    size = 0
    for name in sorted(shapes, key=place):
        nbytes = int(np.prod(shapes[name])) * itemsize
        if files[-1] and size + nbytes > shard_size:
            files.append([])
            size = 0
        files[-1].append(name)
        size += nbytes
    return files


def _on_host(array: jax.Array, layer: int | None) -> np.ndarray:
    """The array, or one layer of it, as numpy. Nothing is kept on the array: `np.asarray(array)` would hold every copy."""
    if not array.is_fully_addressable:
        assert isinstance(array.sharding, NamedSharding)
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
        array = jax.jit(lambda x: x if layer is None else x[layer], out_shardings=everywhere)(array)
        return np.asarray(array.addressable_data(0))
    box = array.shape if layer is None else array.shape[1:]
    pieces = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    if len(pieces) == 1:
        return _piece(pieces[0].data, layer)
    out = np.empty(box, array.dtype)
    for shard in pieces:
        # A layer axis is never split (see framework.mesh.RULES).
        out[shard.index if layer is None else shard.index[1:]] = _piece(shard.data, layer)
    return out


def _piece(data: jax.Array, layer: int | None) -> np.ndarray:
    if next(iter(data.devices())).platform == "cpu":  # the array's own memory
        whole = np.asarray(data)
        return whole if layer is None else whole[layer]
    return np.asarray(jnp.copy(data) if layer is None else _layer(data, layer))


@jax.jit
def _layer(stacked: jax.Array, layer: jax.Array | int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
