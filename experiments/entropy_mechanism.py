"""The Entropy Mechanism of RL for Reasoning Language Models (arXiv:2505.22617): Clip-Cov and KL-Cov against plain GRPO.

maypole run entropy_mechanism            three arms on two CPU cores, minutes, then a report
maypole reproduce entropy_mechanism      seven arms, three seeds, experiments/results/entropy_mechanism.json

A small decoder learns worked examples of five SynLogic tasks, every second one with a wrong answer, and is then trained by
reward alone. The unclipped arm isolates what the covariance rules do: both drop the usual clip of 0.2. Fractions are scaled to
batches of about eight hundred tokens, where the paper's 2e-4 would pick none.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data.questions import SynLogic
from data.synlogic import verifier_reward
from experiments._entropy_mechanism_report import sections
from framework.experiment import Claim
from framework.mesh import MeshConfig
from framework.optimizer import SGD, AdamW
from models.decoder import DecoderConfig
from models.decoder.sizes import QWEN25_7B
from models.tokenizer import ByteTokenizer
from rl.config import Arm, Evaluation, Rollout, WarmStart
from rl.grpo import GRPO
from rl.losses import ClipCov, Clipped, KLCov, Unclipped

__all__ = ["ALL_ARMS", "all_arms", "claims", "paper", "reproduce", "smoke", "tiny"]

UNCLIPPED = Arm(name="unclipped", loss=Unclipped())
CLIP_COV = Arm(name="clip_cov", loss=ClipCov(frac=0.15, band="quantile", w_low=0.75, w_high=1.0))
KL_COV = Arm(name="kl_cov", loss=KLCov(frac=0.2, beta=1.5))
CLIPPED = Arm(name="clipped", loss=Clipped(eps_lo=0.2, eps_hi=0.2))
CLIP_HIGHER = Arm(name="clip_higher", loss=Clipped(eps_lo=0.2, eps_hi=0.28))
ENTROPY_BONUS = Arm(name="entropy_bonus", loss=Unclipped(entropy_coef=0.005))
# Section 3.3 of the paper: plain policy gradient, one update a rollout, so that covariance and entropy change can be compared.
ON_POLICY = Arm(name="on_policy", loss=Unclipped(), updates=1, optimizer=SGD(lr=0.1))
ALL_ARMS = (UNCLIPPED, CLIP_COV, KL_COV, CLIPPED, CLIP_HIGHER, ENTROPY_BONUS, ON_POLICY)

tiny = GRPO(
    name="entropy_mechanism",
    model=DecoderConfig(dim=96, layers=3, heads=4, kv_heads=2, head_dim=24, mlp_dim=288),
    data=SynLogic(
        # Brackets most: what a network of this size learns in a minute.
        tasks=(("dyck_language", "tiny"),) * 4
        + (("dyck_language_errors", "tiny"),) * 4
        + (("kukurasu", "tiny"),) * 2
        + (("boolean_expressions", "tiny"), ("math_path", "tiny")),
    ),
    reward=verifier_reward,
    warm_start=WarmStart(steps=700, batch=32, noise=0.5, optimizer=AdamW(lr=4e-3, warmup_steps=20, schedule="cosine")),
    arms=(UNCLIPPED, CLIP_COV, KL_COV),
    steps=110,
    rollout=Rollout(prompts=16, samples=8, max_prompt=32, max_new_tokens=42, updates=4),
    optimizer=AdamW(lr=3e-4, betas=(0.9, 0.99), warmup_steps=20, schedule="linear"),
    evaluation=Evaluation(questions=64, samples=8, every=10),
    analysis=sections,
)

all_arms = dataclasses.replace(tiny, arms=ALL_ARMS)

smoke = dataclasses.replace(
    tiny,
    model=DecoderConfig(dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp_dim=64),
    warm_start=WarmStart(steps=4, batch=8),
    steps=2,
    optimizer=AdamW(lr=3e-4),
    rollout=dataclasses.replace(tiny.rollout, prompts=4, samples=4, updates=2),
    evaluation=Evaluation(questions=12, samples=4, every=1),  # one of every task at least
    checkpoint_every=1,
)

paper = dataclasses.replace(
    tiny,
    name="entropy_mechanism_paper",
    # The sizes of Qwen2.5-7B, so that it can be planned anywhere: maypole plan entropy_mechanism:paper --topology v5p:4x4x4
    # To train it: model=Pretrained(path=..., scan=True, remat="full", dtype="bfloat16") and tokenizer=HFTokenizer(path=...)
    # with the folder of the checkpoint.
    model=dataclasses.replace(QWEN25_7B, scan=True, remat="full", dtype="bfloat16"),
    tokenizer=ByteTokenizer(tags=()),
    warm_start=WarmStart(steps=0),
    arms=(
        Arm(name="clipped", loss=Clipped()),
        Arm(name="clip_cov", loss=ClipCov(frac=2e-4, w_low=1.0, w_high=5.0)),
        Arm(name="kl_cov", loss=KLCov(frac=2e-3, beta=1.0)),
    ),
    steps=300,
    rollout=Rollout(prompts=256, samples=8, max_prompt=2048, max_new_tokens=8192, updates=8, microbatches=16),
    optimizer=AdamW(lr=5e-7, betas=(0.9, 0.999)),
    evaluation=Evaluation(questions=512, samples=8, every=4),
    mesh=MeshConfig(fsdp=16, tensor=4),
)

claims = (
    Claim(
        name="rl_raises_accuracy",
        arms=("unclipped", "clipped", "clip_higher"),
        measure="accuracy_gain",
        direction="higher",
        threshold=0.2,
        text="The best baseline's held-out accuracy rises at least 20 points above its warm start",
    ),
    Claim(
        name="clip_cov_keeps_entropy",
        arms=("clip_cov", "unclipped"),
        measure="final_entropy",
        direction="higher",
        threshold=0.0,
        text="Clip-Cov ends with more entropy than unclipped GRPO",
    ),
    Claim(
        name="kl_cov_keeps_entropy",
        arms=("kl_cov", "unclipped"),
        measure="final_entropy",
        direction="higher",
        threshold=0.0,
        text="KL-Cov ends with more entropy than unclipped GRPO",
    ),
)


def reproduce(*, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """Every arm of `tiny` for every seed; finished runs are kept, so that an interrupted call goes on where it stopped."""
    from experiments._entropy_mechanism_results import reproduce_claims

    reproduce_claims(all_arms, claims, out=out, results=results, seeds=seeds)
