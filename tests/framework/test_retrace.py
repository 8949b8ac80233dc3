"""The trace budget names the function and what changed."""

import functools

import jax
import jax.numpy as jnp
import pytest

from framework.retrace import RetraceError, TraceBudget


def test_calls_of_the_same_shape_trace_once():
    budget = TraceBudget()
    double = jax.jit(budget.counted(lambda x: 2 * x, "double"))
    for i in range(3):
        double(jnp.full(4, i))
    assert budget.traces("double") == 1
    assert budget.traces("never called") == 0


def test_a_changed_shape_is_named_by_argument_and_path():
    budget = TraceBudget()

    def step(state, batch):
        return state["w"] * batch.sum()

    jitted = jax.jit(budget.counted(step, "train step"))
    jitted({"w": jnp.ones(3)}, jnp.ones((8, 16)))
    with pytest.raises(RetraceError) as error:
        jitted({"w": jnp.ones(3)}, jnp.ones((8, 17)))
    text = str(error.value)
    assert "'train step' is being traced for the 2nd time, but its budget is 1" in text
    assert "argument 1: float32[8, 16] -> float32[8, 17]" in text
    assert "argument 0/w" not in text
    assert "budget=2" in text


def test_a_changed_dtype_inside_a_tree_and_a_static_value_are_named():
    budget = TraceBudget()
    counted = budget.counted(lambda x, *, mode: x["a"]["b"], "f", budget=1)
    jitted = jax.jit(counted, static_argnames="mode")
    jitted({"a": {"b": jnp.ones(2)}}, mode="greedy")
    with pytest.raises(RetraceError, match=r"mode: = 'greedy' -> = 'sample'"):
        jitted({"a": {"b": jnp.ones(2)}}, mode="sample")
    with pytest.raises(RetraceError, match=r"argument 0/a/b: float32\[2\] -> int32\[2\]"):
        jitted({"a": {"b": jnp.ones(2, jnp.int32)}}, mode="greedy")


def test_a_python_number_beside_an_array_is_told_apart():
    budget = TraceBudget()
    jitted = jax.jit(budget.counted(lambda x: x + 1, "f"))
    jitted(jnp.float32(1))
    with pytest.raises(RetraceError, match=r"float32\[\] -> float32\[\] \(a bare Python number\)"):
        jitted(1.0)


def test_the_budget_is_the_number_of_buckets_and_the_closest_one_is_compared():
    budget = TraceBudget()
    jitted = jax.jit(budget.counted(lambda x, y: x.sum() + y.sum(), "decode", budget=2))
    jitted(jnp.ones(64), jnp.ones(1))
    jitted(jnp.ones(128), jnp.ones(2))
    with pytest.raises(RetraceError, match=r"argument 0: float32\[128\] -> float32\[130\]") as error:
        jitted(jnp.ones(130), jnp.ones(2))
    assert "argument 1" not in str(error.value)


def test_jitting_inside_the_loop_is_recognised():
    budget = TraceBudget()
    for attempt in range(2):
        jitted = jax.jit(functools.partial(budget.counted(lambda x: x, "f")))
        if attempt == 0:
            jitted(jnp.ones(1))
        else:
            with pytest.raises(RetraceError, match=r"Call jax\.jit once, outside the loop"):
                jitted(jnp.ones(1))
