"""A config that cannot work is refused when it is built, with the field and a value to type; nothing waits for the warm start."""

import dataclasses
import json

import jax.numpy as jnp
import pytest

from data.questions import JsonLines, SynLogic
from experiments.entropy_mechanism import paper, smoke, tiny
from framework.mesh import MeshConfig
from framework.optimizer import SGD, AdamW
from models.tokenizer import ByteTokenizer
from rl.config import Arm, Evaluation, Rollout, WarmStart
from rl.losses import KLCov, Unclipped

ROLLOUT = smoke.rollout


def arm(name):
    return Arm(name=name, loss=Unclipped())


def roll(**changes):
    return {"rollout": dataclasses.replace(ROLLOUT, **changes)}


@pytest.mark.parametrize("config", [smoke, tiny, paper], ids=["smoke", "tiny", "paper"])
def test_the_shipped_variants_pass_the_checks(config):
    config.validate()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (roll(samples=1), r"rollout\.samples=1.*at least 2"),
        (roll(prompts=0), r"rollout\.prompts=0"),
        (roll(updates=0), r"rollout\.updates=0"),
        (roll(microbatches=0), r"rollout\.microbatches=0"),
        (roll(max_prompt=0), r"rollout\.max_prompt=0"),
        (roll(updates=3), r"updates=3.*Use rollout\.prompts=3"),
        (roll(microbatches=5), r"microbatches=5.*Use rollout\.prompts=10"),
        (roll(temperature=0.0), r"rollout\.temperature=0\.0 cannot explore"),
        (roll(temperature=float("nan")), r"rollout\.temperature=nan"),
        ({"arms": ()}, "at least one"),
        ({"arms": (arm("a"), arm("a"))}, "different names"),
        ({"arms": (arm("warm_start"),)}, "none may be 'warm_start'"),
        ({"arms": (arm("kl/cov"),)}, r"arm 'kl/cov' cannot be a folder.*such as 'kl_cov'"),
        ({"arms": (arm(".."),)}, r"arm '\.\.' cannot be a folder"),
        ({"arms": (arm(""),)}, "arm '' cannot be a folder"),
        ({"arms": (arm("lock"),)}, "arm 'lock' cannot be a folder"),
        ({"arms": (Arm(name="a", loss=KLCov(frac=20)),)}, "from_percent"),
        ({"arms": (Arm(name="a", loss=Unclipped(), updates=0),)}, "updates=0; it must be at least 1"),
        ({"arms": (Arm(name="a", loss=Unclipped(), updates=3),)}, r"updates=3.*Use rollout\.prompts=3"),
        ({"arms": (Arm(name="a", loss=Unclipped(), optimizer=SGD(lr=0.0)),)}, r"lr=0\.0 must be positive"),
        (roll(temperature=float("inf")), r"rollout\.temperature=inf"),
        ({"evaluation": Evaluation(temperature=-1.0)}, r"evaluation\.temperature=-1\.0"),
        ({"evaluation": Evaluation(temperature=float("nan"))}, r"evaluation\.temperature=nan"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 10**20}, "seed=1000"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"reward_timeout_s": float("inf")}, "reward_timeout_s=inf"),
        ({"steps": 0}, "steps=0.*at least 1"),
        ({"evaluation": Evaluation(questions=0)}, r"evaluation\.questions=0"),
        ({"evaluation": Evaluation(questions=6, every=0)}, "every=0"),
        ({"evaluation": Evaluation(questions=100_000)}, "too few questions: wanted"),
        ({"warm_start": WarmStart(steps=-1)}, r"warm_start\.steps=-1"),
        ({"warm_start": WarmStart(noise=2.0)}, r"noise=2\.0 from 0 to 1"),
        ({"warm_start": WarmStart(batch=0)}, r"warm_start\.batch=0"),
        ({"warm_start": WarmStart(optimizer=AdamW(lr=0))}, "lr=0 trains nothing"),
        ({"optimizer": AdamW(lr=-1.0)}, r"lr=-1\.0 trains nothing"),
        ({"reward_workers": 0}, "reward_workers=0"),
        ({"reward_timeout_s": 0.0}, r"reward_timeout_s=0\.0"),
        ({"tokenizer": ByteTokenizer(merges=500)}, r"Use model\.vocab_size=768"),
        ({"tokenizer": ByteTokenizer(merges=-1)}, r"tokenizer\.merges=-1"),
        (
            {"mesh": MeshConfig(data=3)},
            r"over 3 devices \(mesh data=3, fsdp=1\)\. Use rollout\.prompts=6, or set mesh\.data=1",
        ),
        ({"mesh": MeshConfig(data=8), "warm_start": WarmStart(batch=12)}, r"Use warm_start\.batch=16"),
        ({"mesh": MeshConfig(data=64)}, "needs 64 devices"),
        ({"data": SynLogic(tasks=(("dyck_language", "vast"),))}, "level of task 'dyck_language'"),
    ],
)
def test_a_number_that_cannot_work_is_named_with_one_that_can(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(smoke, **change).build()


def test_a_run_cut_short_for_a_try_keeps_a_warm_up_that_fits():
    dataclasses.replace(tiny, steps=2, warm_start=dataclasses.replace(tiny.warm_start, steps=3)).validate()


def test_the_advised_number_of_prompts_works():
    on_three = dataclasses.replace(
        smoke, mesh=MeshConfig(data=3), rollout=dataclasses.replace(ROLLOUT, prompts=6), warm_start=WarmStart(batch=6)
    )
    assert on_three.build().mesh.size == 3


def recorded(folder, **columns):
    lines = [{"question": f"{i}?", "answer": str(i), "worked": f"it is {i}"} for i in range(40)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return JsonLines(path=str(folder / "mine.jsonl"), heldout=12, **columns)


def test_recorded_questions_without_worked_ones_need_a_run_without_a_warm_start(tmp_path):
    config = dataclasses.replace(smoke, data=recorded(tmp_path))
    with pytest.raises(ValueError, match=r"set warm_start\.steps=0"):
        config.build()
    config = dataclasses.replace(config, warm_start=WarmStart(steps=0))
    assert len(config.build().heldout) == smoke.evaluation.questions
    merged = dataclasses.replace(
        config, tokenizer=ByteTokenizer(merges=4), model=dataclasses.replace(config.model, vocab_size=288)
    )
    assert merged.build().tokenizer.decode(merged.build().tokenizer.encode("12?")) == "12?"


def test_an_arm_may_have_its_own_optimizer_and_schedules_end_with_the_stage():
    """What each stage subtracts for a gradient of 1 at its first and its last update."""
    own = Arm(name="own", loss=Unclipped(), updates=1, optimizer=SGD(lr=0.5))
    fewer = Arm(name="fewer", loss=Unclipped(), updates=1)
    config = dataclasses.replace(
        smoke, arms=(arm("plain"), own, fewer), steps=10, optimizer=AdamW(lr=0.1, schedule="linear", grad_clip=0.0)
    )
    assert config.rollout.updates == 2

    def moves(stage, updates):
        tx, params = config.optimizer_of(stage), {"w": jnp.zeros(1)}
        state, moved = tx.init(params), []
        for _ in range(updates):
            step, state = tx.update({"w": jnp.ones(1)}, state, params)
            moved.append(-float(step["w"][0]))
        return moved[0], moved[-1]

    assert moves("plain", 20) == pytest.approx((0.1, 0.1 / 20), rel=1e-4)
    assert moves("fewer", 10) == pytest.approx((0.1, 0.1 / 10), rel=1e-4)
    assert moves("own", 10) == pytest.approx((0.5, 0.5))
    config.validate()


def test_building_twice_gives_the_same_weights_and_purposes_have_keys_of_their_own():
    import jax
    import numpy as np

    one, two = smoke.build(), smoke.build()
    for a, b in zip(jax.tree.leaves(one.model.init()[0]), jax.tree.leaves(two.model.init()[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    keys = {tuple(jax.random.key_data(one.purpose_key(p)).tolist()) for p in ("init", "rollout", "evaluation", "pick")}
    assert len(keys) == 4


def test_a_group_for_evaluation_may_be_larger_than_the_whole_rollout():
    config = dataclasses.replace(
        smoke, rollout=Rollout(prompts=2, samples=2, updates=1), evaluation=Evaluation(questions=2, samples=32)
    )
    config.engine_config().validate()
