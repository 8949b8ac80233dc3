"""Adapters in the files of Hugging Face PEFT: adapter_config.json and adapter_model.safetensors, read and written.

PEFT keeps A as [rank, in] and B as [out, rank], one pair of arrays a layer, under the names of the transformers model.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.flax import load_file
from safetensors.numpy import save_file

from framework.errors import UserError
from models.lora.adapters import LoRA, LoRALinear, adapters, add_lora, shallow_copy

__all__ = ["load_peft", "read_peft_config", "save_peft"]

Model = TypeVar("Model", bound=nnx.Module)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SHOWN = 12  # differences listed in full
_MODULE = re.compile(r"blocks/(?:(?P<layer>\d+)/)?(?P<part>attention|mlp)/(?P<name>\w+)")  # of models.decoder
_PARTS = {"attention": "self_attn", "mlp": "mlp"}
_WEIGHT = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<matrix>[AB])\.weight")

# What changes the sum that is computed, or which arrays there are, and is not supported here; off means None, False or empty.
_MUST_BE_OFF = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "alora_invocation_tokens",
    "arrow_config",
    "modules_to_save",
    "layer_replication",
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "fan_in_fan_out",
    "target_parameters",
    "trainable_token_indices",
)


def save_peft(model: nnx.Module, folder: str | Path, base_model_name: str | None = None) -> Path:
    """Write the adapters of `model` for `peft.PeftModel.from_pretrained(base, folder)`; returns the folder.

    Args:
        model: a decoder with adapters.
        folder: made if it is not there; files of the same names are replaced.
        base_model_name: hub id or folder of the model below, which PEFT's automatic classes load it from.
    """
    config = _config_of(model)
    tensors: dict[str, np.ndarray] = {}
    for module, layer, adapter in _modules(model):
        for matrix, variable in (("A", adapter.lora_a), ("B", adapter.lora_b)):
            value = _on_host(variable.get_value())
            value = value if layer is None else value[layer]
            tensors[f"base_model.model.{module}.lora_{matrix}.weight"] = np.ascontiguousarray(value.T)
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if float(config.alpha).is_integer() else config.alpha,
        "use_rslora": config.rslora,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module, _, _ in _modules(model)}),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    folder = Path(folder)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return folder


def read_peft_config(folder: str | Path) -> LoRA:
    """The adapter of a PEFT folder as our config. Raises UserError for kinds of adapters that are not supported."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Give the folder that PEFT's save_pretrained wrote, with {CONFIG} in it."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Save the adapter again.") from error
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{path} describes an adapter of type {kind!r}, but only 'LORA' can be loaded.")
    used = [f"{field}={found[field]!r}" for field in _MUST_BE_OFF if found.get(field)]
    if found.get("bias", "none") != "none":
        used.append(f"bias={found['bias']!r}")
    # Other ways to start (PiSSA, OLoRA, ...) have changed the matrices of the base model as well.
    if found.get("init_lora_weights", True) not in (True, False, "gaussian", "eva"):
        used.append(f"init_lora_weights={found['init_lora_weights']!r}")
    if used:
        raise UserError(
            f"{path} uses {', '.join(used)}, which is not supported here. Merge the adapter with PEFT "
            "(merge_and_unload), and load the merged model instead."
        )
    targets = _read_targets(folder)
    try:
        return LoRA(
            rank=int(found["r"]),
            alpha=float(found["lora_alpha"]),
            targets=targets,
            rslora=bool(found.get("use_rslora", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no usable r and lora_alpha ({error!r}). Save the adapter again.") from error


def load_peft(model: Model, folder: str | Path) -> Model:
    """A model that shares the arrays of `model` and has the adapters of a PEFT folder.

    A model without adapters gets those of the folder; one that has them must have the same, and only their numbers change.

    Raises:
        UserError: files that cannot be read; adapters that do not fit, with all differences.
    """
    wanted = read_peft_config(folder)
    weights = _weights_file(folder)
    with _readable(weights):
        tensors = load_file(weights)
    if any(True for _ in adapters(model)):
        _check_same_config(_config_of(model), wanted, folder)
        model = shallow_copy(model)
    else:
        model = add_lora(model, wanted, jax.random.key(0))  # every number of it is replaced below
    expected = {
        f"base_model.model.{module}.lora_{matrix}.weight": variable.shape[-2:][::-1]
        for module, _, adapter in _modules(model)
        for matrix, variable in (("A", adapter.lora_a), ("B", adapter.lora_b))
    }
    _check_same_arrays(expected, tensors, folder)
    for path, adapter in adapters(model):
        for matrix, variable in (("A", adapter.lora_a), ("B", adapter.lora_b)):
            keys = [f"base_model.model.{module}.lora_{matrix}.weight" for module, _ in _names(path, adapter)]
            layers = [tensors[key].T.astype(jnp.float32) for key in keys]
            value = layers[0] if variable.get_value().ndim == 2 else jnp.stack(layers)
            variable.set_value(jax.device_put(value, variable.get_value().sharding))
    return model


def _names(path: str, adapter: LoRALinear) -> Iterator[tuple[str, int | None]]:
    """Module names in transformers, and the index into the stacked arrays, of the layers that an adapter of ours holds."""
    found = _MODULE.fullmatch(path)
    if found is None:
        raise UserError(
            f"{path} has no name in PEFT's files: only the attention and MLP layers of models.decoder have one. "
            "Merge the adapters (merge_lora) and save the whole model instead."
        )
    stacked = adapter.lora_a.get_value().ndim == 3
    layers = range(adapter.lora_a.get_value().shape[0]) if stacked else [int(found["layer"])]
    for layer in layers:
        yield f"model.layers.{layer}.{_PARTS[found['part']]}.{found['name']}", layer if stacked else None


def _modules(model: nnx.Module) -> Iterator[tuple[str, int | None, LoRALinear]]:
    for path, adapter in adapters(model):
        for module, layer in _names(path, adapter):
            yield module, layer, adapter


def _config_of(model: nnx.Module) -> LoRA:
    configs = {adapter.config for _, adapter in adapters(model)}
    if not configs:
        raise UserError(
            "The model has no adapters to save. Save the model itself, or add_lora(model, LoRA(), key) first."
        )
    assert len(configs) == 1, configs  # add_lora refuses a model that has adapters
    return configs.pop()


def _on_host(value: Any) -> np.ndarray:
    if not value.is_fully_addressable:
        value = multihost_utils.process_allgather(value, tiled=True)
    return np.asarray(jax.device_get(value), np.float32)


def _read_targets(folder: str | Path) -> tuple[str, ...]:
    """The adapted layers as the arrays say: target_modules may also be a regular expression."""
    path = _weights_file(folder)
    with _readable(path), safe_open(path, "numpy") as file:
        matches = [_WEIGHT.fullmatch(key) for key in file.keys()]  # noqa: SIM118 - not a dict
    targets = {match["module"].rsplit(".", 1)[-1] for match in matches if match}
    if not targets:
        raise UserError(f"{path} has no arrays named ...lora_A.weight, so it is no LoRA adapter. Give another folder.")
    return tuple(sorted(targets))


def _weights_file(folder: str | Path) -> Path:
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        pickled = " (adapter_model.bin is a pickle, which can run code and is never loaded)"
        raise UserError(
            f"{path} does not exist{pickled if (path.parent / 'adapter_model.bin').exists() else ''}. "
            "Save the adapter with safe_serialization=True."
        )
    return path


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}). Copy or save it again.") from error


def _check_same_config(ours: LoRA, theirs: LoRA, folder: str | Path) -> None:
    differences = []
    if set(ours.targets) != set(theirs.targets):
        differences.append(
            f"targets: the files have {', '.join(theirs.targets)}; the model has {', '.join(sorted(ours.targets))}"
        )
    for field in ("rank", "alpha", "rslora"):
        if getattr(ours, field) != getattr(theirs, field):
            differences.append(
                f"{field}: the files have {getattr(theirs, field)}, the model has {getattr(ours, field)}"
            )
    if differences:
        listed = "\n".join(f"  {line}" for line in differences)
        raise UserError(
            f"The adapter in {folder} is not the one that the model has:\n{listed}\n"
            f"Use {theirs!r} for the model, or load it into a model without adapters."
        )


def _check_same_arrays(expected: dict[str, tuple[int, ...]], found: dict[str, jax.Array], folder: str | Path) -> None:
    def show(shape: tuple[int, ...] | None) -> str:
        return "nothing" if shape is None else str(list(shape))

    shapes = {name: tuple(array.shape) for name, array in found.items()}
    differences = [
        f"  {name}: the files have {show(shapes.get(name))}, the model has {show(expected.get(name))}"
        for name in sorted({*expected, *shapes})
        if expected.get(name) != shapes.get(name)
    ]
    if differences:
        more = [f"  ... and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
        listed = "\n".join([*differences[:_SHOWN], *more])
        raise UserError(
            f"The arrays in {Path(folder) / WEIGHTS} do not fit the model:\n{listed}\n"
            "Load it into the model that it was trained for."
        )
