"""Text that arrives in pieces is the text of the whole, and stop strings end it wherever they stand."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from framework.errors import UserError
from framework.inference.text import TextStream, token_texts, watch_mask
from models.tokenizer import ByteTokenizer

TEXTS = ["кот спит, кот ест", "日本語のテキスト, the answer is 42.\n\n", "🎈🎈 naïve café STOP Human: I am"] * 4
BYTES = ByteTokenizer().build()
MERGED = ByteTokenizer(merges=60).build(TEXTS)


class Plain:
    """A tokenizer of the tokenizers library, with stop tokens at which decoding ends and a padding token that has no text."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...], pad: str):
        self.tokenizer = tokenizer
        self.stops = tuple(tokenizer.token_to_id(stop) for stop in stops)
        self.pad = tokenizer.token_to_id(pad)
        self.size = tokenizer.get_vocab_size()

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        kept = []
        for i in map(int, ids):
            if i in self.stops:
                break
            if i != self.pad and i < self.size:
                kept.append(i)
        return self.tokenizer.decode(kept, skip_special_tokens=False)


SPECIALS = ["<|end|>", "<|pad|>", "<|user|>"]


def byte_level() -> Plain:
    """As Qwen and Llama 3: a token is bytes, also parts of characters and more than one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(s, special=True) for s in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return Plain(tokenizer, ("<|end|>",), "<|pad|>")


def blanks_as_letters(decoder: str) -> Plain:
    """As Llama 2 and Mistral: the blank before the first token is dropped, characters out of the vocabulary are byte tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = (
        decoders.Metaspace(prepend_scheme="first") if decoder == "metaspace" else decoders.Sequence(fallback)
    )
    special = ["<unk>", *SPECIALS, *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return Plain(tokenizer, ("<|end|>",), "<|pad|>")


BPE, SPACES, LLAMA = byte_level(), blanks_as_letters("metaspace"), blanks_as_letters("llama")
ALL = pytest.mark.parametrize(
    "tokenizer", [BYTES, MERGED, BPE, SPACES, LLAMA], ids=["bytes", "merges", "bpe", "metaspace", "llama"]
)
anything = st.text(st.characters(exclude_categories=("Cs",)))
pieces = st.lists(
    st.sampled_from(["кот", " ", "é", "🎈", "<|user|>", "<think>", "a", "\n", "日本", "🎈🎈", "🚀🚀", "�"]), max_size=30
)


def cuts(n, data):
    """`n` tokens in pushes of any sizes."""
    at = sorted(data.draw(st.lists(st.integers(0, n), max_size=8))) if n else []
    return list(zip([0, *at], [*at, n], strict=True))


def stream_of(tokenizer, ids, data, **options):
    stream = TextStream(tokenizer.decode, **options)
    said = [stream.push(ids[a:b]) for a, b in cuts(len(ids), data)]
    said.append(stream.finish())
    assert "".join(said) == stream.text
    return stream


@ALL
@settings(deadline=None)
@given(st.one_of(anything, pieces.map("".join)), st.data())
def test_the_pieces_of_a_text_are_the_text(tokenizer, text, data):
    assume(tokenizer is not LLAMA or "�" not in text)  # spelled in byte tokens, it looks like broken ones
    ids = tokenizer.encode(text)
    assert stream_of(tokenizer, ids, data).text == tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED, BPE], ids=["bytes", "merges", "bpe"])
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_ids_a_model_samples_stream_as_they_decode(tokenizer, data):
    token = st.one_of(st.integers(0, 440), st.sampled_from([0, 2, *tokenizer.encode("é🎈日a")]))
    ids = data.draw(st.lists(token, max_size=150))
    assert stream_of(tokenizer, ids, data).text == tokenizer.decode(ids)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_with_byte_fallback_whatever_is_no_broken_byte_streams_as_it_decodes(data):
    ids = data.draw(
        st.lists(st.integers(0, LLAMA.size + 20).filter(lambda i: not 4 + 128 <= i < 4 + 256), max_size=150)
    )
    for tokenizer in (SPACES, LLAMA):
        assert stream_of(tokenizer, ids, data).text == tokenizer.decode(ids)


def test_nothing_is_lost_of_broken_bytes_between_byte_tokens():
    rocket, e = LLAMA.encode("🚀")[-4:], LLAMA.encode("e")[-1]
    stream = TextStream(LLAMA.decode)
    said = [stream.push([token]) for token in [*rocket, *[rocket[1]] * 4, e, *rocket, *rocket, e]]
    assert said[3] == "🚀"  # now said, though decode of all the bytes drops it
    assert stream.text == "🚀����e🚀🚀e"


@ALL
def test_half_a_character_is_held_back_until_it_is_whole(tokenizer):
    ids = tokenizer.encode("é🎈")
    stream = TextStream(tokenizer.decode)
    said = [stream.push([token]) for token in ids]
    assert "�" not in "".join(said)
    assert stream.text == "é🎈"
    stream = TextStream(BYTES.decode)
    assert [stream.push([i]) for i in BYTES.encode("é🎈")[:4]] == ["", "é", "", ""]
    assert stream.finish() == "�"


def test_the_text_in_a_token_before_half_a_character_is_said_at_once():
    a, half = BPE.encode("a")[0], BPE.encode("é")[0]
    tokenizer = Tokenizer.from_str(BPE.tokenizer.to_str())
    stream = TextStream(lambda ids: tokenizer.decode([t for i in ids for t in ([a, half] if i == 0 else [i])]))
    assert stream.push([0]) == "a"


@ALL
@settings(deadline=None, max_examples=200)
@given(
    pieces,
    st.lists(st.sampled_from(["кот", " ", "é", "🎈a", "\n\n", "ot", "a<", "日", "aa", "🎈🎈a"]), max_size=3),
    st.data(),
)
def test_the_first_complete_stop_string_ends_the_text(tokenizer, words, stop, data):
    assume(tokenizer is not LLAMA or "�" not in words)
    ids = tokenizer.encode("".join(words))
    stream = stream_of(tokenizer, ids, data, stop=tuple(stop))
    for n in range(1, len(ids) + 1):  # the specification: the text of all tokens so far, looked at after every token
        text = tokenizer.decode(ids[:n])
        found = [(text.find(string), len(string), string) for string in stop if string in text]
        if found:
            assert stream.stopped == (n, min(found)[2])
            assert stream.text == text[: min(found)[0]]
            assert stream.push(ids) == stream.finish() == ""
            return
    assert stream.stopped is None
    assert stream.text == tokenizer.decode(ids)


@ALL
def test_a_beginning_of_a_stop_string_is_held_back_and_comes_when_it_goes_on_otherwise(tokenizer):
    stream = TextStream(tokenizer.decode, ("STOP",))
    assert "".join(stream.push([token]) for token in tokenizer.encode("a STO")) == "a "
    assert stream.push(tokenizer.encode("a STOe")[-1:]) == "STOe"
    stream = TextStream(tokenizer.decode, ("STOP",))
    assert "".join(stream.push([token]) for token in tokenizer.encode("a ST")) + stream.finish() == "a ST"


def test_the_stop_string_that_begins_first_wins_and_of_these_the_shortest():
    words = ["x", "abcd", "b", "a"]
    stream = TextStream(lambda ids: "".join(words[i] for i in ids), ("bc", "abc", "abcd"))
    assert stream.push([0, 1, 0]) == "x"
    assert stream.stopped == (2, "abc")
    stream = TextStream(lambda ids: "".join(words[i] for i in ids), ("abc", "b"))
    assert stream.push([0, 3, 2]) == "xa"  # at that token "abc" is not there yet
    assert stream.stopped == (3, "b")


def test_a_stop_string_before_the_least_number_of_tokens_is_text():
    for n, text in ((0, ""), (2, ""), (3, "ab"), (4, "ab"), (5, "abab")):
        for size in (1, 7):
            stream = TextStream(BYTES.decode, ("ab",), min_tokens=n)
            ids = BYTES.encode("abababa")
            for i in range(0, len(ids), size):
                stream.push(ids[i : i + size])
            assert stream.text == text
            assert stream.stopped == (len(text) + 2, "ab")


@pytest.mark.parametrize("tokenizer", [BYTES, BPE, LLAMA], ids=["bytes", "bpe", "llama"])
def test_behind_a_stop_token_there_is_no_text_however_much_follows(tokenizer):
    end = 1 if tokenizer is BYTES else tokenizer.stops[0]
    a = tokenizer.encode("a")[-1:]
    for first in ([], a):
        stream = TextStream(tokenizer.decode, ("aaaa",))
        for token in [*first, end, *a * 300]:
            stream.push([token])
        stream.finish()
        assert (stream.text, stream.stopped) == ("a" * len(first), None)


@pytest.mark.parametrize("tokenizer", [BYTES, BPE, LLAMA], ids=["bytes", "bpe", "llama"])
@pytest.mark.parametrize("token", ["text", "broken", "padding", "past the end", "mixed"])
def test_the_thousandth_token_costs_what_the_first_does(tokenizer, token):
    """Counted in decoded tokens, not in seconds."""
    decoded = 0

    def decode(ids):
        nonlocal decoded
        decoded += len(ids)
        return tokenizer.decode(ids)

    a, half = tokenizer.encode("a")[-1], tokenizer.encode("🎈")[-1]
    pad = 0 if tokenizer is BYTES else tokenizer.pad
    ids = {"text": [a], "broken": [half], "padding": [pad], "past the end": [600], "mixed": [a, pad, half, 601]}[token]
    stream = TextStream(decode, ("STOP",))
    for i in range(1000):
        stream.push([ids[i % len(ids)]])
    stream.finish()
    # 22 tokens of context on average, once a token; broken bytes are looked at four times.
    assert decoded / 1000 < 4 * 40
    if tokenizer is not LLAMA:
        assert stream.text == tokenizer.decode((ids * 1000)[:1000])


@ALL
def test_the_text_of_a_token_is_the_one_it_has_inside_a_text(tokenizer):
    size = 440
    texts = token_texts(tokenizer, size)
    assert len(texts) == size
    a = tokenizer.encode("a")[-1]
    for token in range(size):
        inside = tokenizer.decode([a, token]).removeprefix("a")
        assert texts[token] == inside or "�" in texts[token], token
    if tokenizer in (SPACES, LLAMA):
        assert any(text.startswith(" ") and text.strip() for text in texts)


@ALL
@settings(deadline=None, max_examples=200)
@given(
    pieces,
    st.lists(st.sampled_from(["кот", " ", "é", "🎈a", "\n\n", "кот ", "a<", "日", "aa"]), min_size=1, max_size=3),
)
def test_every_token_that_completes_a_stop_string_is_watched(tokenizer, words, stop):
    mask = watch_mask(520, token_texts(tokenizer, 520).__getitem__, tuple(stop))
    ids = tokenizer.encode("".join(words))
    for n in range(1, len(ids) + 1):
        before, text = tokenizer.decode(ids[: n - 1]), tokenizer.decode(ids[:n])
        if any(text.count(string) > before.count(string) for string in stop):
            assert mask[ids[n - 1]]


def test_few_tokens_are_watched_for_a_stop_string_that_ends_in_a_letter():
    texts = token_texts(MERGED, 330)
    mask = watch_mask(330, texts.__getitem__, ("\n\nHuman",))
    # Beginning with an end of the stop string, or a blank and one; no token with an "n" in its middle.
    assert {texts[i] for i in np.flatnonzero(mask)} >= {"n", "an", " an"} & set(texts)
    assert mask.sum() <= 12
    assert not watch_mask(330, texts.__getitem__, ()).any()


def test_stop_strings_that_cannot_be_looked_for_are_refused():
    with pytest.raises(UserError, match="at least one character"):
        TextStream(BYTES.decode, ("a", ""))
    with pytest.raises(UserError, match=r"Write \['end'\]"):
        watch_mask(3, str, "end")  # pyright: ignore[reportArgumentType]


def test_texts_and_masks_of_a_large_vocabulary_are_quick():
    words = [f"w{i}" for i in range(150_000)]
    vocab = {"\x1e": 0} | {word: i + 1 for i, word in enumerate(words)}

    class Words:
        texts = tuple(vocab)

        def encode(self, text):
            return [vocab[text]]

        def decode(self, ids):
            return "".join(map(self.texts.__getitem__, ids))

    began = time.monotonic()
    texts = token_texts(Words(), len(vocab))
    assert texts[1:] == words
    mask = watch_mask(len(vocab), texts.__getitem__, ("STOP", "\n\nHuman:", "</answer>"))
    assert mask.sum() == 0
    assert time.monotonic() - began < 3  # about 0.3 s on a free machine
