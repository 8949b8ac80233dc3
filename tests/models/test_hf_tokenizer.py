"""Tokenizers in Hugging Face format have the interface of ours, and what cannot be used is refused with what was found."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from framework.config_text import to_json
from framework.config_types import check_types
from framework.errors import UserError
from models.hf_tokenizer import HFTokenizer
from models.tokenizer import CHAT_TAGS, ByteTokenizer, LanguageTokenizer

FAMILIES = ["qwen25", "qwen3", "llama3", "mistral"]
CHAT = [{"role": "user", "content": "Is it 42?"}, {"role": "assistant", "content": "Yes."}]
anything = st.text(st.characters(exclude_categories=("Cs",)))


def use(tokenizer: LanguageTokenizer) -> list[int]:
    """Takes any tokenizer: the type checker reads this file's calls, the test runs them."""
    ids = tokenizer.encode("The answer")
    assert all(
        0 <= i < tokenizer.vocab_size for i in (*ids, tokenizer.pad_id, *tokenizer.stop_ids, *tokenizer.start_ids)
    )
    assert tokenizer.eos_id in tokenizer.stop_ids
    assert tokenizer.decode([*ids, tokenizer.stop_ids[-1], tokenizer.pad_id, *ids]).strip() == "The answer"
    assert len(tokenizer.chat.prompt(CHAT[:1])) > 0
    return ids


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pretrained_tokenizer_can_stand_where_a_byte_tokenizer_stands(hf_folder, family):
    tokenizer = HFTokenizer(path=str(hf_folder(family))).build()
    assert (
        use(tokenizer)
        == AutoTokenizer.from_pretrained(hf_folder(family))("The answer", add_special_tokens=False)["input_ids"]
    )
    assert use(ByteTokenizer().build())
    assert tokenizer.vocab_size == len(tokenizer.tokenizer)


@settings(deadline=None, max_examples=50)
@given(anything)
def test_any_text_survives_the_round_trip(hf_folder, text):
    tokenizer = HFTokenizer(path=str(hf_folder("qwen25"))).build()
    ids = tokenizer.encode(text)
    if not any(marker in text for marker in ("<|im_end|>", "<|endoftext|>")):
        assert tokenizer.decode(ids) == text


def test_a_plain_text_begins_as_the_tokenizer_says_and_its_own_ids_do_not(hf_folder):
    llama = HFTokenizer(path=str(hf_folder("llama3"))).build()
    assert llama.tokenizer.convert_ids_to_tokens(list(llama.start_ids)) == ["<|begin_of_text|>"]
    assert llama.start_ids[0] not in llama.encode("Hi")
    assert HFTokenizer(path=str(hf_folder("qwen25"))).build().start_ids == ()


def copy(source, target):
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_all_ids_that_end_a_turn_stop_generation(hf_folder, tmp_path):
    folder = copy(hf_folder("llama3"), tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    assert HFTokenizer(path=str(folder)).build().stop_ids == (3, 1, 2)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert HFTokenizer(path=str(folder)).build().stop_ids == (3, 2)


def test_a_base_model_taught_to_chat_also_stops_at_the_end_of_a_turn(hf_folder, tmp_path):
    folder = copy(hf_folder("qwen25"), tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    tokenizer = HFTokenizer(path=str(folder)).build()
    assert tokenizer.tokenizer.convert_ids_to_tokens(list(tokenizer.stop_ids)) == ["<|endoftext|>", "<|im_end|>"]
    (folder / "chat_template.jinja").unlink()
    assert len(HFTokenizer(path=str(folder)).build().stop_ids) == 1


def test_without_a_padding_token_the_end_token_pads(hf_folder):
    tokenizer = HFTokenizer(path=str(hf_folder("llama3"))).build()
    assert tokenizer.tokenizer.pad_token_id is None
    assert tokenizer.pad_id == tokenizer.eos_id


def test_ids_of_the_spare_rows_of_a_model_have_no_text(hf_folder):
    tokenizer = HFTokenizer(path=str(hf_folder("qwen25"))).build()
    ids = tokenizer.encode("Paris")
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 7]) == "Paris"


def test_a_saved_tokenizer_gives_the_same_ids_with_the_template_it_was_given(hf_folder, tmp_path):
    (tmp_path / "mine.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}"
    )
    tokenizer = HFTokenizer(path=str(hf_folder("qwen25")), chat_template=str(tmp_path / "mine.jinja")).build()
    tokenizer.save(tmp_path / "saved")
    again = HFTokenizer(path=str(tmp_path / "saved")).build()
    assert again.chat.render(CHAT) == tokenizer.chat.render(CHAT) == "[Is it 42?][Yes.]<|im_end|>"
    assert again.chat.prompt(CHAT) == tokenizer.chat.prompt(CHAT)


@pytest.mark.parametrize("config", [ByteTokenizer(tags=CHAT_TAGS), ByteTokenizer(merges=40)], ids=str)
def test_a_byte_tokenizer_saved_as_a_folder_opens_in_transformers_with_the_same_ids(config, tmp_path):
    ours = config.build(["Is the answer 42? Yes."] * 4)
    ours.save(tmp_path / "saved")
    theirs = HFTokenizer(path=str(tmp_path / "saved")).build()
    assert (theirs.pad_id, theirs.eos_id, theirs.vocab_size) == (ours.pad_id, ours.eos_id, ours.vocab_size)
    for text in ("Is it 42?", "<|user|> кот\n"):
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.chat.prompt(CHAT) == ours.chat.prompt(CHAT)
    (a,), (b,) = theirs.chat.encode(CHAT), ours.chat.encode(CHAT)
    assert a.tokens.tolist() == b.tokens.tolist()
    assert a.learn.tolist() == b.learn.tolist()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").apply_chat_template(CHAT)["input_ids"] == b.tokens.tolist()


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "mistral", "nothing_known"])
def test_the_file_decides_and_not_the_type_of_the_model_beside_it(hf_folder, tmp_path, model_type):
    folder = copy(hf_folder("qwen25"), tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = "The answer is 42 1234.\n\nкот"
    want = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(text)["input_ids"]
    assert HFTokenizer(path=str(folder)).build().encode(text) == want


def test_a_folder_with_nothing_but_tokenizer_json_can_be_read(hf_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((hf_folder("qwen25") / "tokenizer.json").read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 0}')
    tokenizer = HFTokenizer(path=str(tmp_path)).build()
    assert tokenizer.eos_id == tokenizer.pad_id == 0
    with pytest.raises(UserError, match=r"has no chat template .* chat_template="):
        tokenizer.chat  # noqa: B018
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(UserError, match="has no end token"):
        HFTokenizer(path=str(tmp_path)).build()


def test_paths_without_a_tokenizer_say_what_was_found(tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer .* Found: nothing"):
        HFTokenizer(path=str(tmp_path)).build()
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"Found: config.json, model.safetensors"):
        HFTokenizer(path=str(tmp_path)).build()
    with pytest.raises(UserError, match=r"is a file\. Give the folder"):
        HFTokenizer(path=str(tmp_path / "config.json")).build()
    with pytest.raises(UserError, match="there is no such folder"):
        HFTokenizer(path=str(tmp_path / "nothing")).build()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_broken_files_are_named(hf_folder, tmp_path, name):
    folder = copy(hf_folder("qwen25"), tmp_path)
    (folder / name).write_text('{"half": ')
    with pytest.raises(UserError, match=str(tmp_path)):
        HFTokenizer(path=str(folder)).build()


def test_code_of_a_checkpoint_is_never_run(hf_folder, tmp_path):
    folder = copy(hf_folder("qwen25"), tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = HFTokenizer(path=str(folder)).build()
    assert tokenizer.encode("Is it 42?") == HFTokenizer(path=str(hf_folder("qwen25"))).build().encode("Is it 42?")
    assert not (tmp_path / "ran").exists()


def test_half_a_character_is_named_with_its_place(hf_folder):
    tokenizer = HFTokenizer(path=str(hf_folder("qwen25"))).build()
    with pytest.raises(UserError, match=r"'\\ud800' at character 2 of 2"):
        tokenizer.encode("a\ud800")
    with pytest.raises(UserError, match=r"Message 1 \(user\) holds '\\ud800' at character 2"):
        tokenizer.chat.prompt([{"role": "user", "content": "a\ud800"}])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chat_template": "no/such/file.jinja"}, "neither a Jinja template"),
        ({"date": "yesterday"}, "is not a date. Write it like 2024-07-26"),
    ],
)
def test_settings_that_cannot_work_say_what_to_type(hf_folder, change, said):
    with pytest.raises(UserError, match=said):
        HFTokenizer(path=str(hf_folder("qwen25")), **change).build()


def test_the_configs_can_be_checked_and_written():
    for config in (
        HFTokenizer(path="a", template_values={"enable_thinking": False}),
        ByteTokenizer(chat_template="{{ a }}"),
    ):
        check_types(config)
        to_json(config)


def test_a_hub_id_that_cannot_be_had_is_an_error_that_says_both_ways(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no network in tests
    with pytest.raises(UserError, match=r"The tokenizer of nobody/nothing cannot be read: .* hub id"):
        HFTokenizer(path="nobody/nothing").build()
