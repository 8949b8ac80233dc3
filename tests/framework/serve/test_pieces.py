"""The bytes of tokens, for the kinds of vocabularies that published models have."""

from types import SimpleNamespace

import pytest
from tiny_server import TEXTS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from framework.serve.pieces import Offsets, Pieces
from models.tokenizer import ByteTokenizer

SAYINGS = ["the cat sat", "das Mädchen aß", "日本語 🙂 and more", "  two  blanks\n", "<think>a</think>"]


def byte_level() -> Tokenizer:
    return ByteTokenizer(merges=30).build(TEXTS).tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    train(tokenizer)
    return tokenizer


def llama2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    train(tokenizer)
    return tokenizer


def train(tokenizer: Tokenizer) -> None:
    extra = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "<think>", "</think>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=extra, show_progress=False))


@pytest.mark.parametrize("make", [byte_level, metaspace, llama2])
@pytest.mark.parametrize("saying", SAYINGS)
def test_the_bytes_of_the_tokens_make_up_the_text(make, saying):
    tokenizer = make()
    pieces = Pieces(SimpleNamespace(tokenizer=tokenizer))
    ids = tokenizer.encode(saying, add_special_tokens=False).ids
    assert b"".join(map(pieces.bytes, ids)).decode() == saying
    offsets = Offsets(pieces)
    for i, token in enumerate(ids):
        before = b"".join(map(pieces.bytes, ids[:i])).decode("utf-8", "ignore")
        assert offsets.next(token) == len(before)


def test_part_of_a_character_is_told_apart_and_an_id_without_a_token_is_nothing():
    tokenizer = byte_level()
    pieces = Pieces(SimpleNamespace(tokenizer=tokenizer))
    first, *rest = tokenizer.encode("🙂").ids
    assert pieces.exact(first) == "bytes:\\xf0"
    assert pieces.text(first) == "\ufffd"
    assert len({pieces.exact(token) for token in (first, *rest)}) == len({first, *rest})
    assert pieces.exact(tokenizer.encode("a").ids[0]) == pieces.text(tokenizer.encode("a").ids[0]) == "a"
    assert pieces.bytes(tokenizer.get_vocab_size() + 5) == b""
