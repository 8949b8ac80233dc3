"""Reading and writing checkpoints: files, errors, meshes, memory, crashes, and logits from weights made by a rule."""

import json
import shutil
import struct
import subprocess
import sys
import zlib
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
from models.decoder import (
    DecoderConfig,
    LinearRope,
    Llama3Rope,
    Pretrained,
    YarnRope,
    config_from_hf,
    from_hf,
    load_hf,
    save_hf,
    save_native,
)
from models.decoder import hf as hf_module
from models.decoder.hf_config import config_to_hf
from models.decoder.hf_names import abstract_decoder, sources
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


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small Qwen2 in bfloat16, one file."""
    return save_hf(QWEN2.build(jax.random.key(0)), tmp_path / "model")


def edit_config(folder: Path, **entries) -> Path:
    file = folder / "config.json"
    content = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))
    return folder


# --- Logits of weights made by a rule ----------------------------------------------------------------------------------------

BASE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
# First four logits of the last token, computed with transformers 5.23.0 in float32 on a CPU.
VECTORS = {
    "llama": (
        {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        (0.336834, -0.373930, 0.355874, -0.285328),
    ),
    "qwen2": (
        {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": True},
        (0.434186, -1.012170, 1.313366, -1.255409),
    ),
    "qwen3": (
        {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "head_dim": 16},
        (0.172536, -0.162483, 0.128465, -0.075499),
    ),
}


def rule(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value for each index of a tensor, from its name alone."""
    c = zlib.crc32(name.encode()) % 1000
    z = np.sin(0.37 * np.arange(np.prod(shape)) * (1 + c / 1000) + c)
    value = 0.3 * z if len(shape) > 1 else 0.1 * z + name.endswith("weight")
    return value.reshape(shape).astype(np.float32)


@pytest.mark.parametrize("family", VECTORS)
def test_weights_made_by_a_rule_give_the_logits_that_transformers_gave(family, tmp_path):
    entries, want = VECTORS[family]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **BASE, **entries}))
    config = config_from_hf(tmp_path)
    wanted = sources(config, nnx.split(abstract_decoder(config))[1])
    shapes = {name: source.shape for source in wanted for name in source.tensors}
    tensors = {name: rule(name, shape) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    tokens = jnp.array([[3, 17, 42, 5, 60, 11, 29, 8, 33, 50]])

    @jax.jit
    def last(model):
        return model(tokens, jnp.arange(10)[None])[0][0, -1] @ model.unembed

    np.testing.assert_allclose(last(from_hf(tmp_path))[:4], want, atol=2e-4)  # as they were published


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
    edit_config(folder, num_hidden_layers=40, vocab_size=97)
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
    (tmp_path / "many/model-00002-of-00007.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of the 7 files .*model-00002-of-00007"):
        from_hf(tmp_path / "many")


def test_folders_without_weights_or_config_say_what_is_there(tmp_path):
    with pytest.raises(UserError, match=r"There is no .*config.json"):
        from_hf(tmp_path / "nothing")
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **BASE}))
    with pytest.raises(UserError, match=r"has neither model.safetensors nor .*It has: config.json, pytorch_model.bin"):
        from_hf(tmp_path)


@pytest.mark.parametrize(
    ("entries", "complaints"),
    [
        ({"model_type": "gpt2"}, ["model_type='gpt2' is not a family", "llama, mistral, qwen2, qwen3"]),
        (
            {"hidden_act": "gelu", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "num_local_experts": 8},
            ["hidden_act='gelu'", "rope type 'dynamic'", "num_local_experts=8: mixtures of experts"],
        ),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, ["rope type 'longrope'"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config={...}: the weights are quantised"]),
        ({"attn_logit_softcapping": 50.0, "hidden_size": None}, ["attn_logit_softcapping=50.0", "hidden_size=None"]),
        (
            {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
            ["only the first layers may be full"],
        ),
        ({"layer_types": ["full_attention"] * 2}, ["layer_types"]),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, ["only Qwen2ForCausalLM has the weights"]),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}, ["mrope_section", "rope type 'mrope'"]),
        (
            {"rope_parameters": {"a": {"rope_theta": 1e4}, "b": {"rope_theta": 1e6}}},
            ["rope_parameters differ between kinds of layers: a, b"],
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, ["truncate"]),
        ({"rope_scaling": {"rope_type": "llama3"}}, ["rope type 'llama3'", "factor"]),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_config_that_the_decoder_cannot_represent_says_all_that_is_wrong(entries, complaints, folder):
    edit_config(folder, **entries)
    with pytest.raises(UserError) as error:
        config_from_hf(folder)
    for complaint in complaints:
        assert complaint in str(error.value)


def test_both_styles_of_config_give_one_config(folder):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    old = config_from_hf(edit_config(folder, rope_theta=5e5, rope_scaling=yarn))
    new = {**yarn, "rope_theta": 5e5}
    assert config_from_hf(edit_config(folder, rope_theta="absent", rope_scaling="absent", rope_parameters=new)) == old
    assert (old.rope_theta, old.rope_scaling) == (5e5, YarnRope(factor=4.0, original_max_position=1024))
    by_layers = {"full_attention": new, "sliding_attention": new}
    assert config_from_hf(edit_config(folder, rope_parameters=by_layers)) == old


def test_windows_are_those_of_the_layers_that_have_one(folder):
    window = {"use_sliding_window": True, "sliding_window": 7}
    config = config_from_hf(edit_config(folder, **window, max_window_layers=1))
    assert [config.window(i) for i in range(3)] == [None, 7, 7]
    assert config_from_hf(edit_config(folder, max_window_layers=28)).sliding_window is None
    assert config_from_hf(edit_config(folder, use_sliding_window=False, max_window_layers=0)).sliding_window is None
    types = ["full_attention", "full_attention", "sliding_attention"]
    config = config_from_hf(edit_config(folder, **window, layer_types=types))
    assert [config.window(i) for i in range(3)] == [None, None, 7]


# --- What cannot be written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        QWEN2,
        change(QWEN2, tied=False, qkv_bias=False, rope_scaling=LinearRope(factor=3.0)),
        change(QWEN2, qkv_bias=True, o_bias=True, mlp_bias=True, rope_scaling=Llama3Rope(original_max_position=64)),
        change(QWEN2, qkv_bias=False, sliding_window=9, head_dim=10),
        change(QWEN2, sliding_window=9, full_layers=2, norm_eps=1e-5),
        change(
            QWEN2,
            qk_norm=True,
            qkv_bias=False,
            head_dim=16,
            rope_scaling=YarnRope(original_max_position=64, beta_fast=20.0),
        ),
        change(QWEN2, qk_norm=True, o_bias=True, sliding_window=5, full_layers=1),
    ],
    ids=["qwen2", "llama", "llama biases", "mistral", "qwen2 window", "qwen3", "qwen3 biases and window"],
)
def test_a_config_comes_back_from_its_export(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(config)))
    assert config_from_hf(tmp_path) == config
    transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))


def test_without_max_position_the_exported_length_is_that_of_the_stretched_positions_or_the_default():
    assert config_to_hf(change(QWEN2, max_position=None))["max_position_embeddings"] == 32_768
    scaled = change(QWEN2, max_position=None, rope_scaling=Llama3Rope(factor=8.0, original_max_position=8192))
    assert config_to_hf(scaled)["max_position_embeddings"] == 65_536


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        (
            {"qk_norm": True},
            ["LlamaForCausalLM: has no qk_norm", "Qwen3ForCausalLM: has qkv_bias and o_bias together", "Nearest"],
        ),
        (
            {"qkv_bias": False, "sliding_window": 8, "full_layers": 1},
            ["MistralForCausalLM: has no full_layers", "Nearest is"],
        ),
        (
            {"mlp_bias": True, "o_bias": True, "sliding_window": 8},
            ["LlamaForCausalLM: has no sliding_window", "Nearest is Llama"],
        ),
    ],
    ids=["qk_norm and biases", "full layers without biases", "window and mlp_bias"],
)
def test_export_refuses_features_that_no_family_has_together(fields, reasons, tmp_path):
    config = change(QWEN2, **fields)
    with pytest.raises(UserError, match="No Hugging Face model has the features") as error:
        save_hf(config.build(jax.random.key(0)), tmp_path / "out")
    for reason in reasons:
        assert reason in str(error.value)
    assert not list(tmp_path.iterdir())


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
    for a, b in zip(*(jax.tree.leaves(p.load(mesh)) for p in (native, hf)), strict=True):
        assert a.dtype == jnp.float32
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(native.load(mesh)) == jax.tree.structure(hf.load(mesh))


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
