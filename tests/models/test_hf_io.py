"""Reading and writing checkpoints: files, errors, meshes, memory, crashes, tokenizers, native folders."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from flax import nnx

from framework import state as state_lib
from framework.errors import UserError
from framework.mesh import MeshConfig, abstract_tree
from models.decoder import DecoderConfig, Llama3Rope, Pretrained, config_from_hf, from_hf, load_hf, save_hf, save_native
from models.decoder import hf as hf_module
from models.decoder.hf_names import abstract_decoder
from models.safetensors_io import DTYPES, Part, read_header, read_into, write_file

QWEN2 = DecoderConfig(
    vocab_size=96,
    dim=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_dim=48,
    qk_norm=False,
    qkv_bias=True,
    max_position=4096,
)


def change(config: DecoderConfig, **fields) -> DecoderConfig:
    return DecoderConfig(**{**config.__dict__, **fields})


def by_name(state: nnx.State) -> dict[str, np.ndarray]:
    return {leaf.name: np.asarray(leaf.value) for leaf in state_lib.leaves(state)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small Qwen2 in bfloat16, one file."""
    return save_hf(QWEN2.build(jax.random.key(0)), tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(made, tmp_path / "model"))


# --- Files -------------------------------------------------------------------------------------------------------------------


def test_files_can_be_read_by_the_safetensors_package_and_the_other_way(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.normal(size=(70, 33)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)}
    write_file(tmp_path / "ours", {k: v.shape for k, v in tensors.items()}, np.dtype(np.float32), tensors.__getitem__)
    for name, value in safetensors.numpy.load_file(tmp_path / "ours").items():
        np.testing.assert_array_equal(value, tensors[name])
    safetensors.numpy.save_file(tensors, tmp_path / "theirs")
    out = np.empty((33, 70), np.float32)
    read_into(read_header(tmp_path / "theirs")["a"], [Part((0, 70), (0, 33), out.T)])
    np.testing.assert_array_equal(out, tensors["a"].T)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(5, 3), (70, 1030), (9000, 48), (40, 40_000)], ids=str)
def test_any_rectangle_arrives_turned_and_converted(stored, wanted, shape, tmp_path):
    value = np.random.default_rng(0).normal(size=shape).astype(DTYPES[stored])
    write_file(tmp_path / "file", {"x": (7,), "w": shape}, DTYPES[stored], lambda n: value if n == "w" else np.zeros(7))
    rows, columns = (1, shape[0] - 1), (shape[1] // 3, shape[1])
    whole = np.zeros(shape, wanted)
    turned = np.zeros((columns[1] - columns[0], rows[1] - rows[0]), wanted)
    parts = [Part((0, shape[0]), (0, shape[1]), whole), Part(rows, columns, turned.T)]
    read_into(read_header(tmp_path / "file")["w"], parts)
    np.testing.assert_array_equal(whole, value.astype(wanted))
    np.testing.assert_array_equal(turned, value[slice(*rows), slice(*columns)].T.astype(wanted))


def test_float32_is_rounded_to_bfloat16_as_torch_does(tmp_path):
    value = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    write_file(tmp_path / "file", {"w": (64, 64)}, np.dtype(ml_dtypes.bfloat16), lambda _: value)
    out = np.empty((64, 64), np.float32)
    read_into(read_header(tmp_path / "file")["w"], [Part((0, 64), (0, 64), out)])
    np.testing.assert_array_equal(out, torch.as_tensor(value).bfloat16().float().numpy())


def test_a_checkpoint_in_many_files_is_the_same_model(tmp_path):
    model = QWEN2.build(jax.random.key(0))
    save_hf(model, tmp_path / "one", dtype="float32")
    save_hf(model, tmp_path / "many", dtype="float32", shard_size=20_000)
    files = sorted(p.name for p in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    one, many = (by_name(nnx.state(from_hf(tmp_path / name))) for name in ("one", "many"))
    want = by_name(nnx.state(model))
    assert one.keys() == many.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(one[name], value)
        np.testing.assert_array_equal(many[name], value)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "many")  # raises on a missing or unknown tensor


def test_loaded_and_built_models_share_one_compiled_program(folder):
    loaded, built = nnx.split(from_hf(folder))[0], nnx.split(config_from_hf(folder).build(jax.random.key(0)))[0]
    assert loaded == built
    assert hash(loaded) == hash(built)


def test_the_abstract_decoder_is_that_of_eval_shape():
    for fields in ({}, {"scan": True}, {"sliding_window": 4, "full_layers": 1}, {"tied": False, "qkv_bias": False}):
        config = change(QWEN2, **fields)
        ours, full = abstract_decoder(config), nnx.eval_shape(lambda c=config: c.build(jax.random.key(0)))
        assert nnx.split(ours)[0] == nnx.split(full)[0]
        assert str(nnx.split(ours)[1]) == str(nnx.split(full)[1])


# --- Meshes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("sizes", [{"fsdp": 4, "tensor": 2}, {"data": 4, "tensor": 2}, {"fsdp": 8}], ids=str)
def test_weights_read_onto_eight_devices_are_those_of_one(folder, sizes, scan):
    mesh = MeshConfig(**sizes).build()
    config = config_from_hf(folder, scan=scan)
    whole, split = load_hf(folder, config), load_hf(folder, config, mesh=mesh)
    want = abstract_tree(mesh, nnx.split(abstract_decoder(config))[1])
    for a, b, target in zip(*map(jax.tree.leaves, (whole, split, want)), strict=True):
        assert b.sharding == target.sharding
        assert b.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)
        for shard in b.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(a)[shard.index])


@pytest.mark.parametrize("mesh", [None, MeshConfig(fsdp=2, tensor=2)], ids=["one device", "mesh"])
def test_layers_stacked_one_by_one_on_the_device_are_those_stacked_on_the_host(folder, mesh, monkeypatch):
    config = config_from_hf(folder, scan=True)
    mesh = mesh.build() if mesh else None
    on_host = load_hf(folder, config, mesh=mesh)
    # What accelerators do; on a CPU the host's own array becomes the parameter instead.
    monkeypatch.setattr(hf_module, "_on_cpu", lambda sharding: False)
    on_device = load_hf(folder, config, mesh=mesh)
    for a, b in zip(*map(jax.tree.leaves, (on_host, on_device)), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_on_a_mesh_is_written_as_from_one_device(tmp_path, folder, scan):
    mesh = MeshConfig(fsdp=2, tensor=2, data=2).build()
    config = config_from_hf(folder, scan=scan)
    save_hf((config, load_hf(folder, config, mesh=mesh)), tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


# --- What cannot be read -----------------------------------------------------------------------------------------------------


def test_every_wrong_tensor_is_in_one_error(folder):
    value = np.zeros((2, 2), np.float32)
    header = read_header(folder / "model.safetensors")
    shapes = {name: stored.shape for name, stored in header.items()}
    shapes["model.layers.0.mlp.up_proj.weight"] = (3, 3)
    del shapes["model.layers.1.self_attn.q_proj.bias"], shapes["model.norm.weight"]
    shapes["model.layers.0.self_attn.q_norm.weight"] = (8,)
    shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (4,)  # harmless, as is the next
    shapes["lm_head.weight"] = (96, 32)
    write_file(folder / "model.safetensors", shapes, np.dtype(np.float16), lambda n: np.zeros(shapes[n], value.dtype))
    with pytest.raises(UserError) as error:
        from_hf(folder)
    text = str(error.value)
    assert "2 missing, 1 of another shape, 1 unknown" in text
    for line in (
        "model.layers.1.self_attn.q_proj.bias: not in the files, config [32]",
        "model.norm.weight: not in the files, config [32]",
        "model.layers.0.mlp.up_proj.weight: files [3, 3], config [48, 32]",
        "model.layers.0.self_attn.q_norm.weight: files F16[8], not in the config",
    ):
        assert line in text
    assert "inv_freq" not in text
    assert "lm_head" not in text


def test_a_long_list_is_cut_but_counted_and_shows_some_of_every_kind(folder):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 40, "vocab_size": 97}))
    with pytest.raises(UserError, match=r"444 missing, 1 of another shape") as error:
        from_hf(folder)
    assert "files [96, 32], config [97, 32]" in str(error.value)
    assert "and 439 more" in str(error.value)


def test_eight_bit_tensors_are_named_as_such(folder):
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    entry = header["model.layers.0.mlp.up_proj.weight"]
    entry["dtype"] = "F8_E4M3"
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(UserError, match=r"up_proj.weight: stored as F8_E4M3, and only F32, F16, BF16 can be read"):
        from_hf(folder)


def test_a_file_cut_short_says_so_and_an_absent_one_is_named(folder, tmp_path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        UserError, match=r"model.safetensors is damaged or not fully downloaded: it has \d+ bytes of \d+"
    ):
        from_hf(folder)
    save_hf(QWEN2.build(jax.random.key(0)), tmp_path / "many", shard_size=10_000)
    second = sorted((tmp_path / "many").glob("*.safetensors"))[1]
    second.unlink()
    with pytest.raises(UserError, match=rf"lacks 1 of the \d+ files .*{second.name}"):
        from_hf(tmp_path / "many")


def test_export_refuses_a_folder_with_content(tmp_path):
    model = QWEN2.build(jax.random.key(0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with pytest.raises(UserError, match="already exists and is not empty"):
        save_hf(model, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    save_hf(model, tmp_path / "empty")


def test_a_failed_export_leaves_nothing_and_a_killed_one_no_checkpoint(tmp_path):
    def fail(done, total):
        if done > total / 2:
            raise OSError("disk full")

    model = QWEN2.build(jax.random.key(0))
    with pytest.raises(OSError, match="disk full"):
        save_hf(model, tmp_path / "out", progress=fail)
    assert not list(tmp_path.iterdir())
    script = (
        "import jax, os; from pathlib import Path; from models.decoder import DecoderConfig, save_hf\n"
        "kill = lambda done, total: done > total / 2 and os._exit(9)\n"
        f"save_hf(DecoderConfig(qk_norm=False).build(jax.random.key(0)), Path({str(tmp_path)!r}) / 'out', progress=kill)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert not (tmp_path / "out").exists()
    save_hf(model, tmp_path / "out")  # what was left is in nobody's way
    from_hf(tmp_path / "out")


# --- Tokenizers and native folders -------------------------------------------------------------------------------------------


class Saves:
    """A tokenizer as `models.tokenizer` describes it, as far as saving goes."""

    stop_ids, start_ids, pad_id = (5, 6), (), 0

    def save(self, path: Path) -> None:
        (path / "tokenizer.json").write_text("{}")


def test_a_tokenizer_and_its_end_tokens_go_with_the_model(tmp_path):
    out = save_hf(QWEN2.build(jax.random.key(0)), tmp_path / "out", tokenizer=Saves())
    assert (out / "tokenizer.json").read_text() == "{}"
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == [5, 6]
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == [5, 6]
    again = save_hf(from_hf(out), tmp_path / "again", tokenizer=out)
    assert (again / "tokenizer.json").is_file()
    assert json.loads((again / "config.json").read_text())["pad_token_id"] == 0


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("scan", [False, True])
def test_a_native_folder_loads_as_the_hugging_face_one_stacked_or_not(folder, tmp_path, stored, scan):
    config = config_from_hf(folder, param_dtype="bfloat16", scan=stored)
    save_native(config, load_hf(folder, config), tmp_path / "native")
    mesh = MeshConfig(fsdp=2, tensor=2).build()
    native, hf = (Pretrained(path=str(path), scan=scan) for path in (tmp_path / "native", folder))
    assert native.config() == hf.config()
    one, other = native.load(mesh), hf.load(mesh)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == jnp.float32
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        np.testing.assert_array_equal(a, b)


def test_a_native_folder_keeps_what_no_hugging_face_family_has(tmp_path):
    config = change(QWEN2, qk_norm=True, rope_scaling=Llama3Rope(original_max_position=64))
    model = config.build(jax.random.key(0))
    save_native(config, nnx.state(model), tmp_path / "native")
    pretrained = Pretrained(path=str(tmp_path / "native"))
    assert pretrained.config() == config
    for a, b in zip(*map(jax.tree.leaves, (pretrained.load(), nnx.state(model))), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("path", "advice"),
    [("Qwen/Qwen3-0.6B", "hf download Qwen/Qwen3-0.6B"), ("./no/such/folder", "is not there"), (__file__, "is a file")],
)
def test_a_model_that_is_not_there_says_what_to_type(path, advice, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=advice):
        Pretrained(path=path).config()


def test_a_downloaded_model_is_found_by_its_hub_id(folder, monkeypatch, tmp_path):
    snapshot = tmp_path / "models--me--mine/snapshots/abc"
    shutil.copytree(folder, snapshot)
    (tmp_path / "models--me--mine/refs").mkdir()
    (tmp_path / "models--me--mine/refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert Pretrained(path="me/mine").folder() == snapshot


# --- Memory ------------------------------------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
import jax
import jax.numpy as jnp
from models.decoder import config_from_hf, load_hf
from models.safetensors_io import read_header

def resident(field):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(field + ":"))

folder, small, dtype, scan = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "scan"
options = {"dtype": dtype, "param_dtype": dtype, "scan": scan}
load_hf(small, config_from_hf(small, **options))  # what is imported and compiled once
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
state = jax.block_until_ready(load_hf(folder, config_from_hf(folder, **options)))
kept = sum(x.nbytes for x in jax.tree.leaves(state))
largest = max(stored.nbytes for stored in read_header(folder / "model.safetensors").values())
print((resident("VmHWM") - before - kept) / largest)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the counters of Linux")
def test_loading_holds_less_than_a_third_of_the_largest_tensor_beyond_the_parameters(folder, tmp_path):
    config = change(QWEN2, vocab_size=30_000, dim=1024, layers=6, head_dim=256, mlp_dim=3072, param_dtype="bfloat16")
    save_hf(config.build(jax.random.key(0)), tmp_path / "large")  # 240 MB, the embedding 61 MB
    for options in (("bfloat16", "unrolled"), ("float32", "unrolled"), ("float32", "scan")):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(folder), *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        # The promise is 1.3 of the largest tensor; on a CPU a few blocks of rows are all there is beyond the parameters.
        assert float(done.stdout) < 0.33
