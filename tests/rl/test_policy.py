"""A policy that was trained with rewards leaves a run as a whole model that others open."""

import dataclasses

import chex
import jax.numpy as jnp
import pytest
from flax import nnx

from experiments.entropy_mechanism import smoke
from framework.checkpoint import Checkpoints
from framework.errors import UserError
from framework.experiment import Exportable
from framework.rundir import StageDir
from framework.state import leaves, rebuild
from models.decoder import from_hf
from models.lora import LoRA

CONFIG = dataclasses.replace(smoke, trainable=LoRA(rank=2, alpha=4.0))


def test_the_export_of_an_arm_holds_its_newest_adapters_merged_and_the_tokenizer(tmp_path):
    assert isinstance(CONFIG, Exportable)
    name = CONFIG.arms[0].name
    setup, stage = CONFIG.build(), StageDir(tmp_path / name)
    trained, frozen = setup.model.init()
    filled = rebuild(trained, [jnp.full_like(leaf.value, 0.1) for leaf in leaves(trained)])  # a new B is 0
    state = setup.model.new_state(filled, CONFIG.optimizer_of(name))
    with Checkpoints(stage.checkpoints_path) as checkpoints:
        checkpoints.save(3, state)
    CONFIG.export(stage, tmp_path / "out", dtype="float32", shard_size=10**9)
    model = from_hf(tmp_path / "out")
    tokens = jnp.arange(8)[None]
    got = model(tokens, tokens)[0]
    want = nnx.merge(setup.graphdef, filled, frozen)(tokens, tokens)[0]
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)  # float32: W + A B in another order than x W + (x A) B
    without = nnx.merge(setup.graphdef, trained, frozen)(tokens, tokens)[0]
    assert float(jnp.max(jnp.abs(got - without))) > 0.01  # the adapters do something
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("1 plus 1") == setup.tokenizer.encode("1 plus 1")


def test_an_arm_without_a_checkpoint_has_nothing_to_export(tmp_path):
    with pytest.raises(UserError, match="has no finished checkpoint yet"):
        CONFIG.export(StageDir(tmp_path / "none"), tmp_path / "out", dtype="float32", shard_size=10**9)
