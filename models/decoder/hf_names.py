"""Which Hugging Face tensor a parameter of the decoder is. Matrices are [in, out] here and [out, in] there."""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx

from framework import state as state_lib
from models.decoder.config import DecoderConfig
from models.decoder.model import Block, Decoder

__all__ = ["Source", "abstract_decoder", "sources"]

_TOP = {
    "embedding": "model.embed_tokens.weight",
    "norm/scale": "model.norm.weight",
    "head": "lm_head.weight",
}
_BLOCK = {
    "attention_norm/scale": "input_layernorm.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "attention/q_norm/scale": "self_attn.q_norm.weight",
    "attention/k_norm/scale": "self_attn.k_norm.weight",
}
for _group, _there, _projections in (("attention", "self_attn", "qkvo"), ("mlp", "mlp", ("gate", "up", "down"))):
    for _projection in _projections:
        _BLOCK[f"{_group}/{_projection}_proj/kernel"] = f"{_there}.{_projection}_proj.weight"
        _BLOCK[f"{_group}/{_projection}_proj/bias"] = f"{_there}.{_projection}_proj.bias"


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensors a parameter is made of: one, or one for each layer if layers are stacked."""

    name: str  # of the parameter, "blocks/0/mlp/up_proj/kernel"
    tensors: tuple[str, ...]
    shape: tuple[int, ...]  # of each tensor, as Hugging Face stores it
    turned: bool  # the parameter is its transpose
    stacked: bool  # the parameter has a leading layer axis


def sources(config: DecoderConfig, state: nnx.State) -> list[Source]:
    """The source of every parameter, in the order of `framework.state.leaves`. `state` may be abstract."""
    return [_source(config, leaf.name, tuple(leaf.value.shape)) for leaf in state_lib.leaves(state)]  # pyright: ignore[reportAttributeAccessIssue]


def _source(config: DecoderConfig, name: str, shape: tuple[int, ...]) -> Source:
    turned = name == "head" or name.endswith("/kernel")
    stacked = config.scan and name.startswith("blocks/")
    if name in _TOP:
        tensors: Sequence[str] = (_TOP[name],)
    elif stacked:
        tensors = [f"model.layers.{i}.{_BLOCK[name.removeprefix('blocks/')]}" for i in range(config.layers)]
    else:
        _, layer, inner = name.split("/", 2)
        tensors = (f"model.layers.{layer}.{_BLOCK[inner]}",)
    inner_shape = shape[1:] if stacked else shape
    return Source(name, tuple(tensors), inner_shape[::-1] if turned else inner_shape, turned, stacked)


def abstract_decoder(config: DecoderConfig) -> Decoder:
    """The decoder with shapes in place of arrays.

    As `nnx.eval_shape` of the whole, but each kind of block is traced once: tracing 24 of them takes longer than reading
    a small checkpoint.
    """
    config.validate()
    if config.scan:
        return nnx.eval_shape(lambda: Decoder(config, _rngs()))
    shallow = dataclasses.replace(config, layers=1, full_layers=0)
    model = nnx.eval_shape(lambda: Decoder(shallow, _rngs()))
    kinds = {
        window: nnx.eval_shape(lambda window=window: Block(config, _rngs(), window))
        for window in {config.window(i) for i in range(config.layers)}
    }
    model.config = config
    model.blocks = nnx.List([nnx.clone(kinds[config.window(i)]) for i in range(config.layers)])
    return model


def _rngs() -> nnx.Rngs:
    return nnx.Rngs(params=jax.random.key(0))
