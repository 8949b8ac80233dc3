"""The compiled calls of a GRPO run, described without making anything: what `maypole plan` compiles for a pod.

Built as `rl/arm.py`, `rl/warm_start.py` and the engine build them: same functions, same shapes, same shardings.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from framework.inference.decode import DecodeBatch, decode
from framework.mesh import batch_shards, sharding
from framework.plan import Program
from models.decoder import DecoderConfig
from rl.batch import PolicyBatch
from rl.config import Arm
from rl.learner import entropy_on, policy_step
from rl.model_setup import ModelSetup
from rl.supervised import supervised_step
from rl.warm_start import WARM_START

if TYPE_CHECKING:
    from rl.grpo import GRPO

__all__ = ["grpo_programs", "grpo_remedies"]

_START = "warm-start parameters"  # kept for the arms that follow while one is trained


def grpo_programs(config: "GRPO", mesh: Mesh) -> list[Program]:
    """Policy step of each arm, entropy on the same tokens afterwards, decoding for training and evaluation, warm start."""
    config.validate()
    parts = _Parts(config, mesh)
    steps = [parts.policy_step(arm) for arm in _distinct(config)]
    if config.warm_start.steps:
        steps.append(parts.warm_start())
    sizes = config.engine_config().group_sizes
    return [*steps, parts.entropy(), *(parts.decode(samples) for samples in sorted(sizes, reverse=True))]


def _distinct(config: "GRPO") -> list[Arm]:
    """Arms whose programs differ; an optimizer's numbers do not change one."""
    found: dict[object, Arm] = {}
    for arm in config.arms:
        kind = type(arm.optimizer or config.optimizer)
        found.setdefault((arm.loss, arm.updates or config.rollout.updates, kind), arm)
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class _Parts:
    config: "GRPO"
    mesh: Mesh

    @functools.cached_property
    def setup(self) -> ModelSetup:
        return ModelSetup(self.mesh, self.config.model, jax.random.key(0), self.config.trainable)

    @property
    def model(self) -> DecoderConfig:
        """Sizes; those of a pretrained model are read from its config.json."""
        return self.setup.config

    @functools.cached_property
    def weights(self) -> tuple[Any, Any]:
        """(trained, frozen), abstract."""
        return self.setup.abstract_trained(), self.setup.abstract_frozen()

    @functools.cached_property
    def whole(self) -> Any:
        """What the engine generates with."""
        return nnx.merge_state(*self.weights)

    def state(self, tx: optax.GradientTransformation) -> Any:
        return self.setup.abstract_state(tx)

    def batch(self, rows: int) -> PolicyBatch:
        roll = self.config.rollout
        tokens, response = (rows, roll.max_prompt + roll.max_new_tokens), (rows, roll.max_new_tokens)
        shapes = ((tokens, jnp.int32), (tokens, jnp.int32), *((response, jnp.float32),) * 3)
        return PolicyBatch(*(self.array(shape, dtype) for shape, dtype in shapes))

    def array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An abstract array whose rows are split over the mesh, as `put_batch` leaves it."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(self.mesh, "batch", *(None,) * (len(shape) - 1)))

    @property
    def key(self) -> Any:
        return jax.eval_shape(lambda: jax.random.key(0))

    def policy_step(self, arm: Arm) -> Program:
        roll, tx = self.config.rollout, self.config.optimizer_of(arm.name)
        updates = arm.updates or roll.updates
        rows = roll.prompts * roll.samples // updates
        fn = functools.partial(
            policy_step,
            self.setup.graphdef,
            loss=arm.loss.build(),
            tx=tx,
            temperature=roll.temperature,
            microbatches=roll.microbatches,
        )
        return Program(
            name=f"policy step {arm.name}",
            role="policy step",
            fn=fn,
            args=(self.state(tx), self.weights[1], self.batch(rows), self.key),
            kinds=("state", "frozen parameters", "batch", "key"),
            donate=(0,),
            resident=((_START, self.weights[0]),),
            calls=updates,
            tokens=rows * (roll.max_prompt + roll.max_new_tokens),
            model_flops=3 * self.forward_flops(rows),
        )

    def warm_start(self) -> Program:
        tx, rows, roll = self.config.optimizer_of(WARM_START), self.config.warm_start.batch, self.config.rollout
        return Program(
            name="warm-start step",
            fn=functools.partial(supervised_step, self.setup.graphdef, tx=tx),
            args=(self.state(tx), self.weights[1], self.batch(rows)),
            kinds=("state", "frozen parameters", "batch"),
            donate=(0,),
            resident=(("first parameters", self.weights[0]),),  # what the engine was made with
            calls=0,
            tokens=rows * (roll.max_prompt + roll.max_new_tokens),
            model_flops=3 * self.forward_flops(rows),
        )

    def entropy(self) -> Program:
        """Forward passes over the tokens of the first update, after the last one."""
        roll, arm = self.config.rollout, self.config.arms[0]
        rows = roll.prompts * roll.samples // (arm.updates or roll.updates)
        optimizer = self.state(self.config.optimizer_of(arm.name)).opt_state
        return Program(
            name="entropy afterwards",
            fn=functools.partial(entropy_on, self.setup.graphdef),
            args=(*self.weights, self.batch(rows)),
            kinds=("parameters", "frozen parameters", "batch"),
            resident=(("optimizer", optimizer), (_START, self.weights[0])),
            tokens=rows * (roll.max_prompt + roll.max_new_tokens),
            model_flops=self.forward_flops(rows),
        )

    def decode(self, samples: int) -> Program:
        roll, engine, shards = self.config.rollout, self.config.engine_config(), batch_shards(self.mesh)
        (length,) = engine.prompt_buckets
        prompts = math.ceil(max(engine.rows // samples, 1) / shards) * shards
        rows = prompts * samples
        fn = functools.partial(
            decode,
            self.setup.graphdef,
            samples=samples,
            new_tokens=engine.max_new_tokens,
            stop_tokens=engine.stop_tokens,
            pad_token=engine.pad_token,
        )
        tokens, number = (prompts, length), (prompts,)
        shapes = (
            (tokens, jnp.int32),
            (tokens, jnp.int32),
            (number, jnp.uint32),
            (number, jnp.uint32),
            (number, jnp.float32),
            (number, jnp.int32),
        )
        batch = DecodeBatch(*(self.array(shape, dtype) for shape, dtype in shapes))
        slots = length + engine.max_new_tokens
        cache = jax.eval_shape(
            lambda params: nnx.merge(self.setup.graphdef, params).init_cache(rows, slots), self.whole
        )
        optimizer = self.state(self.config.optimizer_of(self.config.arms[0].name)).opt_state
        return Program(
            name=f"decode, {samples} a prompt",
            fn=fn,
            args=(self.whole, batch, self.key),
            kinds=("parameters", "batch", "key"),
            resident=(("optimizer", optimizer), (_START, self.weights[0])),
            inside=(("cache", cache),),
            calls=math.ceil(roll.prompts / prompts) if samples == roll.samples else 0,
            tokens=rows * engine.max_new_tokens,
            model_flops=self.decode_flops(prompts, rows, length, engine.max_new_tokens),
        )

    # --- FLOPs by formula: 2 a parameter and token, and attention over what a token may look at; three times that to train ---

    def forward_flops(self, rows: int) -> float:
        """Whole sequences; only tokens that predict a response token meet the output matrix. Attention is causal."""
        roll, model = self.config.rollout, self.model
        length = roll.max_prompt + roll.max_new_tokens
        blocks = 2.0 * _block_parameters(model) * length + _attention_flops(model, length * length / 2)
        return rows * (blocks + 2.0 * model.vocab_size * model.dim * roll.max_new_tokens)

    def decode_flops(self, prompts: int, rows: int, length: int, new: int) -> float:
        model = self.model
        prefill = 2.0 * _block_parameters(model) * length + _attention_flops(model, length * length / 2)
        steps = 2.0 * _block_parameters(model) * new + _attention_flops(model, new * (length + new / 2))
        return prompts * prefill + rows * (steps + 2.0 * model.vocab_size * model.dim * new)


def _block_parameters(model: DecoderConfig) -> int:
    return model.parameter_count() - model.vocab_size * model.dim * (1 if model.tied else 2)


def _attention_flops(model: DecoderConfig, pairs: float) -> float:
    """Scores and weighted values of so many pairs of a query and a key."""
    return 4.0 * model.layers * model.heads * model.head_dim * pairs


def grpo_remedies(config: "GRPO", failing: Sequence[str]) -> list[list[str]]:
    """Overrides to try, cheapest in speed first: smaller micro-batches, recomputation, fewer rows decoded at once."""
    training = any(not name.startswith("decode") for name in failing)
    decoding = any(name.startswith("decode") for name in failing)
    less_training = _less_training(config) if training else []
    less_decoding = [["--rollout.rows", str(rows)] for rows in _fewer_rows(config)] if decoding else []
    if not (less_training and less_decoding):
        return less_training or less_decoding
    rounds = max(len(less_training), len(less_decoding))
    at = lambda options, i: options[min(i, len(options) - 1)]  # noqa: E731 - the last one stays when there are no more
    return [[*at(less_training, i), *at(less_decoding, i)] for i in range(rounds)]


def _less_training(config: "GRPO") -> list[list[str]]:
    roll, model = config.rollout, config.model
    rows = roll.prompts * roll.samples // max(arm.updates or roll.updates for arm in config.arms)
    shards = max(config.mesh.data, 1) * max(config.mesh.fsdp, 1)
    possible = [
        m for m in range(roll.microbatches + 1, rows + 1) if rows % m == 0 and rows // m % shards == 0
    ]  # every device keeps at least a row of each part
    chosen = sorted({min((m for m in possible if m >= f * roll.microbatches), default=0) for f in (2, 4, 16)} - {0})
    parts = [["--rollout.microbatches", str(m)] for m in chosen]
    if model.remat == "full":
        return parts
    return [*parts[:1], ["--model.remat", "full"], *(["--model.remat", "full", *part] for part in parts)]


def _fewer_rows(config: "GRPO") -> list[int]:
    engine = config.engine_config()
    least = max(engine.group_sizes)
    return [rows for share in (2, 4, 8, 16) if (rows := engine.rows // share // least * least) >= least]
