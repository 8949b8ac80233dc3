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

from framework.inference.decode import Rows, decode, prefill
from framework.inference.device import WATCH_LINES
from framework.inference.sampling import Sampling
from framework.mesh import batch_shards, shard_tree, sharding
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
    """Policy step of each arm, entropy on the same tokens afterwards, prefill and decoding, warm start."""
    config.validate()
    parts = _Parts(config, mesh)
    steps = [parts.policy_step(arm) for arm in _distinct(config)]
    if config.warm_start.steps:
        steps.append(parts.warm_start())
    return [*steps, parts.entropy(), parts.prefill(), parts.decode()]


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

    def prefill(self) -> Program:
        """Prompts one after another, as many as the engine takes at once on each device."""
        roll, engine, shards = self.config.rollout, self.config.engine_config(), batch_shards(self.mesh)
        size = engine.prefill_lengths[-1]
        flat = self.array((shards, size), jnp.int32)
        return Program(
            name="prefill",
            fn=functools.partial(prefill, self.setup.graphdef),
            args=(self.generating, flat, flat, flat),
            kinds=("parameters", "batch", "batch", "batch"),
            resident=(*self.beside_decoding, ("cache", self.cache)),
            calls=math.ceil(roll.prompts * roll.max_prompt / (shards * size)),
            tokens=shards * size,
            model_flops=shards * size * (2.0 * _block_parameters(self.model))
            + _attention_flops(self.model, shards * size * roll.max_prompt / 2),
        )

    def decode(self) -> Program:
        """One compiled call of the engine: some steps for all rows. Without `steps` of its own a row counts as half full."""
        roll, engine = self.config.rollout, self.config.engine_config()
        rows, steps = self.slots, engine.decode_steps
        fn = functools.partial(decode, self.setup.graphdef, steps=steps)
        line, number = self.array((rows,), jnp.int32), jnp.int32
        unsigned, real, true = (self.array((rows,), dtype) for dtype in (jnp.uint32, jnp.float32, jnp.bool_))
        batch = Rows(
            live=true,
            token=line,
            place=line,
            count=line,
            limit=line,
            base=self.array((rows, 2), jnp.uint32),
            request=unsigned,
            sample=unsigned,
            sampling=Sampling(real, line, real, real, line),
            stops=self.array((rows, engine.max_stop_tokens), jnp.int32),
            watch=line,
            top=true,
        )
        watch = jax.ShapeDtypeStruct((WATCH_LINES, self.model.vocab_size), jnp.bool_, sharding=sharding(self.mesh))
        waves = math.ceil(roll.prompts * roll.samples / rows)
        matrices = 2.0 * (_block_parameters(self.model) + self.model.vocab_size * self.model.dim)
        seen = roll.max_prompt + roll.max_new_tokens / 2
        return Program(
            name="decode",
            fn=fn,
            args=(self.generating, self.cache, batch, watch, jax.ShapeDtypeStruct((), number)),
            kinds=("parameters", "cache", "batch", "batch", "batch"),
            donate=(1,),
            resident=self.beside_decoding,
            calls=waves * math.ceil(roll.max_new_tokens / steps),
            tokens=rows * steps,
            model_flops=rows * steps * (matrices + _attention_flops(self.model, seen)),
        )

    @functools.cached_property
    def generating(self) -> Any:
        """The weights as the engine has them: whole along the axis that training splits over fsdp."""
        shardings = jax.tree.leaves(shard_tree(self.mesh, self.whole, whole=("embed",)))
        leaves, tree = jax.tree.flatten(self.whole)
        placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s) for x, s in zip(leaves, shardings, strict=True)]
        return jax.tree.unflatten(tree, placed)

    @property
    def slots(self) -> int:
        shards = batch_shards(self.mesh)
        return math.ceil(self.config.engine_config().slots / shards) * shards

    @functools.cached_property
    def cache(self) -> Any:
        slots = self.config.engine_config().cache_lengths[-1]
        make = lambda params: nnx.merge(self.setup.graphdef, params).init_cache(self.slots, slots)  # noqa: E731
        place = sharding(self.mesh, "batch", "kv_heads", None, None)
        shapes = jax.eval_shape(make, self.whole)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)

    @property
    def beside_decoding(self) -> tuple[tuple[str, Any], ...]:
        """The optimizer, the weights that every arm starts from, and those of training where the engine has a copy of its own."""
        optimizer = self.state(self.config.optimizer_of(self.config.arms[0].name)).opt_state
        own = (("training parameters", self.whole),) if self.mesh.shape["fsdp"] > 1 else ()
        return (("optimizer", optimizer), (_START, self.weights[0]), *own)

    # --- FLOPs by formula: 2 a parameter and token, and attention over what a token may look at; three times that to train ---

    def forward_flops(self, rows: int) -> float:
        """Whole sequences; only tokens that predict a response token meet the output matrix. Attention is causal."""
        roll, model = self.config.rollout, self.model
        length = roll.max_prompt + roll.max_new_tokens
        blocks = 2.0 * _block_parameters(model) * length + _attention_flops(model, length * length / 2)
        return rows * (blocks + 2.0 * model.vocab_size * model.dim * roll.max_new_tokens)


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
    rows = config.engine_config().slots
    return [rows // share for share in (2, 4, 8, 16) if rows // share >= 1]
