"""Chat files are read into one schema; what cannot be read is named with its line, what teaches nothing is counted."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data.conversations import Conversation, ConversationFile, split_heldout
from data.packing import packed_stream
from data.tokenise import tokenise
from framework.config_text import to_json
from framework.config_types import check_types
from framework.errors import UserError
from models.tokenizer import CHAT_TAGS, ByteTokenizer

USER, ASSISTANT = {"role": "user", "content": "Is it 42?"}, {"role": "assistant", "content": "Yes."}
CHAT = {"messages": [USER, ASSISTANT]}
TOKENIZER = ByteTokenizer(tags=CHAT_TAGS).build()


def write(path: Path, *rows: object) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def quiet(text: str) -> None:
    """Where a test does not look at what is said."""


def read(path: str, **config) -> tuple[Conversation, ...]:
    return ConversationFile(path=path, **config).build(quiet).train


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_messages_are_read_from_both_kinds_of_file(tmp_path, suffix):
    other = {"messages": [{"role": "system", "content": "Ü"}, USER, {**ASSISTANT, "weight": 1}]}
    path = write(tmp_path / f"a.{suffix}", CHAT, other)
    first, second = read(path)
    assert list(first.messages) == [USER, ASSISTANT]  # no empty keys that only other messages of a Parquet file have
    assert list(second.messages) == other["messages"]
    assert (first.where, second.where) == (f"{path}:1", f"{path}:2")


def test_patterns_and_folders_read_all_files_in_the_order_of_their_names(tmp_path):
    for name in ("b.jsonl", "a.parquet", "c.txt"):
        write(tmp_path / name, {"prompt": name, "completion": "x"})
    for path in (str(tmp_path), str(tmp_path / "[ab].*")):
        assert [c.prompt for c in read(path)] == ["a.parquet", "b.jsonl"]
    assert [c.prompt for c in read(str(tmp_path), max_examples=1)] == ["a.parquet"]


def test_prompt_and_completion_may_be_texts_or_messages(tmp_path):
    shot = {"role": "assistant", "content": "An example."}
    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "2+2=", "completion": "4"},
        {"prompt": [USER, shot, USER], "completion": [ASSISTANT]},
    )
    plain, chat = read(path)
    assert (plain.prompt, plain.completion, plain.messages) == ("2+2=", "4", ())
    assert [m.get("train") for m in chat.messages] == [None, False, None, None]  # a prompt is not learnt
    first, second = tokenise([plain, chat], TOKENIZER, say=quiet)
    assert [TOKENIZER.decode(e.tokens[e.learn].tolist()) for e in (first, second)] == ["4", "Yes."]
    assert TOKENIZER.decode(first.tokens.tolist()) == "2+2=4"
    assert first.tokens[-1] == second.tokens[-1] == TOKENIZER.eos_id


def test_columns_keys_and_roles_of_other_formats_can_be_named(tmp_path):
    share_gpt = {"conversations": [{"from": "human", "value": "Is it 42?"}, {"from": "gpt", "value": "Yes."}]}
    (got,) = read(write(tmp_path / "a.jsonl", share_gpt), messages="conversations", role="from", content="value")
    assert list(got.messages) == [USER, ASSISTANT]
    (alpaca,) = read(
        write(tmp_path / "b.jsonl", {"instruction": "2+2=", "output": "4"}), prompt="instruction", completion="output"
    )
    assert (alpaca.prompt, alpaca.completion) == ("2+2=", "4")


def test_tools_and_text_parts_are_kept(tmp_path):
    tool = {"type": "function", "function": {"name": "add"}}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    call = {"role": "assistant", "content": None, "tool_calls": [tool]}
    path = write(tmp_path / "a.jsonl", {"messages": [parts, call], "tools": json.dumps([tool])})
    (got,) = read(path)
    assert got.tools == (tool,)
    assert got.messages[0]["content"] == "ab"
    assert got.messages[1] == {"role": "assistant", "content": "", "tool_calls": [tool]}


def test_what_teaches_nothing_is_left_out_counted_and_said(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        CHAT,
        {"messages": []},
        {"messages": [USER]},
        {"messages": [USER]},
        {"messages": [USER, {**ASSISTANT, "train": False}]},
        {"messages": [USER, {**ASSISTANT, "content": "  "}]},
        {"messages": [ASSISTANT, USER]},
        {"messages": [ASSISTANT, USER, {**ASSISTANT, "train": False}]},
        {"prompt": "a", "completion": ""},
    )
    said: list[str] = []
    result = ConversationFile(path=path).build(said.append)
    assert len(result.train) == 1
    assert result.dropped == {
        "without messages": 1,
        "without an assistant turn": 2,
        "with train: false on every assistant turn": 1,
        "with empty assistant turns only": 1,
        "that begin with their only turn to learn": 2,
        "with an empty completion": 1,
    }
    assert len(said) == 1
    assert (
        "1 conversations to train on, 0 held out; 8 left out: 1 without messages, 2 without an assistant turn"
        in said[0]
    )
    assert len(tokenise(result.train, TOKENIZER, say=quiet)) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{"], r"a.jsonl:1 is not JSON"),
        ([CHAT, "", "[1]"], r"a.jsonl:3 is a list, not a JSON object"),
        (
            [{"text": "a", "id": 3}],
            r"a.jsonl:1 has no field 'messages', nor 'prompt' and 'completion'\. Found: 'text', 'id'",
        ),
        ([{"prompt": "a"}], r"has no field 'messages', nor 'completion'\. Found: 'prompt'"),
        ([{"messages": None}], r"Found: 'messages'"),
        ([{"messages": "hi"}], r"a.jsonl:1: 'messages' is 'hi', which is not a list of messages"),
        ([CHAT, {"messages": [USER, "hi"]}], r"a.jsonl:2: message 2 of 'messages' is 'hi'"),
        (
            [{"messages": [{"from": "human", "value": "a"}]}],
            r"has no text 'role'. Found: 'from', 'value'.*data.source.role=",
        ),
        ([{"messages": [{"role": "user", "text": "a"}]}], r"message 1 .*'content' is missing. Found: 'text'"),
        ([{"messages": [{"role": "user", "content": 3}]}], r"'content' is 3, which is not a text"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}], r"'content' is \[{'type': 'image'}\]"),
        (
            [{"messages": [USER, {**ASSISTANT, "weight": 0.5}]}],
            r"a.jsonl:1: message 2 .*weight=0.5 of a message must be",
        ),
        ([{"prompt": "a", "completion": [ASSISTANT]}], r"'prompt' is a str and 'completion' a list"),
        ([{"prompt": 1, "completion": 2}], r"'prompt' is 1, which is not a list of messages"),
        ([{**CHAT, "tools": "{"}], r"a.jsonl:1: 'tools' is not JSON"),
        ([{**CHAT, "tools": {"a": 1}}], r"a.jsonl:1: 'tools' is {'a': 1}, which is not a list of tools"),
        ([], r"has no conversation to learn from \(no records\)"),
        ([{"messages": [USER]}], r"has no conversation to learn from \(1 without an assistant turn\)"),
        ([{"messages": [{"role": "user", "content": "\ud800"}, ASSISTANT]}], r"a.jsonl:1: 'messages' holds '\\ud800'"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        read(write(tmp_path / "a.jsonl", *rows))


def test_paths_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read(str(tmp_path / "no.jsonl"))
    with pytest.raises(UserError, match=r"holds no .jsonl, .json or .parquet file. Found: nothing"):
        read(str(tmp_path))
    (tmp_path / "a.parquet").write_text("PAR1 no")
    with pytest.raises(UserError, match=r"a.parquet is not a Parquet file"):
        read(str(tmp_path))
    with pytest.raises(UserError, match="max_examples=0"):
        read(str(tmp_path), max_examples=0)


def test_a_hub_data_set_that_cannot_be_had_is_an_error_that_says_both_ways(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # no network in tests
    with pytest.raises(
        UserError, match=r"data.source.path='nobody/nothing' is no file or folder in .*\(split 'test'\)"
    ):
        read("nobody/nothing", split="test")


def test_a_saved_folder_of_the_hub_format_is_read_like_any_folder(tmp_path):
    import datasets

    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list([CHAT, CHAT]).to_parquet(tmp_path / "data" / "train-00000.parquet")
    assert [list(c.messages) for c in read(str(tmp_path))] == [[USER, ASSISTANT]] * 2


def numbered(count: int) -> list[Conversation]:
    return [Conversation(prompt=f"{i}", completion="x", where=f"f:{i}") for i in range(count)]


def test_held_out_conversations_are_the_same_in_any_order_and_never_trained_on():
    forward, backward = split_heldout(numbered(40), 8), split_heldout(numbered(40)[::-1], 8)
    assert {c.prompt for c in forward.heldout} == {c.prompt for c in backward.heldout}
    assert len(forward.heldout) == 8
    assert {c.prompt for c in forward.heldout} | {c.prompt for c in forward.train} == {str(i) for i in range(40)}
    copies = split_heldout([*numbered(40), *numbered(40)], 8)
    assert len(copies.heldout) == 8
    assert not {c.prompt for c in copies.heldout} & {c.prompt for c in copies.train}
    assert copies.dropped == {"that are copies of held-out ones": 8}


@pytest.mark.parametrize("heldout", [-1, 10, 11])
def test_held_out_conversations_must_leave_some_to_train_on(heldout):
    with pytest.raises(UserError, match=rf"data.source.heldout={heldout} of 10 .* Use data.source.heldout=1"):
        split_heldout(numbered(10), heldout)
    with pytest.raises(UserError, match="copies of each other"):
        split_heldout(numbered(1) * 3, 1)


def test_a_conversation_the_template_refuses_is_named_with_its_line():
    strict = ByteTokenizer(chat_template="{{ raise_exception('no system') if messages[0].role == 'system' }}").build()
    chat = Conversation(messages=({"role": "system", "content": "a"}, USER, ASSISTANT), where="a.jsonl:7")
    with pytest.raises(UserError, match=r"^a.jsonl:7: The chat template .* \(system, user, assistant\): no system"):
        tokenise([chat], strict, say=quiet)


def test_tokenising_says_how_much_there_is_to_learn(tmp_path):
    said: list[str] = []
    (example,) = tokenise(read(write(tmp_path / "a.jsonl", CHAT)), TOKENIZER, say=said.append)
    assert said[0].startswith(f"1 conversations: {len(example.tokens)} tokens, 5 of them learnt, ")


def test_from_file_to_batch(tmp_path):
    path = write(
        tmp_path / "a.jsonl", *({"messages": [{**USER, "content": f"Is it {i}?"}, ASSISTANT]} for i in range(9))
    )
    stream = packed_stream(tokenise(read(path), TOKENIZER, say=quiet), rows=2, length=64, seed=0)
    batch = stream[0]
    learnt = batch.tokens[batch.mask > 0].tolist()
    assert TOKENIZER.decode(learnt) == "Yes."
    assert learnt.count(TOKENIZER.eos_id) * 5 == len(learnt)


def test_the_config_can_be_checked_and_written():
    config = ConversationFile(path="a.jsonl")
    check_types(config)
    assert to_json(config)["roles"] == {"human": "user", "gpt": "assistant"}  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript]
