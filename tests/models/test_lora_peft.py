"""Adapters go to PEFT and come from it with the same logits; what does not fit is refused with all differences."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from framework.errors import UserError
from models.decoder.hf import from_hf
from models.lora import LoRA, add_lora, load_peft, merge_lora, read_peft_config, save_peft

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TOKENS = np.random.default_rng(0).integers(0, 48, (2, 9))
LORA = LoRA(rank=4, alpha=6.0, targets=("q_proj", "o_proj", "down_proj"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a tiny random Qwen2."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("qwen2")
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def with_random_adapters(base, config=LORA, scan=False):
    model = add_lora(from_hf(base, scan=scan), config, jax.random.key(0))
    for index, (path, module) in enumerate(nnx.iter_modules(model)):
        if path and hasattr(module, "lora_b"):  # B starts at 0, which would hide every mistake
            noise = jax.random.normal(jax.random.key(index), module.lora_b.shape)
            module.lora_b.set_value(0.3 * noise)
    return model


def logits_of(model):
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state):
        model = nnx.merge(graphdef, state)
        hidden, _ = model(jnp.asarray(TOKENS), jnp.broadcast_to(jnp.arange(9), (2, 9)))
        return hidden @ model.unembed

    return np.asarray(run(state))


def torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def hf_model(base):
    return transformers.Qwen2ForCausalLM.from_pretrained(base)


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("config", [LORA, LoRA(rank=4, alpha=6.5, rslora=True)], ids=["three targets", "rslora"])
def test_peft_computes_the_same_with_our_adapter_as_our_model(base, tmp_path, config, scan):
    model = with_random_adapters(base, config, scan)
    save_peft(model, tmp_path / "adapter", base_model_name="some/model")
    theirs = torch_logits(peft.PeftModel.from_pretrained(hf_model(base), tmp_path / "adapter"))
    assert np.max(np.abs(theirs - torch_logits(hf_model(base)))) > 0.01, "the adapter does nothing"
    np.testing.assert_allclose(logits_of(model), theirs, atol=1e-4)  # float32 in two libraries
    np.testing.assert_allclose(logits_of(merge_lora(model)), theirs, atol=1e-4)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "some/model"


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_our_model_computes_the_same_with_an_adapter_of_peft(base, tmp_path, scan):
    torch.manual_seed(1)
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["v_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    theirs = peft.get_peft_model(hf_model(base), settings)
    theirs.save_pretrained(tmp_path)
    assert read_peft_config(tmp_path) == LoRA(rank=4, alpha=8.0, targets=("up_proj", "v_proj"))
    plain = from_hf(base, scan=scan)
    before = logits_of(plain)
    ours = logits_of(load_peft(plain, tmp_path))
    np.testing.assert_allclose(ours, torch_logits(theirs), atol=1e-4)
    assert np.max(np.abs(ours - before)) > 0.01
    np.testing.assert_array_equal(logits_of(plain), before)  # the model given is left as it was


def test_what_is_saved_is_named_and_shaped_as_peft_does_it(base, tmp_path):
    settings = peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(LORA.targets), task_type="CAUSAL_LM")
    peft.get_peft_model(hf_model(base), settings).save_pretrained(tmp_path / "theirs")
    save_peft(with_random_adapters(base), tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs"))
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
    written, expected = (json.loads((tmp_path / w / "adapter_config.json").read_text()) for w in ("ours", "theirs"))
    differing = {k for k in written if k != "target_modules" and written[k] != expected[k]}
    assert differing <= {"base_model_name_or_path"}
    assert sorted(expected["target_modules"]) == written["target_modules"]


def test_saved_adapters_come_back_bit_for_bit_in_both_layouts(base, tmp_path):
    model = with_random_adapters(base)
    save_peft(model, tmp_path)
    again = load_peft(with_random_adapters(base, scan=True), tmp_path)
    np.testing.assert_array_equal(again.blocks.mlp.down_proj.lora_b[...][1], model.blocks[1].mlp.down_proj.lora_b[...])
    np.testing.assert_array_equal(
        again.blocks.attention.q_proj.lora_a[...][0], model.blocks[0].attention.q_proj.lora_a[...]
    )


def test_another_adapter_than_the_models_is_refused_with_all_differences(base, tmp_path):
    save_peft(with_random_adapters(base), tmp_path)
    other = add_lora(from_hf(base), LoRA(rank=2, alpha=3.0, targets=("q_proj", "v_proj")), jax.random.key(0))
    with pytest.raises(UserError) as error:
        load_peft(other, tmp_path)
    text = str(error.value)
    assert "targets: the files have down_proj, o_proj, q_proj; the model has q_proj, v_proj" in text
    assert "rank: the files have 4, the model has 2" in text
    assert "alpha: the files have 6.0, the model has 3.0" in text
    assert "Use LoRA(rank=4, alpha=6.0, targets=('down_proj', 'o_proj', 'q_proj')" in text


def test_arrays_that_do_not_fit_are_all_named(base, tmp_path):
    save_peft(with_random_adapters(base), tmp_path)
    arrays = load_file(tmp_path / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers."
    arrays[f"{prefix}2.self_attn.q_proj.lora_A.weight"] = np.zeros((4, 32), np.float32)
    del arrays[f"{prefix}0.mlp.down_proj.lora_B.weight"]
    arrays[f"{prefix}1.mlp.down_proj.lora_A.weight"] = np.zeros((4, 40), np.float32)
    save_file(arrays, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError) as error:
        load_peft(from_hf(base), tmp_path)
    text = str(error.value)
    assert f"{prefix}2.self_attn.q_proj.lora_A.weight: the files have [4, 32], the model has nothing" in text
    assert f"{prefix}0.mlp.down_proj.lora_B.weight: the files have nothing, the model has [32, 4]" in text
    assert f"{prefix}1.mlp.down_proj.lora_A.weight: the files have [4, 40], the model has [4, 48]" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora=True, which is not supported here. Merge"),
        ({"modules_to_save": ["lm_head"], "bias": "all"}, "modules_to_save=\\['lm_head'\\], bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"r": None}, "no usable r"),
    ],
    ids=["dora", "other modules", "pissa", "other method", "no rank"],
)
def test_adapters_of_another_kind_are_refused(base, tmp_path, change, message):
    save_peft(with_random_adapters(base), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_peft_config(tmp_path)


def test_folders_without_an_adapter_say_what_is_missing(base, tmp_path):
    with pytest.raises(UserError, match=r"adapter_config\.json does not exist"):
        load_peft(from_hf(base), tmp_path)
    with pytest.raises(UserError, match="no adapters to save"):
        save_peft(from_hf(base), tmp_path)
    save_peft(with_random_adapters(base), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="is damaged"):
        load_peft(from_hf(base), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        load_peft(from_hf(base), tmp_path)
