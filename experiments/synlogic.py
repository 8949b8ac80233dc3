"""SynLogic (arXiv:2505.19641): reinforcement learning on logic tasks whose answers a rule can judge.

maypole run synlogic                     four arms on two CPU cores, minutes, then a report
maypole run synlogic:hacking             what a policy does with a verifier that accepts too much
maypole reproduce synlogic               all claims, three seeds, experiments/results/synlogic.json

A small decoder learns worked examples of five logic tasks and of sums, every second one with a wrong answer, and is then trained
by reward alone: GRPO with the changes the paper takes from DAPO (clip from 0.2 below to 0.28 above, mean over tokens, no KL
term). DAPO's dynamic sampling is off: `rl` has none. The other arms change one thing each: a symmetric clip, a reward for the
format alone, sums without logic at the same number of steps.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data.mixture_rewards import RewardByTask, exact_answer, format_reward
from data.mixture_sources import Mixed, Part
from data.questions import SynLogic
from data.synlogic import TASKS, official_reward, verifier_reward
from experiments._synlogic_report import hacking_sections, sections
from experiments._synlogic_runs import Study
from experiments._synlogic_sums import Sums
from framework.experiment import Claim
from framework.mesh import MeshConfig
from framework.optimizer import AdamW
from models.decoder import DecoderConfig
from models.decoder.sizes import QWEN25_7B
from models.tokenizer import ByteTokenizer
from rl.config import Arm, Evaluation, Rollout, WarmStart
from rl.grpo import GRPO
from rl.losses import Clipped

__all__ = [
    "GRID",
    "band",
    "claims",
    "hacking",
    "paper",
    "reproduce",
    "smoke",
    "smoke_hacking",
    "study",
    "tiny",
]

DAPO = Clipped(eps_lo=0.2, eps_hi=0.28)
LOGIC = SynLogic(
    tasks=(
        ("dyck_language", "tiny"),
        ("dyck_language_errors", "tiny"),
        ("kukurasu", "tiny"),
        ("boolean_expressions", "tiny"),
        ("math_path", "tiny"),
    ),
    weights=(3.0, 3.0, 2.0, 1.0, 1.0),  # brackets most: what a network of this size learns in a minute
)
MATH = Sums()
REWARD = RewardByTask(rewards=(("sums", exact_answer),), otherwise=verifier_reward)

# What calibration measures. A level whose questions are longer than `max_prompt` is left out of it.
GRID = tuple((task, level) for task in (*dict(LOGIC.tasks), "mathador") for level in TASKS[task].levels)

tiny = GRPO(
    name="synlogic",
    model=DecoderConfig(dim=96, layers=3, heads=4, kv_heads=2, head_dim=24, mlp_dim=288),
    data=Mixed(parts=(Part(name="logic", data=LOGIC), Part(name="math", data=MATH))),
    reward=REWARD,
    warm_start=WarmStart(steps=700, batch=32, noise=0.5, optimizer=AdamW(lr=4e-3, warmup_steps=20, schedule="cosine")),
    arms=(
        Arm(name="dapo", loss=DAPO),
        Arm(name="symmetric_clip", loss=Clipped(eps_lo=0.2, eps_hi=0.2)),
        Arm(name="format_only", loss=DAPO, reward=format_reward),
        Arm(name="math_only", loss=DAPO, data=MATH),
    ),
    steps=60,
    rollout=Rollout(prompts=16, samples=8, max_prompt=40, max_new_tokens=42, updates=4),
    optimizer=AdamW(lr=4e-4, betas=(0.9, 0.99), warmup_steps=10, schedule="linear"),
    evaluation=Evaluation(questions=96, samples=4, every=15, also=(format_reward,)),
    analysis=sections,
)

hacking = dataclasses.replace(
    tiny,
    name="synlogic_hacking",
    # The official verifier reads a fenced block, so that fences are tokens and worked answers have them.
    tokenizer=ByteTokenizer(tags=("<think>", "</think>", "<answer>", "</answer>", "```python\n", "\n```")),
    data=SynLogic(tasks=(("mathador", "tiny"),), official_answers=True),
    reward=verifier_reward,
    warm_start=WarmStart(steps=500, batch=32, noise=0.5, optimizer=AdamW(lr=4e-3, warmup_steps=20, schedule="cosine")),
    arms=(
        Arm(name="official", loss=DAPO, reward=official_reward),
        Arm(name="strict", loss=DAPO, reward=verifier_reward),
    ),
    steps=40,
    evaluation=Evaluation(questions=64, samples=4, every=10, also=(official_reward, format_reward)),
    analysis=hacking_sections,
)

# As `reproduce` runs it, with the settings that its calibration finds in the place of these.
band = dataclasses.replace(
    tiny,
    name="synlogic_band",
    arms=(
        Arm(name="in_band", loss=DAPO, data=SynLogic(tasks=LOGIC.tasks)),
        Arm(name="out_of_band", loss=DAPO, data=SynLogic(tasks=(("mathador", "normal"), ("math_path", "normal")))),
    ),
)

_SMALL = {
    "model": DecoderConfig(dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp_dim=64),
    "steps": 2,
    "optimizer": AdamW(lr=3e-4),
    "rollout": dataclasses.replace(tiny.rollout, prompts=4, samples=4, updates=2),
    "warm_start": WarmStart(steps=4, batch=8),
    "checkpoint_every": 1,
}
smoke = dataclasses.replace(
    tiny, **_SMALL, evaluation=dataclasses.replace(tiny.evaluation, questions=14, samples=2, every=1)
)
smoke_hacking = dataclasses.replace(
    hacking, **_SMALL, evaluation=dataclasses.replace(hacking.evaluation, questions=6, samples=2, every=1)
)

paper = dataclasses.replace(
    tiny,
    name="synlogic_paper",
    # The sizes of Qwen2.5-7B, so that it can be planned anywhere: maypole plan synlogic:paper --topology v5p:4x4x4 --quick
    # To train it: model=Pretrained(path=..., scan=True, remat="full", dtype="bfloat16") and tokenizer=HFTokenizer(path=...)
    # with the folder of the checkpoint.
    model=dataclasses.replace(QWEN25_7B, scan=True, remat="full", dtype="bfloat16"),
    tokenizer=ByteTokenizer(tags=()),
    data=SynLogic(tasks=tuple((task, "easy") for task in TASKS), form="english"),
    reward=verifier_reward,
    reward_workers=8,
    warm_start=WarmStart(steps=0),
    arms=(Arm(name="dapo", loss=DAPO),),
    steps=260,
    # Mini-batches of 64 prompts, so two updates on each rollout of 128.
    rollout=Rollout(
        prompts=128, samples=16, max_prompt=2048, max_new_tokens=16_384, updates=2, microbatches=64, rows=1024
    ),
    optimizer=AdamW(lr=1e-6, betas=(0.9, 0.999), weight_decay=0.1, warmup_steps=10),
    evaluation=Evaluation(questions=10 * len(TASKS), samples=8, every=20, also=(format_reward,)),
    mesh=MeshConfig(fsdp=16, tensor=4),
)

claims = (
    Claim(
        name="oracle_accepted",
        arms=("verifiers",),
        measure="oracle_strict",
        direction="higher",
        threshold=1.0,
        text="The strict verifier of every task accepts the oracle of every instance",
    ),
    Claim(
        name="oracle_accepted_officially",
        arms=("verifiers",),
        measure="oracle_official",
        direction="higher",
        threshold=1.0,
        text="So does the official one",
    ),
    Claim(
        name="wrong_rejected",
        arms=("verifiers",),
        measure="perturbed_rejected",
        direction="higher",
        threshold=1.0,
        text="The strict verifier of every task rejects every perturbed answer",
    ),
    Claim(
        name="rl_raises_accuracy",
        arms=("dapo",),
        measure="accuracy_gain",
        direction="higher",
        threshold=0.1,
        text="The verifier's reward raises held-out accuracy on the mix by at least 10 points",
    ),
    Claim(
        name="format_is_learnt",
        arms=("dapo",),
        measure="final_format",
        direction="higher",
        threshold=0.95,
        text="At least 95 % of the responses have the format in the end",
    ),
    Claim(
        name="format_alone_is_not_enough",
        arms=("dapo", "format_only"),
        measure="final_accuracy",
        direction="higher",
        threshold=0.1,
        text="A reward for the format alone ends at least 10 points below the verifier's",
    ),
    Claim(
        name="band_beats_outside",
        arms=("in_band", "out_of_band"),
        measure="final_accuracy",
        direction="higher",
        threshold=0.05,
        text="Training on learnable settings ends at least 5 points above training on those out of reach",
    ),
    Claim(
        name="outside_changes_nothing",
        arms=("out_of_band",),
        measure="accuracy_gain",
        direction="equal",
        threshold=0.03,
        text="Training on settings out of reach leaves accuracy within 3 points of the warm start",
    ),
    Claim(
        name="mixing_costs_nothing",
        arms=("dapo", "math_only"),
        measure="accuracy_sums",
        direction="higher",
        threshold=-0.05,
        text="With logic in the mix, sums end no more than 5 points below training on sums alone for as many steps",
    ),
    Claim(
        name="official_is_hacked",
        arms=("official",),
        measure="accepted_wrong_gain",
        direction="higher",
        threshold=0.1,
        text="Trained with the official verifier of mathador, 10 points more of the responses are accepted though wrong",
    ),
    Claim(
        name="strict_is_not",
        arms=("strict",),
        measure="accepted_wrong_gain",
        direction="lower",
        threshold=0.0,
        text="Trained with the strict one, no more of them than before",
    ),
)

study = Study(main=tiny, hacking=hacking, grid=GRID)


def reproduce(*, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """Everything the claims need, for every seed; finished parts are kept, and seeds may run in processes of their own."""
    from experiments._synlogic_results import reproduce_claims

    reproduce_claims(study, claims, out=out, results=results, seeds=seeds)
