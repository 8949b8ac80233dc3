"""GRPO as an experiment: a supervised warm start, then one reinforcement-learning run an arm, all from the same weights.

GRPO: arXiv:2402.03300. Read this file for the order of things, `rl/arm.py` for one step, `rl/learner.py` for one update.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import optax
from jax.sharding import Mesh

from framework.config_types import check_types
from framework.console import Console
from framework.distributed import is_main
from framework.errors import UserError
from framework.experiment import Policy
from framework.inference import EngineConfig
from framework.mesh import MeshConfig, batch_shards, check_batch
from framework.optimizer import AdamW, Optimizer
from framework.report import Section
from framework.rundata import RunData
from framework.rundir import RunDir, StageDir
from models.decoder import DecoderConfig, Pretrained
from models.hf_tokenizer import HFTokenizer
from models.tokenizer import ByteTokenizer, LanguageTokenizer, TextTokenizer
from models.trainable import Freeze, Trainable
from rl.arm import run_arm
from rl.config import Arm, BoundedQuestions, Evaluation, Questions, QuestionSource, RewardFn, Rollout, WarmStart
from rl.evaluate import Evaluator
from rl.model_setup import ModelSetup
from rl.policy import StagePolicy
from rl.rewards import RewardPool
from rl.setup import Setup, purpose_key
from rl.warm_start import WARM_START, run_warm_start

if TYPE_CHECKING:  # a run needs nothing of the plan
    from framework.plan import Program

__all__ = ["GRPO"]

Sections = Callable[[Sequence[RunData]], Sequence[Section]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPO:
    """A warm start and arms that differ in their policy loss. Implements `framework.experiment.Experiment`."""

    name: str
    """Default name of the run folder."""
    seed: int = 0
    """Everything random follows from it: weights, questions, sampling, picks."""
    model: DecoderConfig | Pretrained
    """The policy: a model from scratch, or one from a checkpoint."""
    tokenizer: ByteTokenizer | HFTokenizer = ByteTokenizer()
    """Text to tokens; `HFTokenizer` with the checkpoint's folder for a pretrained policy."""
    trainable: Trainable = Freeze()
    """What is trained of it: everything (the default), `models.lora.LoRA`, `Freeze` or `TrainOnly`."""
    data: QuestionSource
    """Training questions, demonstrations and held-out questions."""
    reward: RewardFn
    """Judges a response: a plain function (sample, response text) -> float."""
    reward_timeout_s: float = 2.0
    """Seconds one reward may take; then it counts as 0."""
    reward_workers: int = 1
    """Processes that compute rewards."""
    warm_start: WarmStart = WarmStart()
    """Supervised training before any reward."""
    arms: tuple[Arm, ...]
    """The runs to compare."""
    steps: int = 60
    """Rollouts an arm."""
    rollout: Rollout = Rollout()
    """Sampling and updates of one step."""
    optimizer: Optimizer = AdamW(lr=3e-4)
    """Of the reinforcement-learning updates."""
    evaluation: Evaluation = Evaluation()
    """Held-out accuracy."""
    mesh: MeshConfig = MeshConfig()
    """Devices; the default uses one."""
    checkpoint_every: int = 20
    """Steps between checkpoints; the last step is always saved."""
    analysis: Sections | None = None
    """The paper's own part of the report."""

    def build(self) -> Setup:
        """Validate and make what all stages share: mesh, tokenizer, questions, model structure.

        Raises:
            UserError: a field that cannot work, with the value to type instead.
        """
        self.validate()
        mesh = self.mesh.build()
        roll, shards = self.rollout, batch_shards(mesh)
        for updates in self._all_updates():
            if roll.prompts * roll.samples % (updates * shards):
                raise UserError(
                    f"rollout.prompts={roll.prompts} x samples={roll.samples} in updates={updates} parts cannot be split over "
                    f"{shards} devices (mesh data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']}). "
                    f"Use rollout.prompts={updates * shards}, or set mesh.data=1 and mesh.fsdp=1."
                )
        check_batch(self.warm_start.batch, mesh, "warm_start.batch")
        questions: Questions = self.data.build()
        own = {arm.name: arm.data.build() for arm in self.arms if arm.data is not None}
        if self.warm_start.steps:  # data without worked examples says so here
            questions.demonstrations(seed=self.seed, batch=self.warm_start.batch, noise=self.warm_start.noise)
        model = ModelSetup(mesh, self.model, purpose_key(jax.random.key(self.seed), "init"), self.trainable)
        tokenizer = self._build_tokenizer(model.config, questions)
        for given in (questions, *own.values()):  # a file can be read to its end; generated questions cannot
            if not isinstance(given, BoundedQuestions):
                continue
            # Only the warm start reads worked responses.
            room = roll.max_new_tokens if self.warm_start.steps and given is questions else 2**31

            def encode(
                text: str,
            ) -> list[int]:  # a response has no start tokens: it may be refused for want of their place
                return [*tokenizer.start_ids, *tokenizer.encode(text)]

            given.check_lengths(encode, max_prompt=roll.max_prompt, max_new_tokens=room)
        return Setup(
            model=model,
            questions=questions,
            heldout=questions.heldout(count=self.evaluation.questions, seed=self.seed),
            tokenizer=tokenizer,
            engine_config=self.engine_config(tokenizer),
            key=jax.random.key(self.seed),
            own_questions=own,
        )

    def _build_tokenizer(self, model: DecoderConfig, questions: Questions) -> LanguageTokenizer:
        """The tokenizer, once it is clear that the model has a row for every id."""
        if isinstance(self.tokenizer, ByteTokenizer):
            tokenizer = self.tokenizer.build(self._texts(questions) if self.tokenizer.merges else ())
        else:
            tokenizer = self.tokenizer.build()
        if model.vocab_size < tokenizer.vocab_size:
            raise UserError(
                f"The model has vocab_size={model.vocab_size}, but the tokenizer uses ids up to {tokenizer.vocab_size - 1}. "
                f"Use model.vocab_size={-(-tokenizer.vocab_size // 16) * 16}, or the tokenizer of the model."
            )
        return tokenizer

    def _texts(self, questions: Questions) -> Sequence[str]:
        """What the merges of the tokenizer are learnt from: worked examples, or questions where nothing is to be imitated."""
        if not self.warm_start.steps:
            return [sample.question for sample in questions.train(seed=self.seed, batch=256)[0]]
        examples = questions.demonstrations(seed=self.seed, batch=256, noise=0.0)[0]
        return [sample.question + text for sample, text in examples]

    def validate(self) -> None:
        """Check types and numbers; raises UserError."""
        check_types(self)
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} is out of range. Use a number from 0 to {2**31 - 1}.")
        if isinstance(self.model, DecoderConfig):
            self.model.validate()
        roll, rows = self.rollout, self.rollout.prompts * self.rollout.samples
        if roll.samples < 2:
            raise UserError(
                f"rollout.samples={roll.samples}: the advantage compares the responses of one group, so a group of one "
                "learns nothing. Use rollout.samples=8 (at least 2)."
            )
        for field in ("prompts", "max_prompt", "max_new_tokens", "updates", "microbatches"):
            if getattr(roll, field) < 1:
                raise UserError(f"rollout.{field}={getattr(roll, field)} must be at least 1.")
        if roll.rows is not None and roll.rows < 1:
            raise UserError(f"rollout.rows={roll.rows} must be at least 1, or None for all responses of a step.")
        for updates in self._all_updates():
            if updates < 1:
                raise UserError(f"An arm has updates={updates}; it must be at least 1, or None for rollout.updates.")
            if rows % (updates * roll.microbatches):
                raise UserError(
                    f"rollout.prompts x samples = {rows} responses cannot be split into updates={updates} x "
                    f"microbatches={roll.microbatches} equal parts. Use rollout.prompts={updates * roll.microbatches}."
                )
        if not 0 < roll.temperature < math.inf:
            raise UserError(
                f"rollout.temperature={roll.temperature} cannot explore. Use a positive number, such as 1.0."
            )
        if not 0 <= self.evaluation.temperature < math.inf:
            raise UserError(
                f"evaluation.temperature={self.evaluation.temperature} cannot be sampled at. Use 1.0, or 0 for greedy."
            )
        if isinstance(self.model, DecoderConfig) and isinstance(self.tokenizer, ByteTokenizer):
            have, need = self.model.vocab_size, self.tokenizer.vocab_size
            if have < need:
                raise UserError(
                    f"model.vocab_size={have} is smaller than the tokenizer's {need}. Use model.vocab_size={need}."
                )
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) != len(names) or WARM_START in names:
            raise UserError(f"arms={names} need different names, at least one, and none may be {WARM_START!r}.")
        for name in names:
            if not re.fullmatch(r"[\w-]+", name) or name == "lock":
                raise UserError(
                    f"arm {name!r} cannot be a folder of the run. Use letters, digits, _ and - in its name, such as 'kl_cov'."
                )
        if self.steps < 1 or self.evaluation.questions < 1 or self.evaluation.samples < 1 or self.evaluation.every < 1:
            raise UserError(
                f"steps={self.steps}, evaluation.questions={self.evaluation.questions}, samples={self.evaluation.samples} "
                f"and every={self.evaluation.every} must all be at least 1."
            )
        if self.warm_start.steps < 0 or not 0 <= self.warm_start.noise <= 1:
            raise UserError(
                f"warm_start.steps={self.warm_start.steps} must be at least 0, and noise={self.warm_start.noise} from 0 to 1."
            )
        if self.reward_workers < 1 or not 0 < self.reward_timeout_s <= 86_400:
            raise UserError(
                f"reward_workers={self.reward_workers} must be at least 1, and reward_timeout_s={self.reward_timeout_s} "
                "positive and at most a day. Use 1 and 2.0."
            )
        if self.checkpoint_every < 1:
            raise UserError(f"checkpoint_every={self.checkpoint_every} must be at least 1. Use 20.")
        for stage in (WARM_START, *names):  # now, and not after the warm start
            self.optimizer_of(stage)
        for arm in self.arms:
            arm.loss.build()

    def _all_updates(self) -> list[int]:
        return sorted({self.rollout.updates, *(arm.updates for arm in self.arms if arm.updates is not None)})

    def optimizer_of(self, stage: str) -> optax.GradientTransformation:
        """The optimizer of the warm start or of an arm; a schedule without an end of its own ends with the stage."""
        if stage == WARM_START:
            return self.warm_start.optimizer.build(
                self.warm_start.steps or 2**31 - 1
            )  # without steps no rate is ever used
        arm = next((arm for arm in self.arms if arm.name == stage), None)
        own, updates = (None, None) if arm is None else (arm.optimizer, arm.updates)
        return (own or self.optimizer).build(self.steps * (updates or self.rollout.updates))

    def run(self, run: RunDir) -> None:
        """Start or continue: every stage that is not done."""
        self.validate()
        plan = [(WARM_START, self.warm_start.steps), *((arm.name, self.steps) for arm in self.arms)]
        with Console(stages=plan) as console, self._pool(self.reward) as pool:
            with console.status("preparing model, tokenizer and questions"):
                setup = self.build()
                if is_main():
                    own = isinstance(self.tokenizer, ByteTokenizer)
                    setup.tokenizer.save(run.path / ("tokenizer.json" if own else "tokenizer"))
                trained, frozen = setup.model.init()
            count = setup.model.config.parameter_count()
            console.print(f"{count:,} parameters, {setup.mesh.size} device(s), seed {self.seed}")
            with contextlib.ExitStack() as stack:
                score = self.evaluation.score
                evaluator = Evaluator(
                    self.evaluation,
                    setup.heldout,
                    setup.tokenizer,
                    pool if score is None else stack.enter_context(self._pool(score)),
                    setup.purpose_key("evaluation"),
                    {_name(function): stack.enter_context(self._pool(function)) for function in self.evaluation.also},
                )
                engine = setup.engine(trained, frozen)  # one for all stages: each shape compiles once a run
                stage = run.stage(WARM_START)
                trained = run_warm_start(
                    self, setup, trained, frozen, stage, engine=engine, evaluator=evaluator, console=console
                )
                for arm in self.arms:
                    run_arm(
                        self,
                        arm,
                        setup,
                        trained,
                        frozen,
                        run.stage(arm.name),
                        engine=engine,
                        pool=pool if arm.reward is None else stack.enter_context(self._pool(arm.reward)),
                        evaluator=evaluator,
                        console=console,
                    )

    def _pool(self, function: RewardFn) -> RewardPool:
        return RewardPool(function, workers=self.reward_workers, timeout_s=self.reward_timeout_s)

    def sections(self, runs: Sequence[RunData]) -> Sequence[Section]:
        """The paper's own part of the report."""
        return () if self.analysis is None else self.analysis(runs)

    def policy(self, stage: StageDir) -> Policy:
        """Generate text from a stage's newest checkpoint."""
        return StagePolicy(self.build(), self.optimizer_of(stage.name), stage)

    def export(self, stage: StageDir, folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int) -> None:
        """Write the policy of the stage's newest checkpoint in Hugging Face format, adapters merged, with its tokenizer."""
        policy = StagePolicy(self.build(), self.optimizer_of(stage.name), stage)
        policy.export(folder, dtype=dtype, shard_size=shard_size)

    def engine_config(self, tokenizer: LanguageTokenizer | None = None) -> EngineConfig:
        """Sizes of rollouts and evaluations.

        Without a tokenizer the ids of a ByteTokenizer, which is enough for shapes.
        """
        rows = self.rollout.rows or max(self.rollout.prompts * self.rollout.samples, self.evaluation.samples)
        return EngineConfig(
            slots=rows,
            max_length=self.rollout.max_prompt + self.rollout.max_new_tokens,
            max_new_tokens=self.rollout.max_new_tokens,
            stop_tokens=(TextTokenizer.eos_id,) if tokenizer is None else tokenizer.stop_ids,
            pad_token=TextTokenizer.pad_id if tokenizer is None else tokenizer.pad_id,
        )

    def programs(self, mesh: Mesh) -> "Sequence[Program]":
        """The compiled calls of a run on this mesh, for `maypole plan`."""
        from rl.programs import grpo_programs

        return grpo_programs(self, mesh)

    def remedies(self, failing: Sequence[str]) -> Sequence[Sequence[str]]:
        """What to change when these programs need too much memory."""
        from rl.programs import grpo_remedies

        return grpo_remedies(self, failing)


def _name(function: RewardFn) -> str:
    """Of a plain function, or of a config that can be called."""
    return getattr(function, "__name__", type(function).__name__)
