"""Models with matrices in 4 bits: what they compute, how they are kept, split, written and opened."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from framework.cli import main
from framework.errors import UserError
from framework.inference import Engine, EngineConfig, Request
from framework.inference.source import open_checkpoint
from framework.mesh import MeshConfig, shard_tree
from framework.rundir import RUN_FILES
from kernels_pallas import mxfp4, nvfp4
from kernels_pallas.hadamard import hadamard
from models.decoder import DecoderConfig, Pretrained, save_hf
from models.decoder.hf_names import abstract_decoder
from models.lora import LoRA, add_lora
from models.ptq import (
    PTQ,
    PackedKernel,
    abstract_packed,
    measure,
    open_packed,
    pack,
    packed_layers,
    quantize_model,
    quantize_tokens,
    save_packed,
    stdlib_text,
)
from models.tokenizer import CHAT_TAGS, ByteTokenizer

TOKENIZER = ByteTokenizer(tags=CHAT_TAGS)
CONFIG = DecoderConfig(
    vocab_size=TOKENIZER.vocab_size, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_dim=128, max_position=128
)
FORMATS = ["mxfp4", "nvfp4"]
TOKENS = np.random.default_rng(0).integers(0, 256, (2, 24)).astype(np.int32)
POSITIONS = np.broadcast_to(np.arange(24, dtype=np.int32), (2, 24))


@pytest.fixture(scope="module")
def model():
    return CONFIG.build(jax.random.key(0))


@pytest.fixture(scope="module")
def small():
    """A model of one layer, which is soon compiled."""
    return DecoderConfig(**{**CONFIG.__dict__, "layers": 1}).build(jax.random.key(2))


@pytest.fixture(scope="module")
def packed_of(model):
    """The packed model of a config, made once."""
    return functools.cache(lambda config: quantize_model(model, config))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """A checkpoint in Hugging Face format."""
    path = tmp_path_factory.mktemp("hf") / "model"
    return save_hf(model, path, tokenizer=TOKENIZER.build(), dtype="float32")


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> dict[str, Path]:
    """The folders that the command makes of it."""
    out = tmp_path_factory.mktemp("packed")
    for name in FORMATS:
        assert main(["quantise", str(folder), str(out / name), "--format", name, "--tokens", "0"]) == 0
    return {name: out / name for name in FORMATS}


def dense(packed: nnx.Module) -> nnx.Module:
    """The model whose matrices are the numbers that the packed ones stand for, turned back."""
    other = nnx.merge(*nnx.split(packed))
    matrices = dict(packed_layers(packed))
    for path, module in nnx.iter_modules(other):
        if matrix := matrices.get("/".join(map(str, path))):
            values = jax.jit(lambda m: m.values())(matrix)
            module.kernel = nnx.Param(
                hadamard(values.mT, block=matrix.config.group).mT if matrix.config.rotate else values
            )
    return other


def outputs(model) -> np.ndarray:
    graphdef, state = nnx.split(model)
    return np.asarray(jax.jit(lambda s: nnx.merge(graphdef, s)(TOKENS, POSITIONS)[0])(state))


def arrays(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ["mxfp4", pytest.param("nvfp4", marks=pytest.mark.slow)])
def test_a_packed_model_computes_what_the_dequantised_matrices_compute_to_the_bit(small, name):
    packed = quantize_model(small, PTQ(format=name))
    got, want = outputs(packed), outputs(dense(packed))
    np.testing.assert_array_equal(got, want)
    before = small.blocks[0].mlp.up_proj.kernel.get_value()
    assert np.abs(np.asarray(dense(packed).blocks[0].mlp.up_proj.kernel.get_value()) - before).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_rotation_of_weights_and_inputs_cancels_but_for_rounding(packed_of, name):
    rotated, plain = packed_of(PTQ(format=name, rotate=True)), packed_of(PTQ(format=name))
    path, matrix = next(packed_layers(rotated))
    assert not np.array_equal(matrix.codes, dict(packed_layers(plain))[path].codes)
    # Hidden states are of the size of 1, and sums of 64 to 96 terms are rounded in another order.
    np.testing.assert_allclose(outputs(rotated), outputs(dense(rotated)), atol=5e-5)


@pytest.mark.parametrize("name", [pytest.param("mxfp4", marks=pytest.mark.slow), "nvfp4"])
def test_activations_are_quantised_for_each_token_on_its_own(packed_of, name):
    config = PTQ(format=name, activations=True)
    matrix = next(packed_layers(packed_of(config)))[1]
    x = jax.random.normal(jax.random.key(1), (6, 64)) * 10.0 ** jnp.arange(6)[:, None]
    quantize = jax.jit(quantize_tokens, static_argnums=1)
    together = quantize(x, config)
    alone = quantize(x[5:], config)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a[5], b[0])
    values = np.asarray(jax.jit((mxfp4 if name == "mxfp4" else nvfp4).dequantize)(together), np.float64)
    error = np.linalg.norm(values - x, axis=-1) / np.linalg.norm(x, axis=-1)
    assert (error > 0.01).all()
    assert (error < 0.2).all()  # 4-bit numbers: steps of a sixth to a third of what they stand for
    got, weights = jax.jit(lambda x, m: (x @ m, m.values()))(x, matrix)
    want = values @ np.asarray(weights, np.float64)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())  # float32 sums of 64 terms


@pytest.mark.parametrize(("name", "bits"), [("mxfp4", 4.25), ("nvfp4", 4.5)])
def test_weights_are_kept_in_four_and_a_quarter_or_a_half_bits(packed_of, made, name, bits):
    packed = packed_of(PTQ(format=name))
    weights = sum(np.prod(matrix.shape) for _, matrix in packed_layers(packed))
    assert weights == 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128)
    held = sum(m.codes.nbytes + m.scales.nbytes for _, m in packed_layers(packed))
    assert 8 * held == bits * weights == PTQ(format=name).bits * weights
    stored = safetensors.numpy.load_file(made[name] / "model.safetensors")
    assert 8 * sum(x.nbytes for key, x in stored.items() if key.endswith((".codes", ".scales"))) == bits * weights
    assert all(x.size == 1 for key, x in stored.items() if key.endswith(".tensor_scale"))


def test_packed_weights_are_no_parameters_and_the_given_model_stays_as_it_is(model, packed_of):
    before = arrays(nnx.state(CONFIG.build(jax.random.key(0))))
    packed = packed_of(PTQ())
    assert not any("proj" in str(path) for path, _ in nnx.to_flat_state(nnx.state(packed, nnx.Param)))
    assert len(list(packed_layers(packed))) == 14
    assert not list(packed_layers(model))
    for a, b in zip(before, arrays(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert packed.embedding.get_value() is model.embedding.get_value()


@pytest.mark.slow
def test_bfloat16_and_stacked_layers_are_quantised_as_each_layer_is():
    config = DecoderConfig(**{**CONFIG.__dict__, "scan": True, "dtype": "bfloat16", "param_dtype": "bfloat16"})
    plain = config.build(jax.random.key(0))
    kernel = plain.blocks.mlp.up_proj.kernel.get_value()
    values = jax.jit(lambda m: m.values())
    for name in FORMATS:
        stacked = quantize_model(plain, PTQ(format=name))
        assert np.isfinite(outputs(stacked).astype(np.float32)).all()
        matrix = dict(packed_layers(stacked))["blocks/mlp/up_proj"]
        assert matrix.shape == (2, 64, 128)
        one = jax.jit(pack, static_argnums=1)(kernel[1], PTQ(format=name))
        np.testing.assert_array_equal(values(matrix)[1], values(one))


# --- Engine and mesh ---------------------------------------------------------------------------------------------------------

REQUESTS = [Request(id=i, prompt=tuple(TOKENS[i % 2, : 5 + i]), max_tokens=8) for i in range(3)]


def said(model, mesh=None) -> list[tuple]:
    engine = Engine(model, EngineConfig(slots=4, max_length=64), mesh=mesh)
    return [tuple(map(int, c.tokens)) for c in engine.generate(REQUESTS, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_engine_says_what_the_model_of_dequantised_matrices_says(packed_of, name):
    packed = packed_of(PTQ(format=name))
    assert said(packed) == said(dense(packed))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_engine_says_the_same_on_a_mesh_and_takes_new_packed_weights(made, name):
    alone = said(open_packed(made[name]))
    mesh = MeshConfig(data=2, tensor=2).build(jax.devices()[:4])
    on_mesh = open_packed(made[name], mesh=mesh)
    matrix = dict(packed_layers(on_mesh))["blocks/0/mlp/up_proj"]
    assert len({str(shard.index) for shard in matrix.codes.addressable_shards}) == 2
    assert said(on_mesh, mesh) == alone
    engine = Engine(on_mesh, EngineConfig(slots=4, max_length=64), mesh=mesh)
    first = [tuple(map(int, c.tokens)) for c in engine.generate(REQUESTS, 0)]
    other = quantize_model(CONFIG.build(jax.random.key(5)), PTQ(format=name))
    engine.load(nnx.split(other)[1], 1)
    assert [tuple(map(int, c.tokens)) for c in engine.generate(REQUESTS, 0)] == said(other)
    assert first == alone


@pytest.mark.slow
def test_quantising_on_a_mesh_leaves_each_part_where_it_was():
    mesh = MeshConfig(fsdp=2, tensor=2).build(jax.devices()[:4])
    graphdef, state = nnx.split(CONFIG.build(jax.random.key(0)))
    spread = nnx.merge(graphdef, jax.device_put(state, shard_tree(mesh, state)))
    for name in FORMATS:
        alone = dict(packed_layers(quantize_model(nnx.merge(graphdef, state), PTQ(format=name))))
        for path, matrix in packed_layers(quantize_model(spread, PTQ(format=name))):
            for got, want in zip(jax.tree.leaves(matrix), jax.tree.leaves(alone[path]), strict=True):
                np.testing.assert_array_equal(got, want)
                assert {part.data.shape for part in got.addressable_shards} == {tuple(n // 2 for n in want.shape)}


def test_a_mesh_that_would_cut_a_group_is_refused_with_the_mesh_that_does_not():
    config = DecoderConfig(**{**CONFIG.__dict__, "mlp_dim": 96})  # down_proj has 96 inputs: 3 groups of 32, 6 of 16
    mesh = MeshConfig(tensor=2).build(jax.devices()[:2])
    cut = r"down_proj.*\[64, 3\].*'mlp'.*cannot be split over 2 devices.*Use mesh.tensor=1"
    states = {name: nnx.split(abstract_packed(abstract_decoder(config), PTQ(format=name)))[1] for name in FORMATS}
    with pytest.raises(UserError, match=cut):  # what an engine does with a model
        shard_tree(mesh, states["mxfp4"])
    shard_tree(mesh, states["nvfp4"])
    graphdef, state = nnx.split(config.build(jax.random.key(0)))
    spread = nnx.merge(graphdef, jax.device_put(state, shard_tree(mesh, state)))
    with pytest.raises(UserError, match=cut):
        quantize_model(spread, PTQ())


# --- Files and the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scan", [False, True])
def test_a_folder_gives_back_the_packed_model_also_with_stacked_layers(packed_of, made, name, scan):
    packed = packed_of(PTQ(format=name))
    source = Pretrained(path=str(made[name]), scan=scan)
    opened = open_packed(made[name], config=source.config())
    if not scan:
        for a, b in zip(arrays(nnx.state(opened)), arrays(nnx.state(packed)), strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        for path, matrix in packed_layers(opened):
            for i in range(2):
                want = dict(packed_layers(packed))[path.replace("blocks", f"blocks/{i}")]
                for a, b in zip(jax.tree.leaves(matrix), jax.tree.leaves(want), strict=True):
                    np.testing.assert_array_equal(a[i], b)
    for a, b in zip(arrays(source.load()), arrays(nnx.state(opened)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_with_stacked_layers_is_written_as_the_same_folder(model, made, tmp_path):
    config = DecoderConfig(**{**CONFIG.__dict__, "scan": True})
    graphdef = nnx.split(config.build(jax.random.key(0)))[0]
    native = Pretrained(path=str(made["nvfp4"]), scan=True)
    stacked = nnx.merge(graphdef, native.load())  # the structure of a plain decoder will do
    save_packed(config, stacked, tmp_path / "out")
    files = [safetensors.numpy.load_file(path / "model.safetensors") for path in (tmp_path / "out", made["nvfp4"])]
    assert files[0].keys() == files[1].keys()
    for key, value in files[0].items():
        np.testing.assert_array_equal(value, files[1][key])


def test_types_asked_for_are_those_of_what_is_not_packed(made):
    state = Pretrained(path=str(made["mxfp4"]), dtype="bfloat16", param_dtype="bfloat16").load()
    assert state["embedding"].dtype == jnp.bfloat16
    assert isinstance(state["blocks"][0]["mlp"]["up_proj"]["kernel"], PackedKernel)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_folder_says_how_it_was_made_and_what_it_costs(folder, tmp_path, name):
    words = ["--format", name, "--tokens", "64", "--window", "32"]
    assert main(["quantise", str(folder), str(tmp_path / "out"), *words]) == 0
    notes = json.loads((tmp_path / "out/quantized.json").read_text())
    assert (notes["format"], notes["rotate"], notes["activations"]) == (name, False, False)
    found = notes["perplexity"]
    assert found["tokens"] == 62  # two windows of 32, the first token of each is not predicted
    assert found["before"] == pytest.approx(np.exp(found["loss_before"]))
    text = ByteTokenizer(tags=CHAT_TAGS).build().encode(stdlib_text(8 * 64))[:64]
    plain = open_checkpoint(str(folder), template_values={}).model
    assert measure(plain, text, window=32).loss == pytest.approx(found["loss_before"], rel=1e-5)
    packed = open_packed(tmp_path / "out")
    assert measure(packed, text, window=32).loss == pytest.approx(found["loss_after"], rel=1e-5)


def test_measuring_is_the_mean_of_the_log_probabilities_of_all_tokens_but_the_first_of_a_window(model):
    ids = np.random.default_rng(1).integers(0, 256, 45).tolist()
    call = jax.jit(lambda tokens: model(tokens, jnp.arange(tokens.shape[1])[None])[0])
    ids += ids[:3]
    hidden = [call(np.array([part]))[0] for part in (ids[:16], ids[16:32], ids[32:])]
    logits = [np.asarray(h @ model.unembed, np.float64) for h in hidden]
    logp = [x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in logits]
    parts = [p[np.arange(len(p) - 1), ids[a + 1 : a + len(p)]] for p, a in zip(logp, (0, 16, 32), strict=True)]
    got = measure(model, ids, window=16)
    assert got.tokens == 45
    assert got.loss == pytest.approx(-np.concatenate(parts).mean(), rel=1e-5)
    assert got.perplexity == pytest.approx(np.exp(got.loss))


def test_writing_that_is_interrupted_leaves_nothing(packed_of, tmp_path, monkeypatch):
    packed = packed_of(PTQ())

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_packed(CONFIG, packed, tmp_path / "out", progress=stop)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_packed(CONFIG, packed, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def damaged(made, tmp_path, change) -> Path:
    copy = Path(shutil.copytree(made["mxfp4"], tmp_path / "copy", dirs_exist_ok=True))
    stored = safetensors.numpy.load_file(copy / "model.safetensors")
    change(stored)
    safetensors.numpy.save_file(stored, copy / "model.safetensors")
    return copy


def test_a_damaged_folder_names_what_is_wrong(made, tmp_path):
    codes = "blocks.0.mlp.up_proj.kernel.codes"
    for change, message in (
        (lambda x: x.pop(codes), f"{codes}: not in the file"),
        (lambda x: x.update({codes: x[codes][:, :8].copy()}), rf"{codes}: file U8\[128, 8\], config U8\[128, 32\]"),
        (lambda x: x.update({codes: x[codes].astype(np.float32)}), "file F32.*config U8"),
        (lambda x: x.update(more=np.zeros(3, np.float32)), "more: unknown"),
    ):
        with pytest.raises(UserError, match=message):
            Pretrained(path=str(damaged(made, tmp_path, change))).load()
    (tmp_path / "copy/quantized.json").write_text('{"format": "int4", "rotate": false, "activations": false}')
    with pytest.raises(UserError, match=r"'int4' is not known\. Use 'mxfp4' or 'nvfp4'"):
        Pretrained(path=str(tmp_path / "copy")).load()
    (tmp_path / "copy/quantized.json").write_text('{"format": "mxfp4"}')
    with pytest.raises(UserError, match="does not say how the model was quantised"):
        Pretrained(path=str(tmp_path / "copy")).load()


def test_what_cannot_be_quantised_says_why(model, packed_of, made):
    with pytest.raises(UserError, match=r"'int4' is not known\. Use 'mxfp4' or 'nvfp4'"):
        quantize_model(model, PTQ(format="int4"))
    with pytest.raises(UserError, match="quantised already"):
        quantize_model(packed_of(PTQ()), PTQ())
    with pytest.raises(UserError, match="has adapters"):
        quantize_model(add_lora(model, LoRA(rank=2), jax.random.key(0)), PTQ())
    with pytest.raises(UserError, match="not quantised"):
        save_packed(CONFIG, model, made["mxfp4"].parent / "x")
    odd = DecoderConfig(vocab_size=32, dim=64, layers=1, heads=2, kv_heads=2, head_dim=32, mlp_dim=48).build(
        jax.random.key(0)
    )
    with pytest.raises(
        UserError, match=r"down_proj has 48 inputs.*groups of 32.*\(1 of 7 layers.*Use format='nvfp4' \(--format"
    ):
        quantize_model(odd, PTQ())
    quantize_model(odd, PTQ(format="nvfp4"))
    odder = DecoderConfig(vocab_size=32, dim=24, layers=1, heads=2, kv_heads=2, head_dim=12, mlp_dim=32).build(
        jax.random.key(0)
    )
    for name in FORMATS:
        with pytest.raises(UserError, match="Only models whose layers have multiples of 16 inputs can be quantised"):
            quantize_model(odder, PTQ(format=name))
    with pytest.raises(UserError, match="cannot be trained"):
        Pretrained(path=str(made["mxfp4"])).load(MeshConfig().build(jax.devices()[:1]))


def test_mistakes_on_the_command_line_say_what_to_type_and_write_nothing(folder, made, tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "empty").touch()
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (bare / file).unlink(missing_ok=True)
    out = str(tmp_path / "out")
    (tmp_path / "run").mkdir()
    for file in RUN_FILES:
        (tmp_path / "run" / file).write_text("{}")
    for words, message in (
        (
            [str(tmp_path / "run"), out],
            f"Export it first, and quantise that: maypole export {tmp_path / 'run'} EXPORTED",
        ),
        ([str(made["nvfp4"]), out], "is quantised already, to nvfp4. Quantise the model that it was made of"),
        ([str(tmp_path / "none/at/all"), out], "is not there. Give the folder of a checkpoint"),
        ([str(folder), str(made["mxfp4"])], "already exists and is not empty"),
        ([str(folder), out, "--tokens", "1"], "Use 0 for no measurement"),
        ([str(folder), out, "--window", "1"], "Use 2 tokens or more"),
        ([str(folder), out, "--text", str(tmp_path / "none")], "--text FILE"),
        ([str(folder), out, "--text", str(tmp_path / "binary")], "is not text in UTF-8"),
        ([str(folder), out, "--text", str(tmp_path / "empty")], "at least 2 are needed"),
        ([str(bare), out], "--tokens 0 leaves that out"),
    ):
        capsys.readouterr()
        assert main(["quantise", *words]) == 2, words
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["quantise", str(folder), out, "--format", "int4"])
    assert "choose from" in capsys.readouterr().err
    assert main(["export", str(made["mxfp4"]), out]) == 2
    assert "Export the model it was made of" in capsys.readouterr().err
    assert main(["import", str(made["mxfp4"]), out]) == 2
    assert "import the model it was made of" in capsys.readouterr().err
    assert not Path(out).exists()


def test_without_a_tokenizer_a_model_is_quantised_unmeasured(folder, tmp_path, capsys):
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    assert main(["quantise", str(bare), str(tmp_path / "out"), "--tokens", "0", "--rotate", "--activations"]) == 0
    notes = json.loads((tmp_path / "out/quantized.json").read_text())
    assert "perplexity" not in notes
    assert notes["rotate"]
    assert notes["activations"]
    assert "perplexity" not in capsys.readouterr().out
    matrix = next(packed_layers(open_packed(tmp_path / "out")))[1]
    assert matrix.config == PTQ(rotate=True, activations=True)


@pytest.mark.slow
def test_the_command_makes_a_folder_that_generate_answers_from_in_processes_of_their_own(folder, tmp_path):
    (tmp_path / "text.txt").write_text("Held out: the quick brown fox jumps over the lazy dog. " * 4)
    (tmp_path / "in.jsonl").write_text('{"prompt": "the cat"}\n')
    program = [sys.executable, "-m", "framework.cli"]
    options = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True, "timeout": 300}
    words = [
        "quantise",
        folder,
        tmp_path / "out",
        "--format",
        "nvfp4",
        "--text",
        tmp_path / "text.txt",
        "--window",
        "64",
    ]
    done = subprocess.run([*program, *map(str, words)], **options)
    assert done.returncode == 0, done.stderr
    notes = json.loads((tmp_path / "out/quantized.json").read_text())["perplexity"]
    assert notes["text"] == "text.txt"
    assert f"perplexity {notes['before']:,.4f} before, on {notes['tokens']:,} tokens of text.txt" in done.stdout
    assert f"perplexity {notes['after']:,.4f} after" in done.stdout
    words = [
        "generate",
        "--model",
        tmp_path / "out",
        "--prompts",
        tmp_path / "in.jsonl",
        "--out",
        tmp_path / "out.jsonl",
    ]
    words += ["--max-tokens", "8", "--temperature", "0"]
    done = subprocess.run([*program, *map(str, words)], **options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.jsonl").read_text())
    checkpoint = open_checkpoint(str(tmp_path / "out"), template_values={})
    engine = checkpoint.engine(slots=1, max_length=64, max_queue=8)
    request = Request(id=1, prompt=tuple(checkpoint.tokenizer.encode("the cat")), max_tokens=8, temperature=0.0)
    assert found["responses"] == [engine.generate([request], 0)[0].text]
