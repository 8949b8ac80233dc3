"""config.json to a DecoderConfig and back, what is refused, and logits from weights made by a rule."""

import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from flax import nnx

from framework.errors import UserError
from models.decoder import DecoderConfig, LinearRope, Llama3Rope, YarnRope, config_from_hf, from_hf, save_hf
from models.decoder.hf_config import config_to_hf
from models.decoder.hf_names import abstract_decoder, sources

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


@pytest.fixture
def folder(tmp_path) -> Path:
    """The config of a small Qwen2, without weights."""
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(QWEN2)))
    return tmp_path


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
