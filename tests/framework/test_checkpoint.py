"""A checkpoint comes back bit for bit on any mesh, or is refused with a reason; never half."""

import shutil
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from framework.checkpoint import CheckpointError, Checkpoints
from framework.mesh import MeshConfig, abstract_tree, shard_tree
from framework.optimizer import AdamW
from framework.state import TrainState


def make_state(seed=0, hidden=16):
    """A state with all that occurs: an nnx.State, optax tuples, bfloat16, a typed random key, odd bit patterns."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((8, hidden), np.float32)
    weight[0, :3] = np.nan, -0.0, np.float32(1e-42)
    params = nnx.State(
        {
            "up": {"kernel": nnx.Param(jnp.asarray(weight), logical=("embed", "mlp"))},
            "scale": nnx.Param(jnp.asarray(rng.standard_normal(8), jnp.bfloat16)),
        }
    )
    return {"train": TrainState.create(params, AdamW().build()), "key": jax.random.key(seed)}


def bits(state):
    leaves = [jax.random.key_data(x) if x.dtype == jax.random.key(0).dtype else x for x in jax.tree.leaves(state)]
    return [(x.shape, str(x.dtype), np.asarray(x).tobytes()) for x in leaves]


def saved(path, steps=(1,), **kwargs):
    with Checkpoints(path, **kwargs) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"note": f"step {step}", "values": [1, 2.5, None]})
    return checkpoints


def data_files(folder):
    """Those of the merged database, by size: small arrays are copied into it, and what a process wrote before is not read."""
    return sorted((folder / "state" / "d").iterdir(), key=lambda p: p.stat().st_size)


def test_the_round_trip_is_bit_exact_and_raises_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = saved(tmp_path, [7]).restore_latest(make_state(0))
    assert found is not None
    step, state, extra = found
    assert step == 7
    assert bits(state) == bits(make_state(7))
    assert jax.tree.structure(state) == jax.tree.structure(make_state(7))
    assert extra == {"note": "step 7", "values": [1, 2.5, None]}


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoints(tmp_path / "absent").restore_latest(make_state()) is None
    assert not (tmp_path / "absent").exists()


def test_a_state_moves_from_eight_devices_to_one_to_four(tmp_path):
    want = bits(make_state(3))
    state = make_state(3)
    for n, config in ((8, MeshConfig(fsdp=4, tensor=2)), (1, MeshConfig()), (4, MeshConfig(data=2, tensor=2))):
        mesh = config.build(jax.devices()[:n])
        if n == 8:
            state = jax.device_put(state, shard_tree(mesh, state))
        else:
            found = Checkpoints(tmp_path).restore_latest(abstract_tree(mesh, state))
            assert found is not None
            state = found[1]
        kernel = state["train"].params["up"]["kernel"].get_value()
        assert kernel.sharding.mesh.size == n
        assert kernel.addressable_shards[0].data.shape == (8 // mesh.shape["fsdp"], 16 // mesh.shape["tensor"])
        assert bits(state) == want
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(n if n != 1 else 9, state)
        shutil.move(tmp_path / str(n if n != 1 else 9), tmp_path / f"{10 + n}")


def test_the_newest_are_kept(tmp_path):
    assert saved(tmp_path, range(1, 6), keep=2).steps() == [4, 5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "5"]


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x * 1.0001 + 1, tree), donate_argnums=0)
    state = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((1024, 1024), np.float32))}
    want = {}
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        for i in range(1, 5):
            want[i] = np.array(state["w"])
            checkpoints.save(i, state)
            for _ in range(20):
                state = step(state)
        jax.block_until_ready(state)
    for i, array in want.items():
        restored, _ = checkpoints.restore(i, state)
        np.testing.assert_array_equal(restored["w"], array)


def test_half_written_folders_are_never_loaded_and_go_with_the_next_save(tmp_path):
    checkpoints = saved(tmp_path, [1])
    temporary = tmp_path / "2.orbax-checkpoint-tmp-1700000000"
    shutil.copytree(tmp_path / "1", temporary)
    for file in data_files(temporary):
        file.write_bytes(file.read_bytes()[:10])
    shutil.copytree(tmp_path / "1", tmp_path / "3")
    (tmp_path / "3" / "commit_success.txt").unlink()
    (tmp_path / "4").mkdir()
    assert checkpoints.steps() == [1]
    found = checkpoints.restore_latest(make_state())
    assert found is not None
    assert found[0] == 1
    assert temporary.exists(), "reading must not touch what another process may be writing"
    saved(tmp_path, [2, 3])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]
    assert bits(checkpoints.restore_latest(make_state())[1]) == bits(make_state(3))  # type: ignore[index]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax drops its other reads
@pytest.mark.parametrize("damage", ["truncated", "deleted", "metadata"])
def test_a_damaged_newest_checkpoint_is_named_with_the_intact_older_one(tmp_path, damage):
    checkpoints = saved(tmp_path, [1, 2, 3])
    largest = data_files(tmp_path / "3")[-1]
    if damage == "truncated":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif damage == "deleted":
        largest.unlink()
    else:
        (tmp_path / "3" / "state" / "_METADATA").write_text('{"tree_metadata": {')
    for file in data_files(tmp_path / "2"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged") as error:
        checkpoints.restore_latest(make_state())
    text = str(error.value)
    assert f"checkpoint {tmp_path / '3'} is damaged" in text
    assert f"Checkpoint 1 is intact: delete {tmp_path / '3'}" in text
    assert len(text) < 1000, "TensorStore's dump of its spec does not belong in the message"


def test_a_damaged_only_checkpoint_says_so(tmp_path):
    checkpoints = saved(tmp_path, [1])
    shutil.rmtree(tmp_path / "1" / "state")
    with pytest.raises(CheckpointError, match="No older checkpoint is intact"):
        checkpoints.restore_latest(make_state())


def test_another_state_is_refused_with_the_differences(tmp_path):
    checkpoints = saved(tmp_path, [1])
    other = make_state(0, hidden=32)
    other["more"] = jnp.zeros(3)
    other["train"].params["scale"][...] = other["train"].params["scale"][...]
    other["key"] = jnp.zeros(2, jnp.int32)
    with pytest.raises(CheckpointError, match="holds another state") as error:
        checkpoints.restore_latest(other)
    text = str(error.value)
    assert "train/params/up/kernel: checkpoint float32[8, 16], this run float32[8, 32]" in text
    assert "more: checkpoint nothing, this run float32[3]" in text
    assert "key: checkpoint uint32[2], this run int32[2]" in text
    assert "scale" not in text


def test_no_pickle_is_written(tmp_path):
    saved(tmp_path, [1])
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if p.read_bytes()[:2] in {bytes([0x80, protocol]) for protocol in range(2, 6)}]


def test_a_tiny_state_is_saved_in_well_under_a_second(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        seconds = []
        for step in range(1, 5):
            began = time.monotonic()
            checkpoints.save(step, make_state())
            checkpoints.wait()
            seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5  # about 0.05 s on two idle cores


def test_keep_zero_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Use keep=1"):
        Checkpoints(tmp_path, keep=0)
