"""The Entropy Mechanism of RL for Reasoning Language Models (arXiv:2505.22617): Clip-Cov and KL-Cov against plain GRPO.

maypole run entropy_mechanism            three arms on two CPU cores, minutes, then a report
maypole reproduce entropy_mechanism      all arms, three seeds, experiments/results/entropy_mechanism.json
"""

import dataclasses

from data.questions import SynLogic
from data.synlogic import verifier_reward
from framework.optimizer import AdamW
from models.decoder import DecoderConfig
from rl.config import Arm, Evaluation, Rollout, WarmStart
from rl.grpo import GRPO
from rl.losses import ClipCov, KLCov, Unclipped

UNCLIPPED = Arm(name="unclipped", loss=Unclipped())
CLIP_COV = Arm(name="clip_cov", loss=ClipCov(frac=0.05, band="quantile", w_low=0.9, w_high=1.0))
KL_COV = Arm(name="kl_cov", loss=KLCov(frac=0.05, beta=1.0))

tiny = GRPO(
    name="entropy_mechanism",
    model=DecoderConfig(dim=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp_dim=384),
    data=SynLogic(
        tasks=(
            ("dyck_language", "tiny"),
            ("dyck_language_errors", "tiny"),
            ("boolean_expressions", "tiny"),
            ("math_path", "tiny"),
            ("word_sorting", "tiny"),
            ("kukurasu", "tiny"),
        )
    ),
    reward=verifier_reward,
    warm_start=WarmStart(steps=400, batch=64, optimizer=AdamW(lr=2e-3, warmup_steps=20)),
    arms=(UNCLIPPED, CLIP_COV, KL_COV),
    steps=60,
    rollout=Rollout(prompts=16, samples=8, max_prompt=40, max_new_tokens=44, updates=4),
    optimizer=AdamW(lr=3e-4),
    evaluation=Evaluation(questions=48, samples=8, every=5),
)
smoke = dataclasses.replace(
    tiny,
    model=DecoderConfig(dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp_dim=64),
    warm_start=WarmStart(steps=4, batch=8),
    steps=2,
    rollout=Rollout(prompts=4, samples=4, max_prompt=40, max_new_tokens=44, updates=2),
    evaluation=Evaluation(questions=6, samples=4, every=1),
    checkpoint_every=1,
)
