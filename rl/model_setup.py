"""A model ready to be trained on a mesh: where its weights come from, which of them are trained, and where each shard lives."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from framework.mesh import abstract_tree, shard_tree
from framework.state import EMA, TrainState
from models.decoder import Decoder, DecoderConfig, Pretrained
from models.lora import LoRALinear, merge_lora
from models.quant import Quantised, QuartetLinear, quantise, unquantise
from models.trainable import Freeze, Trainable, split_params

__all__ = ["ModelSetup"]


@dataclasses.dataclass(frozen=True)
class ModelSetup:
    """The structure is known at once; arrays are made when they are asked for, each shard on its own device."""

    mesh: Mesh
    source: DecoderConfig | Pretrained
    key: jax.Array
    """Of random weights and new adapters."""
    trainable: Trainable = Freeze()
    ema: EMA | None = None
    quant: Quantised | None = None
    """Linear layers that are quantised in training."""

    @functools.cached_property
    def config(self) -> DecoderConfig:
        """Sizes of the model; those of a checkpoint are read from its folder."""
        return self.source.config() if isinstance(self.source, Pretrained) else self.source

    @functools.cached_property
    def _abstract(self) -> tuple[Any, nnx.State, nnx.State]:
        def build() -> nnx.Module:
            return self._prepared(self.config.build(jax.random.key(0)), jax.random.key(0))

        with jax.set_mesh(self.mesh):  # layers that are quantised must keep groups whole on it
            return split_params(nnx.eval_shape(build), self.trainable)

    @property
    def graphdef(self) -> Any:
        """Structure of the model, a static argument of every compiled step; merge it with (trained, frozen)."""
        return self._abstract[0]

    def init(self) -> tuple[nnx.State, nnx.State]:
        """(trained, frozen) weights before the first step: from the checkpoint, or random."""
        trained, frozen = self._abstract[1:]
        shardings = shard_tree(self.mesh, trained), shard_tree(self.mesh, frozen)

        def split(model: nnx.Module, key: jax.Array) -> tuple[nnx.State, nnx.State]:
            _, trained, frozen = split_params(self._prepared(model, key), self.trainable)
            return trained, frozen

        if not isinstance(self.source, Pretrained):

            def random(key: jax.Array) -> tuple[nnx.State, nnx.State]:
                return split(self.config.build(key), jax.random.fold_in(key, 1))

            return jax.jit(random, out_shardings=shardings)(self.key)
        base = nnx.graphdef(nnx.eval_shape(lambda: self.config.build(jax.random.key(0))))

        def read(weights: nnx.State, key: jax.Array) -> tuple[nnx.State, nnx.State]:
            return split(nnx.merge(base, weights), jax.random.fold_in(key, 1))

        # Donated: the weights pass through, and a second copy of a large model would not fit.
        return jax.jit(read, out_shardings=shardings, donate_argnums=0)(self.source.load(self.mesh), self.key)

    def _prepared(self, model: nnx.Module, key: jax.Array) -> nnx.Module:
        """The model with adapters or quantised layers put in."""
        if self.quant is not None:
            model = quantise(model, self.quant, jax.random.fold_in(key, 1))
        return self.trainable.prepare(model, key)

    def new_state(self, trained: nnx.State, tx: optax.GradientTransformation) -> TrainState:
        """A state before its first update. The weights are copied: the state is donated step by step, `trained` stay."""
        create = functools.partial(TrainState.create, tx=tx, ema=self.ema)
        shardings = shard_tree(self.mesh, jax.eval_shape(create, trained))
        return jax.jit(create, out_shardings=shardings)(jax.tree.map(jnp.copy, trained))

    def abstract_state(self, tx: optax.GradientTransformation) -> TrainState:
        """Shapes and shardings of a state: what restoring a checkpoint takes."""
        create = functools.partial(TrainState.create, tx=tx, ema=self.ema)
        return abstract_tree(self.mesh, jax.eval_shape(create, self._abstract[1]))

    def abstract_trained(self) -> nnx.State:
        """Shapes and shardings of the weights that are trained."""
        return abstract_tree(self.mesh, self._abstract[1])

    def abstract_frozen(self) -> nnx.State:
        """Shapes and shardings of the weights that are not trained."""
        return abstract_tree(self.mesh, self._abstract[2])

    @staticmethod
    def whole(trained: Any, frozen: nnx.State) -> nnx.State:
        """All weights in one tree: what an engine takes."""
        return nnx.merge_state(trained, frozen)

    def plain(self, trained: nnx.State, frozen: nnx.State) -> Decoder:
        """The whole model, adapters merged into their matrices and nothing quantised: what is exported."""
        model = nnx.merge(self.graphdef, trained, frozen)
        parts = [part for _, part in nnx.iter_modules(model)]
        if any(isinstance(part, QuartetLinear) for part in parts):
            model = unquantise(model)
        return merge_lora(model) if any(isinstance(part, LoRALinear) for part in parts) else model
