"""The native folder of a model: `model.json` (its config), `weights/` (an Orbax checkpoint) and the files of its tokenizer.

Quicker to open than a Hugging Face checkpoint where each device reads its part of the arrays, and it holds models that no
Hugging Face family has.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from framework import state as state_lib
from framework.config import nearest
from framework.config_text import TYPE, to_json
from framework.errors import UserError
from models.decoder.config import DecoderConfig
from models.decoder.hf import abstract_state
from models.decoder.hf_config import read_json
from models.decoder.hf_names import abstract_decoder
from models.decoder.hf_save import copy_tokenizer, new_folder, token_ids
from models.decoder.rope import LinearRope, Llama3Rope, YarnRope

__all__ = ["MODEL_JSON", "load_native", "native_config", "save_native"]

MODEL_JSON, WEIGHTS = "model.json", "weights"

_TYPES: Mapping[str, type] = {cls.__name__: cls for cls in (DecoderConfig, LinearRope, Llama3Rope, YarnRope)}


def save_native(config: DecoderConfig, state: nnx.State, folder: str | Path, *, tokenizer: Path | None = None) -> Path:
    """Write a native folder that must not exist, or be empty; `tokenizer`: a folder whose tokenizer files are copied."""
    from framework.checkpoint import Checkpoints  # slow to import, and most models never need it

    with new_folder(Path(folder)) as temporary:
        with Checkpoints(temporary / WEIGHTS) as checkpoints:
            checkpoints.save(0, state)
        if tokenizer is not None:
            copied = copy_tokenizer(tokenizer, temporary)
            if "generation_config.json" not in copied and (ids := token_ids(tokenizer)):
                (temporary / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
        (temporary / MODEL_JSON).write_text(json.dumps(to_json(config), indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def native_config(folder: str | Path) -> DecoderConfig:
    """The config a native folder was written with."""
    file = Path(folder) / MODEL_JSON
    config = _from_json(read_json(file), file)
    if not isinstance(config, DecoderConfig):
        raise UserError(f"{file} holds a {type(config).__name__}, not a DecoderConfig. Import the model again.")
    config.validate()
    return config


def _from_json(value: Any, file: Path) -> Any:
    """The config dataclass that `framework.config_text.to_json` wrote."""
    if not isinstance(value, dict):
        return value
    cls = _TYPES.get(str(value.get(TYPE)))
    if cls is None:
        raise UserError(f"{file} holds a {value.get(TYPE)!r}; known are {', '.join(_TYPES)}. It needs a newer maypole.")
    known = [field.name for field in dataclasses.fields(cls)]
    if unknown := [name for name in value if name not in (*known, TYPE)]:
        hint = nearest(unknown[0], known)
        raise UserError(f"{file}: {cls.__name__} has no {', '.join(unknown)}.{hint} It was written by another maypole.")
    return cls(**{name: _from_json(item, file) for name, item in value.items() if name != TYPE})


def load_native(folder: str | Path, config: DecoderConfig, *, mesh: Mesh | None = None) -> nnx.State:
    """The weights of a native folder for `config`, which may ask for another type, or for stacked layers."""
    from framework.checkpoint import Checkpoints  # as in `save_native`

    stored = native_config(folder)
    have = abstract_state(nnx.split(abstract_decoder(stored))[1], mesh)
    state, _ = Checkpoints(Path(folder) / WEIGHTS).restore(0, have)
    want = abstract_state(nnx.split(abstract_decoder(config))[1], mesh)
    arrays = {leaf.name: leaf.value for leaf in state_lib.leaves(state)}
    values: list[jax.Array] = []
    for leaf in state_lib.leaves(want):
        assert isinstance(leaf.value, jax.ShapeDtypeStruct)
        values.append(_relaid(leaf.name, leaf.value, arrays, stored, config))
    return state_lib.rebuild(want, values)


def _relaid(
    name: str, want: jax.ShapeDtypeStruct, arrays: dict[str, Any], stored: DecoderConfig, config: DecoderConfig
) -> jax.Array:
    """One parameter from those of the file: layers stacked or taken apart, and converted."""
    if stored.scan == config.scan or not name.startswith("blocks/"):
        array = arrays.pop(name)
        same = array.dtype == want.dtype
        return array if same else jax.jit(lambda x: x.astype(want.dtype), out_shardings=want.sharding)(array)
    if config.scan:
        inner = name.removeprefix("blocks/")
        layers = [arrays.pop(f"blocks/{i}/{inner}") for i in range(config.layers)]
        return jax.jit(lambda xs: jnp.stack(xs).astype(want.dtype), out_shardings=want.sharding)(layers)
    _, layer, inner = name.split("/", 2)
    take = jax.jit(lambda x, i: x[i].astype(want.dtype), out_shardings=want.sharding)
    return take(arrays[f"blocks/{inner}"], int(layer))
