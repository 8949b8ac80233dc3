"""The train state and the optimizer configs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from framework.errors import UserError
from framework.mesh import MeshConfig, shard_tree
from framework.optimizer import SGD, AdamW, decay_mask
from framework.state import EMA, TrainState, global_norm, leaves, rebuild


def test_one_update_counts_a_step_and_reports_the_three_norms():
    tx = optax.sgd(0.5)
    state = TrainState.create({"w": jnp.array([3.0, 4.0])}, tx)
    state, metrics = jax.jit(lambda s, g: s.apply(g, tx))(state, {"w": jnp.array([0.0, 2.0])})
    assert int(state.step) == 1
    assert state.step.dtype == jnp.int32
    np.testing.assert_allclose(state.params["w"], [3.0, 3.0])
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
        {"grad/norm": 2.0, "update/norm": 1.0, "param/norm": 18**0.5}
    )


def test_norms_of_bfloat16_are_summed_in_float32():
    assert float(global_norm({"w": jnp.ones(4096, jnp.bfloat16)})) == 64.0
    assert float(global_norm({})) == 0.0


def test_leaves_are_named_by_path_and_go_back_where_they_were():
    tree = {"a": nnx.Param(jnp.ones((2, 3)), logical=("embed", None)), "b": [jnp.zeros(1), jnp.ones(1)]}
    found = list(leaves(tree))
    assert [(leaf.name, leaf.logical) for leaf in found] == [("a", ("embed", None)), ("b/0", None), ("b/1", None)]
    again = rebuild(tree, [leaf.value for leaf in found])
    assert again["a"].get_metadata()["logical"] == ("embed", None)
    assert jax.tree.structure(again) == jax.tree.structure(tree)


def test_weight_decay_leaves_vectors_alone_stacked_ones_too():
    params = nnx.State(
        {
            "kernel": nnx.Param(jnp.ones((2, 2)), logical=("embed", "mlp")),
            "stacked_kernel": nnx.Param(jnp.ones((3, 2, 2)), logical=("layers", "embed", "mlp")),
            "stacked_scale": nnx.Param(jnp.ones((3, 2)), logical=("layers", "embed")),
            "bias": nnx.Param(jnp.ones(2)),
        }
    )
    assert {k: v.get_value() for k, v in decay_mask(params).items()} == {
        "kernel": True,
        "stacked_kernel": True,
        "stacked_scale": False,
        "bias": False,
    }
    tx = AdamW(lr=0.1, weight_decay=0.5).build()
    state, _ = TrainState.create(params, tx).apply(jax.tree.map(jnp.zeros_like, params), tx)
    np.testing.assert_allclose(state.params["kernel"][...], 0.95)  # 1 - lr * decay, the gradient being 0
    np.testing.assert_allclose(state.params["stacked_scale"][...], 1.0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.0]),
    ],
)
def test_schedules_warm_up_then_follow_their_curve(schedule, expected):
    rate = AdamW(lr=1.0, schedule=schedule, warmup_steps=2, total_steps=6).learning_rate()
    np.testing.assert_allclose([rate(i) for i in range(7)], expected, atol=1e-7)


def test_the_gradient_is_clipped_by_its_global_norm():
    def update(scale):
        tx = AdamW(lr=1.0, grad_clip=1.0, eps=1.0).build()  # a large eps, so that Adam does not undo the scale
        params = {"w": jnp.zeros(2)}
        return tx.update({"w": jnp.array([3.0, 4.0]) * scale}, tx.init(params), params)[0]["w"]

    np.testing.assert_allclose(update(1.0), update(100.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AdamW(schedule="cosine"), "total_steps=None.*Set total_steps"),
        (AdamW(lr=0.0), "lr=0.0 trains nothing"),
        (AdamW(grad_clip=-1.0), "cannot be negative"),
        (AdamW(schedule="step"), "Use 'constant', 'linear' or 'cosine'"),  # type: ignore[arg-type]
    ],
    ids=["no end", "no rate", "negative clip", "unknown schedule"],
)
def test_optimizer_mistakes_say_what_to_set(config, message):
    with pytest.raises(ValueError, match=message):
        config.build()


def test_the_average_follows_its_formula_worked_by_hand():
    tx = SGD(lr=1.0).build()
    state = TrainState.create({"w": jnp.array([1.0])}, tx, ema=EMA(decay=0.25))
    step = jax.jit(lambda s: s.apply({"w": jnp.array([-1.0])}, tx)[0], donate_argnums=0)
    average = 1.0
    for t in range(4):  # the parameter is 2, 3, 4, 5 after the updates
        decay = min(0.25, (1 + t) / (10 + t))  # 0.1, 0.18, 0.25, 0.25
        average = decay * average + (1 - decay) * (2 + t)
        state = step(state)
        np.testing.assert_allclose(state.ema["w"], [average], rtol=1e-6)
    np.testing.assert_allclose(state.averaged["w"], state.ema["w"])
    constant = TrainState.create({"w": jnp.array([1.0])}, tx, ema=EMA(decay=0.75, warmup=False))
    np.testing.assert_allclose(step(constant).ema["w"], [0.75 * 1 + 0.25 * 2])


def test_the_average_of_bfloat16_is_float32_and_evaluated_in_bfloat16():
    tx = optax.sgd(1.0)
    state = TrainState.create({"w": jnp.ones(2, jnp.bfloat16)}, tx, ema=EMA(decay=0.999, warmup=False))
    state, _ = state.apply({"w": -jnp.ones(2, jnp.bfloat16)}, tx)
    np.testing.assert_allclose(state.ema["w"], 1.001, rtol=1e-6)  # bfloat16 has no number between 1 and 1.0078
    assert state.averaged["w"].dtype == jnp.bfloat16
    assert state.params["w"].dtype == jnp.bfloat16


def test_a_state_without_an_average_has_the_leaves_it_always_had():
    params = {"w": nnx.Param(jnp.ones(2), logical=("embed",))}
    plain = TrainState.create(params, AdamW().build())
    names = [leaf.name for leaf in leaves(plain)]
    assert names[0] == "params/w"
    assert names[-1] == "step"
    assert not [name for name in names if "ema" in name], "checkpoints of earlier versions would be unreadable"
    assert plain.averaged is plain.params
    added = TrainState.create(params, AdamW().build(), ema=EMA())
    assert [leaf.name for leaf in leaves(added)] == [*names, "ema/w"]
    assert list(leaves(added))[-1].logical == ("embed",)


def test_a_state_made_in_jit_with_an_average_can_be_donated():
    tx = optax.sgd(1.0)
    state = jax.jit(lambda p: TrainState.create(p, tx, ema=EMA()))({"w": jnp.ones(4)})
    step = jax.jit(lambda s: s.apply({"w": jnp.ones(4)}, tx)[0], donate_argnums=0)
    np.testing.assert_allclose(step(step(state)).params["w"], -1.0)


@pytest.mark.parametrize("decay", [0.0, 1.0, float("nan")])
def test_an_average_that_is_none_is_refused(decay):
    with pytest.raises(UserError, match=r"such as 0\.999"):
        TrainState.create({"w": jnp.ones(1)}, optax.sgd(1.0), ema=EMA(decay=decay))


def test_the_learning_rate_of_the_update_is_logged():
    tx = AdamW(lr=1.0, schedule="linear", warmup_steps=2, total_steps=6).build()
    state, rates = TrainState.create({"w": jnp.ones(1)}, tx), []
    for _ in range(5):
        state, metrics = state.apply({"w": jnp.ones(1)}, tx)
        rates.append(float(metrics["optimizer/lr"]))
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.0, 0.75, 0.5])


def test_norms_of_split_arrays_are_those_of_the_whole_and_gather_nothing():
    mesh = MeshConfig(fsdp=2, tensor=4).build()
    w = np.random.default_rng(0).standard_normal((3, 8, 16), np.float32)
    tree = {"w": nnx.Param(jnp.asarray(w), logical=("layers", "embed", "mlp"))}
    norm = jax.jit(global_norm).lower(jax.device_put(tree, shard_tree(mesh, tree))).compile()
    assert "all-gather" not in norm.as_text()
    got = norm(jax.device_put(tree, shard_tree(mesh, tree)))
    np.testing.assert_allclose(got, np.linalg.norm(w), rtol=1e-6)
