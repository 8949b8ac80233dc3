"""Every text can be written and read back, and whatever a model samples can be shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from framework.errors import UserError
from models.tokenizer import ByteTokenizer, TextTokenizer

TEXTS = ["evaluate ( True and not False )", "sort s> sky,kit,poem", "кот спит, кот ест", "日本語のテキスト"] * 4
BYTES = ByteTokenizer().build()
MERGED = ByteTokenizer(merges=40).build(TEXTS)

anything = st.text(st.characters(exclude_categories=("Cs",)))


@settings(deadline=None)
@given(anything)
def test_any_text_survives_the_round_trip(text):
    for tokenizer in (BYTES, MERGED):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.lists(st.sampled_from([*ByteTokenizer().tags, "a", "é", "\n", " ", "<", "🎈"])).map("".join))
def test_tags_survive_between_any_characters(text):
    for tokenizer in (BYTES, MERGED):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.lists(st.integers(0, ByteTokenizer(merges=40).vocab_size - 1)))
def test_whatever_ids_a_model_samples_can_be_shown(ids):
    for tokenizer in (BYTES, MERGED):  # ids between the last token and the rounded-up size stand for nothing
        text = tokenizer.decode(ids)
        kept = ids[: ids.index(tokenizer.eos_id)] if tokenizer.eos_id in ids else ids
        for tag in ByteTokenizer().tags:
            assert text.count(tag) >= kept.count(tokenizer.encode(tag)[0])


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED], ids=["bytes", "merges"])
@pytest.mark.parametrize("tag", ByteTokenizer().tags)
def test_a_tag_is_one_token_wherever_it_stands(tokenizer, tag):
    (token,) = tokenizer.encode(tag)
    assert tokenizer.encode(f"x{tag}y").count(token) == 1
    assert tokenizer.decode([token]) == tag


def test_padding_is_left_out_and_nothing_follows_the_end():
    a, b = BYTES.encode("ab")
    assert BYTES.decode([0, a, 0, 1, b]) == "a"
    assert BYTES.decode([]) == ""
    assert BYTES.decode([1]) == ""


@pytest.mark.parametrize("tokenizer", [BYTES, MERGED, ByteTokenizer(merges=90).build(["<eos> <pad>", "eos"] * 50)])
@pytest.mark.parametrize("text", ["a<eos>b", "<pad>", "<think><eos></think>", "<<eos><pad>>"])
def test_the_end_and_padding_written_in_a_text_are_plain_characters(tokenizer, text, tmp_path):
    ids = tokenizer.encode(text)
    assert not {tokenizer.pad_id, tokenizer.eos_id} & set(ids)
    assert tokenizer.decode(ids) == text
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == ids


def test_ids_stay_what_saved_checkpoints_were_trained_with():
    vocab = BYTES.tokenizer.get_vocab()
    assert [vocab[t] for t in ("<pad>", "<eos>", *ByteTokenizer().tags, "!", "A", "a")] == [0, 1, 2, 3, 4, 5, 6, 38, 70]
    assert len(vocab) == 262
    assert MERGED.encode("<think>кот True</think>") == [2, 271, 226, 273, 287, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [("ab\udcff", r"has '\\udcff' at character 3 of 3.*in UTF-8"), ("\ud800", r"'\\ud800' at character 1 of 1")],
)
def test_half_a_character_is_named_with_its_place(text, said):
    with pytest.raises(UserError, match=said):
        BYTES.encode(text)
    with pytest.raises(UserError, match=said):
        ByteTokenizer(merges=4).build(["fine", text])


def test_broken_characters_become_a_sign_and_leave_the_tag_behind_them_alone():
    half = BYTES.encode("é")[0]
    assert BYTES.decode([half, *BYTES.encode("<answer>")]) == "�<answer>"


def test_without_merges_a_token_is_a_byte():
    assert len(BYTES.encode("héllo 🎈")) == len("héllo 🎈".encode())


def test_merges_shorten_text_like_the_samples_and_are_the_same_every_time():
    text = "evaluate ( True and True )"
    assert len(MERGED.encode(text)) < len(BYTES.encode(text))
    assert ByteTokenizer(merges=40).build(TEXTS).tokenizer.to_str() == MERGED.tokenizer.to_str()


@pytest.mark.parametrize("config", [ByteTokenizer(), ByteTokenizer(merges=40), ByteTokenizer(tags=())], ids=str)
def test_every_id_fits_the_declared_vocabulary(config):
    tokenizer = config.build(TEXTS)
    assert tokenizer.tokenizer.get_vocab_size() <= config.vocab_size
    assert max(tokenizer.tokenizer.get_vocab().values()) < config.vocab_size
    assert config.vocab_size % 16 == 0
    assert tokenizer.tokenizer.token_to_id("<pad>") == tokenizer.pad_id
    assert tokenizer.tokenizer.token_to_id("<eos>") == tokenizer.eos_id


def test_fewer_samples_than_merges_still_fit():
    tokenizer = ByteTokenizer(merges=500).build(["ab"])
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


def test_negative_merges_are_refused():
    with pytest.raises(ValueError, match=r"merges=-1 must not be negative\. Use 0"):
        ByteTokenizer(merges=-1).build()


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path):
    MERGED.save(tmp_path / "tokenizer.json")
    again = TextTokenizer(Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    text = "<think>кот True</think>"
    assert again.encode(text) == MERGED.encode(text)
    assert again.decode(again.encode(text)) == text
