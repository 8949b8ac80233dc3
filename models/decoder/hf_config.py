"""config.json of Llama, Mistral, Qwen2 / Qwen2.5 and Qwen3 to a `DecoderConfig` and back, as transformers 4 and 5 write it."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.errors import UserError
from kernels_pallas.attention import Impl as AttentionImpl
from models.decoder.config import DecoderConfig, DType, Remat
from models.decoder.rope import LinearRope, Llama3Rope, RopeScaling, YarnRope

__all__ = ["DEFAULT_MAX_POSITION", "config_from_hf", "config_to_hf", "read_json"]

DEFAULT_MAX_POSITION = 32_768
"""max_position_embeddings of an exported model without `max_position` and without rope scaling."""

_SIZES = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
}
# What transformers takes for a missing entry; None: heads, or hidden_size / heads.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": None, "head_dim": None},
    "mistral": {"num_key_value_heads": 8, "head_dim": None, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "head_dim": None, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Entries that change what a model computes, and the values at which they do not.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "attn_logit_softcapping": (None, 0, 0.0),
    "final_logit_softcapping": (None, 0, 0.0),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0, 1),
    "vision_config": (None,),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
}
_WHY = {
    "quantization_config": "the weights are quantised; use the checkpoint in bfloat16",
    "num_experts": "mixtures of experts are not there",
    "num_local_experts": "mixtures of experts are not there",
    "vision_config": "only text models are read",
}


def read_json(file: Path) -> dict[str, Any]:
    """An object from a JSON file; what is not one is a UserError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        listed = ", ".join(sorted(p.name for p in file.parent.iterdir())[:12]) if file.parent.is_dir() else ""
        raise UserError(
            f"There is no {file}. {f'{file.parent} has: {listed}' if listed else f'{file.parent} is not there or empty'}. "
            "Give the folder of a checkpoint in Hugging Face format, with config.json and safetensors."
        ) from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}). Download it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} must hold a JSON object, and holds a {type(found).__name__}. Download it again.")
    return found


def config_from_hf(
    path: str | Path,
    *,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
    remat: Remat = "none",
    scan: bool = False,
    attention: AttentionImpl = "auto",
) -> DecoderConfig:
    """The config of a checkpoint folder; how it is computed (the keywords) is not in the file.

    Raises:
        UserError: everything in the file that the decoder cannot do, in one message.
    """
    file = Path(path) / "config.json"
    hf = read_json(file)
    family = hf.get("model_type")
    if family not in _DEFAULTS:
        raise UserError(
            f"{file}: model_type={family!r} is not a family that can be read. Use a checkpoint of {', '.join(_DEFAULTS)}."
        )
    problems: list[str] = []
    fields = _sizes(hf, family, problems)
    fields |= _window(hf, family, fields.get("layers", 0), problems)
    theta, scaling = _rope(hf, problems)
    _refusals(hf, family, problems)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{file} describes a model that the decoder cannot represent:\n{listed}\nUse another checkpoint."
        )
    bias = bool(hf.get("attention_bias", False)) and family in ("llama", "qwen3")
    config = DecoderConfig(
        **fields,
        rope_theta=theta,
        rope_scaling=scaling,
        max_position=hf.get("max_position_embeddings"),
        norm_eps=float(hf.get("rms_norm_eps", 1e-6)),
        qk_norm=family == "qwen3",
        qkv_bias=bias or family == "qwen2",
        o_bias=bias,
        mlp_bias=family == "llama" and bool(hf.get("mlp_bias", False)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        scan=scan,
        remat=remat,
        attention=attention,
        dtype=dtype,
        param_dtype=param_dtype,
    )
    config.validate()
    return config


def _sizes(hf: Mapping[str, Any], family: str, problems: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for field, key in _SIZES.items():
        value = hf.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            fields[field] = value
        else:
            problems.append(f"{key}={value!r} must be a whole number above 0")
    defaults = {**_DEFAULTS[family], **{k: v for k, v in hf.items() if k in ("num_key_value_heads", "head_dim")}}
    if not problems:
        fields["kv_heads"] = defaults["num_key_value_heads"] or fields["heads"]
        fields["head_dim"] = defaults["head_dim"] or fields["dim"] // fields["heads"]
    return fields


def _window(hf: Mapping[str, Any], family: str, layers: int, problems: list[str]) -> dict[str, Any]:
    """Sliding window, and how many of the first layers go without."""
    none = {"sliding_window": None, "full_layers": 0}
    if family == "llama":
        return none
    window = hf.get("sliding_window", _DEFAULTS[family]["sliding_window"])
    types = hf.get("layer_types")
    if family == "mistral":
        first = 0
    else:
        window = window if hf.get("use_sliding_window", False) else None
        first = hf.get("max_window_layers", _DEFAULTS[family]["max_window_layers"])
    kinds = types or (["full_attention"] * layers if window is None else None)
    if kinds is None:
        kinds = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    kinds = [{"attention": "full_attention"}.get(kind, kind) for kind in kinds]
    full = next((i for i, kind in enumerate(kinds) if kind != "full_attention"), len(kinds))
    if any(kind != "sliding_attention" for kind in kinds[full:]) or len(kinds) != layers:
        problems.append(
            f"layer_types={types}: only the first layers may be full_attention and all others sliding_attention"
        )
    elif full == len(kinds):
        if family == "mistral" and types and window is not None:
            problems.append(f"sliding_window={window} and layer_types without a sliding layer contradict each other")
        return none
    elif window is None:
        problems.append(
            f"layer_types has sliding layers, but sliding_window is {hf.get('sliding_window')!r} or switched off"
        )
    return {"sliding_window": window, "full_layers": full}


def _rope(hf: Mapping[str, Any], problems: list[str]) -> tuple[float, RopeScaling | None]:
    """rope_parameters (transformers 5), or rope_theta and rope_scaling (4, and most checkpoints on the hub)."""
    rope: dict[str, Any] = dict(hf.get("rope_scaling") or hf.get("rope_parameters") or {})
    if rope and all(isinstance(value, Mapping) for value in rope.values()):
        kinds = [dict(value) for value in rope.values()]
        if any(kind != kinds[0] for kind in kinds):
            problems.append(f"rope_parameters differ between kinds of layers: {', '.join(rope)}")
        rope = kinds[0]
    theta = float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0)
    partial = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        problems.append(f"partial_rotary_factor={partial}: all of a head is turned, not a part")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if "mrope_section" in rope:
        problems.append("mrope_section: positions of images are not there")
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3", "yarn"):
        problems.append(f"rope type {kind!r}: known are default, linear, llama3 and yarn")
        return theta, None
    try:
        return theta, _scaling(kind, rope, hf)
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"rope type {kind!r} with {rope}: {error!r}")
        return theta, None


def _scaling(kind: str, rope: Mapping[str, Any], hf: Mapping[str, Any]) -> RopeScaling:
    if kind == "linear":
        return LinearRope(factor=float(rope["factor"]))
    original = hf.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    original = int(original or hf["max_position_embeddings"])
    if kind == "llama3":
        return Llama3Rope(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_position=original,
        )
    if not rope.get("truncate", True):
        raise ValueError("truncate=false is not there")
    factor = float(rope.get("factor") or hf["max_position_embeddings"] / original)
    attention = rope.get("attention_factor")
    if attention is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        over, under = (_mscale(factor, float(rope[key])) for key in ("mscale", "mscale_all_dim"))
        attention = over / under
    return YarnRope(
        factor=factor,
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        original_max_position=original,
        attention_factor=None if attention is None else float(attention),
    )


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _refusals(hf: Mapping[str, Any], family: str, problems: list[str]) -> None:
    classes = hf.get("architectures") or [_CLASSES[family]]
    if _CLASSES[family] not in classes:
        problems.append(f"architectures={classes}: only {_CLASSES[family]} has the weights of a language model")
    if hf.get("hidden_act", "silu") not in ("silu", "swish"):
        problems.append(f"hidden_act={hf['hidden_act']!r}: the decoder has silu")
    for key, neutral in _NEUTRAL.items():
        value = hf.get(key)
        if value not in neutral:
            shown = "{...}" if isinstance(value, Mapping) else repr(value)
            problems.append(f"{key}={shown}{': ' + _WHY[key] if key in _WHY else ''}")


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """config.json of the family that the config's features belong to, in the style that transformers 4 and 5 both read.

    Raises:
        UserError: no family has these features together, with the reasons for each.
    """
    config.validate()
    window = config.sliding_window if config.full_layers < config.layers else None
    obstacles = {family: _obstacles(config, family, window) for family in _CLASSES}
    family = min(obstacles, key=lambda name: len(obstacles[name]))  # the first of equals
    if obstacles[family]:
        listed = "\n".join(f"  {_CLASSES[name]}: {'; '.join(reasons)}" for name, reasons in obstacles.items())
        raise UserError(
            f"No Hugging Face model has the features of this one together, and a checkpoint would lose some:\n{listed}\n"
            f"Nearest is {_CLASSES[family]}. Train with features of one family, or keep the native checkpoint."
        )
    hf: dict[str, Any] = {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        **{key: getattr(config, field) for field, key in _SIZES.items()},
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position or _longest(config.rope_scaling),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_to_hf(config.rope_scaling),
        "tie_word_embeddings": config.tied,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    if family in ("llama", "qwen3"):
        hf["attention_bias"] = config.qkv_bias
    if family == "llama":
        hf["mlp_bias"] = config.mlp_bias
    if family == "mistral":
        hf["sliding_window"] = window
    if family in ("qwen2", "qwen3"):
        hf["use_sliding_window"] = window is not None
        hf["sliding_window"] = window
        hf["max_window_layers"] = config.full_layers if window is not None else config.layers
    return hf


def _obstacles(config: DecoderConfig, family: str, window: int | None) -> list[str]:
    """What of the config the family cannot hold."""
    qwen = family in ("qwen2", "qwen3")
    attention_bias = family in ("llama", "qwen3")
    found: list[tuple[bool, str]] = [
        (config.qk_norm and family != "qwen3", "has no qk_norm"),
        (not config.qk_norm and family == "qwen3", "always has qk_norm"),
        (family == "qwen2" and not config.qkv_bias, "always has qkv_bias"),
        (family == "mistral" and config.qkv_bias, "has no qkv_bias"),
        (not attention_bias and config.o_bias, "has no o_bias"),
        (attention_bias and config.qkv_bias != config.o_bias, "has qkv_bias and o_bias together or not at all"),
        (config.mlp_bias and family != "llama", "has no mlp_bias"),
        (window is not None and family == "llama", "has no sliding_window"),
        (window is not None and config.full_layers > 0 and not qwen, "has no full_layers beside a sliding_window"),
        (family == "llama" and config.dim % config.heads > 0, f"wants heads={config.heads} to divide dim={config.dim}"),
    ]
    return [reason for applies, reason in found if applies]


def _longest(scaling: RopeScaling | None) -> int:
    if isinstance(scaling, Llama3Rope | YarnRope):
        return math.ceil(scaling.factor * scaling.original_max_position)
    return DEFAULT_MAX_POSITION


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    kinds: Sequence[tuple[type, str]] = ((LinearRope, "linear"), (Llama3Rope, "llama3"), (YarnRope, "yarn"))
    kind = next(name for cls, name in kinds if isinstance(scaling, cls))
    fields = {key: value for key, value in dataclasses.asdict(scaling).items() if value is not None}
    if "original_max_position" in fields:
        fields["original_max_position_embeddings"] = fields.pop("original_max_position")
    return {"rope_type": kind, **fields}
