"""From a folder to an engine: both formats, types, templates."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from tiny_server import LENGTH

from framework.errors import UserError
from framework.inference.source import Spoken, open_checkpoint, said_when_memory_ends
from models.decoder.exchange import import_model

HI = [{"role": "user", "content": "hi"}]


def test_a_native_folder_holds_the_same_model_and_tokenizer_as_the_hugging_face_one(folder, checkpoint, tmp_path):
    import_model(str(folder), tmp_path / "native")
    native = open_checkpoint(str(tmp_path / "native"), template_values={})
    assert native.max_position == LENGTH
    assert native.vocab_size == checkpoint.engine(slots=1, max_length=8, max_queue=0).vocab_size
    assert native.tokenizer.chat.prompt(HI) == checkpoint.tokenizer.chat.prompt(HI)
    assert native.tokenizer.stop_ids == checkpoint.tokenizer.stop_ids
    mine, theirs = (jax.tree.leaves(nnx.state(found.model)) for found in (native, checkpoint))
    assert len(mine) == len(theirs)
    assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("asked", "got"), [(None, "float32"), ("bfloat16", "bfloat16")])
def test_a_cpu_computes_in_float32_unless_told_otherwise(folder, asked, got):
    checkpoint = open_checkpoint(str(folder), dtype=asked, template_values={})
    assert checkpoint.dtype == got
    assert checkpoint.model.unembed.dtype == got


def test_a_template_of_ones_own_reads_the_values_given(folder, tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text("{{ greeting }}{% for m in messages %}{{ m.content }}{% endfor %}")
    checkpoint = open_checkpoint(str(folder), chat_template=str(file), template_values={"greeting": "Oh, "})
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer.chat.prompt(HI)) == "Oh, hi"


def test_a_template_that_cannot_be_read_says_why(folder, tmp_path):
    (tmp_path / "latin.jinja").write_bytes(b"{{ x }}\xe4")
    for given, said in (
        (str(tmp_path / "latin.jinja"), "is not in UTF-8"),
        ("a" * 300, "cannot be read as a file: File name too long"),
        (str(tmp_path), "cannot be read as a file: Is a directory"),
    ):
        with pytest.raises(UserError, match=said):
            open_checkpoint(str(folder), chat_template=given, template_values={})


def test_a_cache_that_does_not_fit_in_memory_says_which_options_make_it_smaller():
    said = r"RESOURCE_EXHAUSTED: .* Use fewer --slots, a shorter --max-length"
    with pytest.raises(UserError, match=said), said_when_memory_ends():
        jnp.zeros(2**55, jnp.int8).block_until_ready()


def test_text_goes_on_behind_a_stop_token_that_was_ignored(checkpoint):
    tokenizer = checkpoint.tokenizer
    ids = [*tokenizer.encode("ab"), tokenizer.eos_id, *tokenizer.encode("cd")]
    assert tokenizer.decode(ids) == "ab"
    assert Spoken(tokenizer).decode(ids) == "abcd"
    assert Spoken(tokenizer).encode("ab") == tokenizer.encode("ab")
