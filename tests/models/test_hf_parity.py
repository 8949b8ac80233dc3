"""The decoder against transformers (torch, eager attention) on tiny random checkpoints, in both directions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from framework.inference import Engine, EngineConfig, Request
from models.decoder import from_hf, save_hf

# Two or three layers of float32 in other summation orders; logits are of size 1, and differences of 2e-6 are seen.
ATOL = 2e-5

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32}

FAMILIES = {
    "llama2": transformers.LlamaConfig(**SIZES | {"num_key_value_heads": 4}, rms_norm_eps=1e-5),
    "llama_biases": transformers.LlamaConfig(**SIZES, head_dim=16, attention_bias=True, mlp_bias=True),
    "llama3": transformers.LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama_linear": transformers.LlamaConfig(**SIZES, rope_parameters=LINEAR),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=5),
    "mistral_full": transformers.MistralConfig(**SIZES, head_dim=12, sliding_window=None),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen2_tied": transformers.Qwen2Config(
        **SIZES, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    ),
    "qwen2_window": transformers.Qwen2Config(
        **SIZES | {"num_hidden_layers": 3}, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen2_yarn": transformers.Qwen2Config(**SIZES, rope_parameters=YARN),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "qwen3_yarn": transformers.Qwen3Config(
        **SIZES, head_dim=16, rope_parameters=YARN | {"attention_factor": 0.9, "beta_fast": 20.0, "beta_slow": 2.0}
    ),
}
LENGTHS = (24, 17, 9, 1)
WIDTH = 27  # one for all batches, so that a model is compiled once
TOKENS = [np.random.default_rng(i).integers(0, 96, n) for i, n in enumerate(LENGTHS)]


@functools.cache
def checkpoint(family: str, folder: str) -> transformers.PreTrainedModel:
    """A model of transformers, saved in the folder. Norms and biases are random too: ones and zeros would hide mistakes."""
    config = FAMILIES[family]
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@pytest.fixture(params=FAMILIES)
def pair(request, tmp_path_factory):
    """The folder of a family's checkpoint and the model of transformers in it."""
    folder = tmp_path_factory.getbasetemp() / request.param
    return folder, checkpoint(request.param, str(folder))


def reference(model, tokens: np.ndarray, offset: int = 0) -> np.ndarray:
    """Logits [T, V] of one row alone."""
    positions = torch.arange(offset, offset + len(tokens))[None]
    with torch.no_grad():
        return model(torch.as_tensor(tokens)[None], position_ids=positions).logits[0].float().numpy()


@jax.jit
def logits(model, tokens, positions, segments):
    hidden, _ = model(tokens, positions, segments)
    return (hidden @ model.unembed.astype(hidden.dtype)).astype(jnp.float32)


def padded(offset: int = 0):
    """The rows, padded on the left: tokens, positions, segments [4, 27]."""
    tokens, positions, segments = (np.zeros((4, WIDTH), np.int32) for _ in range(3))
    for row, ids in enumerate(TOKENS):
        tokens[row, -len(ids) :], segments[row, -len(ids) :] = ids, 1
        positions[row, -len(ids) :] = np.arange(offset, offset + len(ids))
    return tokens, positions, segments


def packed():
    """The second and third row one after the other in one, then padding; the other rows as they are."""
    tokens, positions, segments = (np.zeros((4, WIDTH), np.int32) for _ in range(3))
    at = [(0, 0), (1, 0), (1, 17), (2, 0)]
    for (row, start), ids in zip(at, TOKENS, strict=True):
        stop = start + len(ids)
        tokens[row, start:stop], positions[row, start:stop] = ids, np.arange(len(ids))
        segments[row, start:stop] = 1 + (start > 0)
    return (tokens, positions, segments), [
        (row, slice(start, start + n)) for (row, start), n in zip(at, LENGTHS, strict=True)
    ]


def test_left_padded_rows_give_the_logits_of_each_row_alone_in_transformers(pair):
    folder, theirs = pair
    got = logits(from_hf(folder), *padded())
    for row, ids in enumerate(TOKENS):
        np.testing.assert_allclose(got[row, -len(ids) :], reference(theirs, ids), atol=ATOL)


def test_packed_rows_give_the_logits_of_each_text_alone_in_transformers(pair):
    folder, theirs = pair
    inputs, places = packed()
    got = logits(from_hf(folder), *inputs)
    for (row, columns), ids in zip(places, TOKENS, strict=True):
        np.testing.assert_allclose(got[row, columns], reference(theirs, ids), atol=ATOL)


@pytest.mark.parametrize("pair", ["llama3", "mistral", "qwen2_window", "qwen3"], indirect=True)
def test_cached_decoding_gives_the_logits_of_transformers(pair):
    folder, theirs = pair
    model = from_hf(folder)

    @jax.jit
    def step(model, tokens, positions, segments, cache):
        hidden, cache = model(tokens, positions, segments, cache)
        return hidden @ model.unembed, cache

    tokens, positions, segments = padded()
    cache, pieces = model.init_cache(4, WIDTH), []
    for start, stop in ((0, 21), *((i, i + 1) for i in range(21, WIDTH))):
        part = (x[:, start:stop] for x in (tokens, positions, segments))
        piece, cache = step(model, *part, cache)
        pieces.append(piece)
    got = np.concatenate(pieces, 1)
    for row, ids in enumerate(TOKENS):
        np.testing.assert_allclose(got[row, -len(ids) :], reference(theirs, ids), atol=ATOL)


def spoken(folder, **sizes) -> list[list[int]]:
    """What the engine says to each row, greedily; the longest is read in parts, and there are fewer slots than rows."""
    config = EngineConfig(slots=3, max_length=48, max_new_tokens=20, prefill_tokens=10, stop_tokens=(), **sizes)
    engine = Engine(from_hf(folder), config)
    requests = [Request(id=i, prompt=ids, temperature=0.0) for i, ids in enumerate(TOKENS)]
    return [completion.tokens.tolist() for completion in engine.generate(requests, 0)]


def spoken_by_transformers(theirs) -> list[list[int]]:
    found = []
    for ids in TOKENS:
        row = torch.as_tensor(ids)[None]
        out = theirs.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            use_cache=True,
        )
        found.append(out[0, len(ids) :].tolist())
    return found


@pytest.mark.parametrize("pair", ["llama3", "mistral", "qwen2_window", "qwen3"], indirect=True)
def test_the_engine_says_the_greedy_tokens_of_transformers(pair):
    folder, theirs = pair
    assert spoken(folder) == spoken_by_transformers(theirs)


@pytest.mark.slow
def test_the_engine_says_the_greedy_tokens_of_transformers_for_every_family_on_pages(pair):
    folder, theirs = pair
    assert spoken(folder) == spoken(folder, layout="paged", page_size=4) == spoken_by_transformers(theirs)


@pytest.mark.parametrize("pair", ["llama3", "llama_linear", "qwen2_yarn", "qwen3_yarn"], indirect=True)
def test_positions_far_beyond_the_length_trained_on_are_stretched_alike(pair):
    folder, theirs = pair
    got = logits(from_hf(folder), *padded(offset=90))
    for row, ids in enumerate(TOKENS):
        np.testing.assert_allclose(got[row, -len(ids) :], reference(theirs, ids, offset=90), atol=ATOL)


@pytest.mark.parametrize("pair", ["llama3", "qwen2"], indirect=True)
def test_stacked_layers_give_the_same_logits(pair):
    folder, _ = pair
    unrolled, scanned = (logits(from_hf(folder, scan=scan), *padded()) for scan in (False, True))
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5)  # the compiler fuses a loop in another way


@pytest.mark.parametrize("pair", ["llama3", "qwen2", "qwen3"], indirect=True)
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(pair):
    folder, theirs = pair
    ours = logits(from_hf(folder, dtype="bfloat16", param_dtype="bfloat16"), *padded())[0, -24:]
    exact = reference(theirs, TOKENS[0])
    half = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
    their_error = np.abs(reference(half, TOKENS[0]) - exact).mean()
    # The two round at other places, so they differ from each other by about what each differs from float32: the mean distance
    # to float32 is what can be compared. A wrong weight or angle is ten times as far.
    assert np.abs(ours - exact).mean() < 1.5 * their_error


def test_an_exported_model_gives_the_same_logits_in_transformers(pair, tmp_path):
    folder, theirs = pair
    save_hf(from_hf(folder), tmp_path / "out", dtype="float32")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    assert back.dtype == torch.float32
    if type(theirs) is not transformers.MistralForCausalLM or theirs.config.sliding_window:
        assert type(back) is type(theirs)  # Mistral without a window is a Llama
    for offset in (0, 90):
        np.testing.assert_array_equal(reference(back, TOKENS[0], offset), reference(theirs, TOKENS[0], offset))
