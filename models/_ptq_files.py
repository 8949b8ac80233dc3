"""The folder of a quantised model. See `models.ptq`.

`model.json` (the config), `quantized.json` (format and perplexity), `model.safetensors` and the tokenizer. Tensors have the names
of parameters, with dots, a layer each: "blocks.0.mlp.up_proj.kernel" is stored as `.codes` (uint8 [out, in / 2], the input of
even number in the low four bits), `.scales` (uint8 [out, in / group], the bits of E8M0 or E4M3) and, of NVFP4, `.tensor_scale`
(float32 [1], what numbers were multiplied by). All others are float32 or bfloat16, as the model has them.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from framework import state as state_lib
from framework.config_text import to_json
from framework.errors import UserError
from models._ptq_model import PTQ, PackedMatrix, abstract_packed, packed_layers
from models.decoder.config import DecoderConfig
from models.decoder.hf import abstract_state
from models.decoder.hf_config import read_json
from models.decoder.hf_names import abstract_decoder
from models.decoder.hf_save import copy_tokenizer, new_folder, token_ids
from models.decoder.native import MODEL_JSON, native_config
from models.decoder.pretrained import QUANTIZED_JSON
from models.safetensors_io import DTYPES, SINGLE, Stored, read_header

__all__ = ["Progress", "load_packed", "open_packed", "save_packed", "stored_ptq"]

Progress = Callable[[int, int], None]

_LABELS: Mapping[np.dtype, str] = {np.dtype(np.uint8): "U8", **{dtype: label for label, dtype in DTYPES.items()}}
_TYPES = {label: dtype for dtype, label in _LABELS.items()}


# --- writing -----------------------------------------------------------------------------------------------------------------


def save_packed(
    config: DecoderConfig,
    model: nnx.Module,
    folder: str | Path,
    *,
    tokenizer: Path | None = None,  # a folder whose tokenizer files are copied
    notes: Mapping[str, Any] | None = None,  # JSON, kept in quantized.json
    progress: Progress | None = None,
) -> Path:
    """Write a quantised model to a folder that must not exist, or be empty. It gets its name when all is written.

    Raises:
        UserError: a model that is not quantised, a folder with content.
    """
    found = dict(packed_layers(model))
    if not found:
        raise UserError("The model is not quantised. Use quantize_model(model, PTQ()) first, or save_hf.")
    ptq = next(iter(found.values())).config
    tensors = dict(_tensors(config, nnx.split(model)[1]))
    with new_folder(Path(folder)) as temporary:
        if tokenizer is not None:
            copied = copy_tokenizer(tokenizer, temporary)
            if "generation_config.json" not in copied and (ids := token_ids(tokenizer)):
                _write_json(temporary / "generation_config.json", ids)
        _write_tensors(temporary / SINGLE, tensors, progress)
        _write_json(temporary / MODEL_JSON, to_json(dataclasses.replace(config, scan=False)))
        _write_json(temporary / QUANTIZED_JSON, dataclasses.asdict(ptq) | {"bits": ptq.bits} | dict(notes or {}))
    return Path(folder)


def _tensors(config: DecoderConfig, state: nnx.State) -> Iterator[tuple[str, jax.Array]]:
    """Name and array of what is stored, layers apart."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    for path, variable in nodes:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for suffix, array in _arrays(variable.get_value()).items():
            if config.scan and name.startswith("blocks/"):
                for i in range(config.layers):
                    yield _stored_name(f"blocks/{i}/{name.removeprefix('blocks/')}", suffix), _scalar(array[i], suffix)
            else:
                yield _stored_name(name, suffix), _scalar(array, suffix)


def _arrays(value: Any) -> dict[str, Any]:
    """The arrays of a variable by what is added to its name."""
    if not isinstance(value, PackedMatrix):
        return {"": value}
    found = {"codes": value.codes, "scales": value.scales, "tensor_scale": value.tensor_scale}
    return {suffix: array for suffix, array in found.items() if array is not None}


def _stored_name(name: str, suffix: str) -> str:
    return ".".join([*name.split("/"), *([suffix] if suffix else [])])


def _scalar(array: jax.Array, suffix: str) -> jax.Array:
    return array.reshape(-1)[:1] if suffix == "tensor_scale" else array


def _write_tensors(file: Path, tensors: Mapping[str, jax.Array], progress: Progress | None) -> None:
    header, offset = {}, 0
    for name, array in tensors.items():
        label = _LABELS[np.dtype(array.dtype)]
        header[name] = {"dtype": label, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            value = np.ascontiguousarray(np.asarray(array))
            stream.write(value.reshape(-1).view(np.uint8).data)
            done += value.nbytes
            if progress is not None:
                progress(done, offset)
        stream.flush()
        os.fsync(stream.fileno())


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- reading -----------------------------------------------------------------------------------------------------------------


def stored_ptq(folder: Path) -> PTQ:
    """How the model of a folder was quantised."""
    file = folder / QUANTIZED_JSON
    content = read_json(file)
    fields = {field.name: content.get(field.name) for field in dataclasses.fields(PTQ)}
    ptq = PTQ(**fields)  # pyright: ignore[reportArgumentType]
    if not all(isinstance(fields[name], bool) for name in ("rotate", "activations")):
        raise UserError(f"{file} does not say how the model was quantised: {fields}. Quantise it again.")
    try:
        ptq.validate()
    except UserError as error:
        raise UserError(f"{file}: {error} It was written by another maypole: quantise the model again.") from error
    return ptq


def open_packed(folder: str | Path, *, mesh: Mesh | None = None, config: DecoderConfig | None = None) -> nnx.Module:
    """The model of a folder, ready for an engine, split over `mesh` (None: on the first device).

    `config`: that of the folder (`Pretrained(path=folder).config()`) with other types, scan or attention.
    """
    config = native_config(folder) if config is None else config
    graphdef = nnx.split(abstract_packed(abstract_decoder(config), stored_ptq(Path(folder))))[0]
    return nnx.merge(graphdef, load_packed(Path(folder), config, mesh=mesh))


def load_packed(
    folder: Path, config: DecoderConfig, *, mesh: Mesh | None = None, progress: Progress | None = None
) -> nnx.State:
    """The weights of a folder for `config`. Each device takes its part of each tensor.

    Raises:
        UserError: tensors that are missing, unknown or of another shape; a mesh that would cut a group.
    """
    state = nnx.split(abstract_packed(abstract_decoder(config), stored_ptq(folder)))[1]
    target = abstract_state(state, mesh)
    stored = read_header(folder / SINGLE) if (folder / SINGLE).is_file() else {}
    names = list(_wanted(config, state))
    _check(folder, names, stored)
    total, done = sum(part.nbytes for part in stored.values()), 0
    values: list[jax.Array] = []
    for (tensors, suffix, _), want in zip(names, jax.tree.leaves(target), strict=True):
        parts = [stored[name] for name in tensors]
        values.append(_load(parts, want, stacked=len(want.shape) > len(parts[0].shape) and suffix != "tensor_scale"))
        done += sum(part.nbytes for part in parts)
        if progress is not None:
            progress(done, total)
    return state_lib.rebuild(target, values)


def _wanted(config: DecoderConfig, state: nnx.State) -> Iterator[tuple[list[str], str, tuple[int, ...]]]:
    """Of every array of the state: the names of its tensors (one, or one a layer), what its name ends on, a tensor's shape."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    for path, variable in nodes:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for suffix, array in _arrays(variable.get_value()).items():
            stacked = config.scan and name.startswith("blocks/")
            inner = name.removeprefix("blocks/")
            layers = [f"blocks/{i}/{inner}" for i in range(config.layers)] if stacked else [name]
            shape = (1,) if suffix == "tensor_scale" else tuple(array.shape[1:] if stacked else array.shape)
            yield [_stored_name(layer, suffix) for layer in layers], suffix, shape


def _check(folder: Path, names: Sequence[tuple[list[str], str, tuple[int, ...]]], stored: Mapping[str, Stored]) -> None:
    want = {name: (shape, suffix) for tensors, suffix, shape in names for name in tensors}
    problems = [f"{name}: not in the file" for name in want if name not in stored]
    problems += [f"{name}: unknown" for name in stored if name not in want]
    for name, (shape, suffix) in want.items():
        if name not in stored:
            continue
        found = stored[name]
        allowed = {"": tuple(DTYPES), "tensor_scale": ("F32",)}.get(suffix, ("U8",))
        size = int(np.prod(found.shape)) * _TYPES[found.dtype].itemsize if found.dtype in _TYPES else -1
        if found.shape != shape or found.dtype not in allowed or size != found.nbytes:
            problems.append(
                f"{name}: file {found.dtype}{list(found.shape)}, config {' or '.join(allowed)}{list(shape)}"
            )
    if problems:
        listed = "\n".join(f"  {line}" for line in problems[:10])
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"The tensors in {folder / SINGLE} are not those that {MODEL_JSON} and {QUANTIZED_JSON} describe:\n{listed}{more}\n"
            "Quantise the model again."
        )


def _load(parts: Sequence[Stored], want: jax.ShapeDtypeStruct, *, stacked: bool) -> jax.Array:
    """One array from its tensor, or from those of all layers; mapped, so that only what devices here keep is read."""
    maps = [np.memmap(part.file, _TYPES[part.dtype], "r", part.start, part.shape) for part in parts]
    if want.shape != maps[0].shape and not stacked:  # a tensor's scale, kept once for each part of the matrix
        maps = [np.broadcast_to(one.reshape([1] * 2), want.shape[-2:]) for one in maps]
        stacked = len(want.shape) == 3

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        if not stacked:
            return np.array(maps[0][index], want.dtype)
        return np.stack([np.array(one[index[1:]], want.dtype) for one in maps[index[0]]])

    return jax.make_array_from_callback(want.shape, want.sharding, piece)
