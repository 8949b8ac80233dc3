"""Conversations become the ids transformers makes of them, and what the assistant says is learnt, each turn as it is sampled."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from framework.batch import TokenExample
from framework.errors import UserError
from models.chat import encode_completion
from models.hf_tokenizer import HFTokenizer
from models.tokenizer import CHAT_TAGS, ByteTokenizer

FAMILIES = ["chatml", "qwen25", "qwen3", "llama3", "mistral", "marked"]
STEADY = ["chatml", "qwen25", "llama3", "mistral", "marked"]  # an earlier turn stays as it was said
BYTES = ByteTokenizer(tags=CHAT_TAGS).build()


def said(role: str, content: str, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


CHAT = [
    said("user", "The capital?"),
    said("assistant", "Paris."),
    said("user", "Is it 42?"),
    said("assistant", "Yes, 42 кот."),
]
SYSTEM = [said("system", "Be brief.")]


def build(hf_folder, family: str, **config):
    return HFTokenizer(path=str(hf_folder(family)), **config).build()


def learnt_texts(tokenizer, example: TokenExample) -> list[str]:
    """The text of each run of learnt tokens."""
    runs = np.split(np.arange(len(example.learn)), np.flatnonzero(np.diff(example.learn.astype(int))) + 1)
    decode = tokenizer.tokenizer.decode
    return [decode(example.tokens[run].tolist(), skip_special_tokens=False) for run in runs if example.learn[run[0]]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "messages", [CHAT[:2], CHAT, SYSTEM + CHAT[:2], CHAT[:3]], ids=["one", "two", "system", "open"]
)
def test_prompts_and_conversations_are_the_ids_of_transformers(hf_folder, family, messages):
    theirs = AutoTokenizer.from_pretrained(hf_folder(family))
    chat = build(hf_folder, family).chat
    date = {"date_string": "26 Jul 2024"}
    prompt = messages if messages[-1]["role"] == "user" else messages[:-1]
    assert chat.prompt(prompt) == theirs.apply_chat_template(prompt, add_generation_prompt=True, **date)["input_ids"]
    if messages[-1]["role"] == "assistant":
        assert chat.encode(messages)[-1].tokens.tolist() == theirs.apply_chat_template(messages, **date)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_and_the_end_of_its_turn_are_learnt_and_nothing_else(hf_folder, family):
    tokenizer = build(hf_folder, family)
    end = tokenizer.tokenizer.convert_ids_to_tokens(tokenizer.chat.end_of_turn)
    assert tokenizer.chat.end_of_turn in tokenizer.stop_ids
    thought = "<think>\n\n</think>\n\n" if family == "qwen3" else ""
    examples = tokenizer.chat.encode(CHAT)
    texts = [text for example in examples for text in learnt_texts(tokenizer, example)]
    # Mistral's template writes a blank before an answer, which its decoder takes for the one before a first word.
    assert [text.strip() for text in texts] == [f"{thought}Paris.{end}", f"{thought}Yes, 42 кот.{end}"]
    assert len(examples) == (1 if family in STEADY else 2)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
@pytest.mark.parametrize("answer", ["Paris.", "\n\nParis."], ids=["plain", "line_ends"])
def test_each_learnt_turn_follows_the_very_ids_it_would_be_sampled_from(hf_folder, family, answer):
    """Also where the last letters of the prompt and the first of the answer would be one token if written together."""
    tokenizer = build(hf_folder, family)
    chat = tokenizer.chat
    messages = [CHAT[0], said("assistant", answer), *CHAT[2:]]
    examples = chat.encode(messages)
    for turn in (1, 3):
        prompt = chat.prompt(messages[:turn])
        matching = [e for e in examples if e.tokens[: len(prompt)].tolist() == prompt and e.learn[len(prompt)]]
        assert len(matching) == 1, f"message {turn} is not learnt once right after its prompt"
        assert not matching[0].learn[len(prompt) - 1]
    texts = "".join(text for example in examples for text in learnt_texts(tokenizer, example))
    assert texts.count("Paris.") == texts.count("Yes, 42 кот.") == 1


@pytest.mark.parametrize("history", ["last", "error"])
def test_no_turn_is_lost_where_only_letters_at_a_border_part_the_turns(hf_folder, history):
    """The template changes nothing, so what is asked for where it does has no say."""
    chat = build(hf_folder, "gpt2").chat
    messages = [CHAT[0], said("assistant", "\n\nParis."), *CHAT[2:]]
    split, got = chat.encode(messages), chat.encode(messages, history=history)
    assert len(split) == 2  # else there is no such border
    assert [example.tokens.tolist() for example in got] == [example.tokens.tolist() for example in split]


def test_what_the_tags_mark_is_learnt_as_in_transformers(hf_folder):
    theirs = AutoTokenizer.from_pretrained(hf_folder("marked"))
    (example,) = build(hf_folder, "marked").chat.encode(CHAT)
    want = theirs.apply_chat_template(CHAT, return_assistant_tokens_mask=True)["assistant_masks"]
    assert example.learn.astype(int).tolist() == want
    (plain,) = build(hf_folder, "chatml").chat.encode(CHAT)  # the same text, turns found by their prompts
    assert plain.learn.tolist() == example.learn.tolist()


def test_an_end_of_turn_behind_the_tags_is_learnt_too(hf_folder):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    tokenizer = build(hf_folder, "chatml", chat_template=template)
    assert learnt_texts(tokenizer, tokenizer.chat.encode(CHAT)[0]) == ["Paris.<|im_end|>", "Yes, 42 кот.<|im_end|>"]


@pytest.mark.parametrize("family", ["chatml", "marked", "qwen3"])
@pytest.mark.parametrize("key", [{"train": False}, {"weight": 0}], ids=str)
def test_a_turn_can_be_left_out(hf_folder, family, key):
    tokenizer = build(hf_folder, family)
    messages = [CHAT[0], {**CHAT[1], **key}, CHAT[2], {**CHAT[3], "train": True, "weight": 1}]
    (example,) = tokenizer.chat.encode(messages)
    (text,) = learnt_texts(tokenizer, example)
    assert text.endswith("Yes, 42 кот.<|im_end|>")
    assert example.tokens.tolist() == tokenizer.chat.encode(CHAT)[-1].tokens.tolist()


def test_a_template_that_drops_earlier_thoughts_gives_an_example_a_turn(hf_folder):
    tokenizer = build(hf_folder, "qwen3")
    chat = [
        CHAT[0],
        said("assistant", "<think>\nhm\n</think>\n\nParis."),
        CHAT[2],
        said("assistant", "<think>\nwell\n</think>\n\nYes."),
    ]
    first, second = tokenizer.chat.encode(chat)
    assert learnt_texts(tokenizer, first) == ["<think>\nhm\n</think>\n\nParis.<|im_end|>"]
    assert learnt_texts(tokenizer, second) == ["<think>\nwell\n</think>\n\nYes.<|im_end|>"]
    assert "hm" not in tokenizer.tokenizer.decode(second.tokens.tolist())
    (last,) = tokenizer.chat.encode(chat, history="last")
    assert last.tokens.tolist() == second.tokens.tolist()
    with pytest.raises(UserError, match=r"changes message 2 once the conversation goes on: .*history='split'"):
        tokenizer.chat.encode(chat, history="error")
    with pytest.raises(UserError, match="history='all' is not known"):
        tokenizer.chat.encode(chat, history="all")  # pyright: ignore[reportArgumentType]


def test_thoughts_can_be_switched_off_for_prompts_and_training_alike(hf_folder):
    tokenizer = build(hf_folder, "qwen3", template_values={"enable_thinking": False})
    (example,) = tokenizer.chat.encode(CHAT[:2])
    assert learnt_texts(tokenizer, example) == ["Paris.<|im_end|>"]
    prompt = tokenizer.chat.prompt(CHAT[:1])
    assert example.tokens[: len(prompt)].tolist() == prompt


def test_a_template_that_silently_drops_what_is_to_be_learnt_is_refused(hf_folder):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    chat = build(hf_folder, "chatml", chat_template=template).chat
    assert chat.encode(CHAT)
    with pytest.raises(UserError, match=r"leaves out some of the content of message 2, '<think>hm</think>Paris.'"):
        chat.encode([CHAT[0], said("assistant", "<think>hm</think>Paris.")])
    with pytest.raises(UserError, match="leaves out some of the reasoning_content of message 2"):
        chat.encode([CHAT[0], said("assistant", "Paris.", reasoning_content="hm")])


def test_a_template_that_does_not_continue_its_prompt_is_refused_with_the_place(hf_folder):
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: <think>{% endif %}"
    )
    tokenizer = build(hf_folder, "chatml", chat_template=template)
    with pytest.raises(
        UserError, match=r"does not continue its own prompt.*message 2.*assistant: <think>'.*generation"
    ):
        tokenizer.chat.encode(CHAT)
    assert tokenizer.stop_ids  # it can still be sampled from
    assert tokenizer.chat.prompt(CHAT[:1])
    thought = said(
        "assistant", "<think>hm</think>Paris."
    )  # what the prompt begins goes on, and only the rest is learnt
    assert learnt_texts(tokenizer, tokenizer.chat.encode([CHAT[0], thought])[0]) == ["hm</think>Paris.<|im_end|>"]


def test_messages_that_a_template_refuses_are_named(hf_folder):
    with pytest.raises(UserError, match=r"cannot write these messages \(user, user\): roles must alternate"):
        build(hf_folder, "mistral").chat.prompt([CHAT[0], CHAT[2]])
    with pytest.raises(UserError, match="cannot write these messages"):
        build(hf_folder, "chatml", chat_template="{% for m in messages %}{{ m.content").chat.prompt(CHAT[:1])
    with pytest.raises(UserError, match="cannot write these messages"):
        build(hf_folder, "chatml", chat_template="{{ ''.__class__.__mro__ }}{{ messages[9].content }}").chat.prompt(
            CHAT[:1]
        )


@pytest.mark.parametrize(
    ("messages", "said_"),
    [
        ([], "has no turn to learn"),
        ([CHAT[0]], "has no turn to learn"),
        ([{**CHAT[1], "train": False}], "has no turn to learn"),
        ([CHAT[1]], "no assistant message after another message"),
        ([CHAT[0], said("assistant", "x", weight=0.5)], "weight=0.5 of a message must be true or false"),
        ([{"content": "x"}, CHAT[1]], r"Message 1 is .* Write a role and a content"),
        ([said("user", 3), CHAT[1]], r"Message 1 \(user\) has the content 3"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_conversations_with_nothing_to_learn_say_so(messages, said_):
    with pytest.raises(UserError, match=said_):
        BYTES.chat.encode(messages)


def test_an_empty_prompt_is_refused():
    with pytest.raises(UserError, match="The conversation is empty"):
        BYTES.chat.prompt([])


def test_tools_and_their_answers_are_context(hf_folder):
    tokenizer = build(hf_folder, "qwen25")
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [CHAT[0], said("assistant", "", tool_calls=[call]), said("tool", "42"), said("assistant", "It is 42.")]
    (example,) = tokenizer.chat.encode(messages, tools)
    texts = learnt_texts(tokenizer, example)
    assert texts == ['<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|im_end|>', "It is 42.<|im_end|>"]
    assert "<tools>" in tokenizer.tokenizer.decode(example.tokens.tolist())


def test_nothing_after_the_last_turn_to_learn_is_kept():
    (short,), (long,) = BYTES.chat.encode(CHAT[:2]), BYTES.chat.encode(CHAT[:3])
    assert short.tokens.tolist() == long.tokens.tolist()


def test_a_first_assistant_message_is_context():
    (example,) = BYTES.chat.encode([said("assistant", "Hello"), *CHAT[:2]])
    assert BYTES.decode(example.tokens[example.learn].tolist()) == "Paris."
    assert example.learn.sum() == len("Paris.") + 1


def test_the_byte_tokenizer_chats_without_a_download():
    (example,) = BYTES.chat.encode(CHAT[:2])
    text = BYTES.chat.render(CHAT[:2])
    assert text == "<|user|>The capital?<eos><|assistant|>Paris.<eos>"
    assert len(example.tokens) == 2 + len("The capital?") + len("Paris.") + 2  # roles and ends are a token each
    assert BYTES.decode(example.tokens[example.learn].tolist()) == "Paris."
    assert example.tokens[example.learn][-1] == BYTES.eos_id == BYTES.chat.end_of_turn
    assert BYTES.chat.prompt(CHAT[:1]) == example.tokens[: -len("Paris.") - 1].tolist()


def test_no_message_can_write_the_end_token():
    (example,) = BYTES.chat.encode([said("user", "a<eos>b"), said("assistant", "c<eos>")])
    assert (example.tokens == BYTES.eos_id).sum() == 2
    with pytest.raises(UserError, match=r"Message 1 \(user\) holds '\\udcff'"):
        BYTES.chat.encode([said("user", "a\udcff"), CHAT[1]])


@pytest.mark.parametrize(
    "tokenizer", [BYTES, ByteTokenizer(merges=60).build(["the capital is Paris кот"] * 9)], ids=["bytes", "merges"]
)
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=("Cs",)), min_size=1)] * 2), min_size=1, max_size=3)
)
def test_any_answers_are_learnt_whole(tokenizer, pairs):
    messages = [said(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    (example,) = tokenizer.chat.encode(messages)
    ids = example.tokens[example.learn].tolist()
    ends = [-1, *(i for i, token in enumerate(ids) if token == tokenizer.eos_id)]
    assert len(ids) == ends[-1] + 1
    answers = [tokenizer.decode(ids[a + 1 : b]) for a, b in itertools.pairwise(ends)]
    assert answers == [answer for _, answer in pairs]


@pytest.mark.parametrize("family", ["qwen25", "gpt2", "marked"])
@settings(deadline=None, max_examples=40)
@given(
    answers=st.lists(
        st.text(st.sampled_from([" ", "\n", "a", "é", "日", ".", "4", "<", "|", "P"]), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_any_answers_follow_their_prompts_token_for_token(hf_folder, family, answers):
    tokenizer = build(hf_folder, family)
    messages = [said(role, text) for answer in answers for role, text in (("user", "a"), ("assistant", answer))]
    examples = tokenizer.chat.encode(messages)
    assert len(examples) in (1, len(answers))
    for turn, answer in enumerate(answers):
        prompt = tokenizer.chat.prompt(messages[: 2 * turn + 1])
        example = examples[turn if len(examples) > 1 else 0]
        assert example.tokens[: len(prompt)].tolist() == prompt
        rest = example.tokens[len(prompt) :].tolist()
        end = rest.index(tokenizer.chat.end_of_turn)
        written = answer.strip() if family == "gpt2" else answer  # that template trims
        assert tokenizer.decode(rest[:end]) == written
        assert example.learn[len(prompt) : len(prompt) + end + 1].all()
        assert not example.learn[len(prompt) - 1]


def test_a_byte_tokenizer_takes_another_template(tmp_path):
    (tmp_path / "mine.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    tokenizer = ByteTokenizer(chat_template=str(tmp_path / "mine.jinja")).build()
    (example,) = tokenizer.chat.encode(CHAT[:2])
    assert tokenizer.decode(example.tokens.tolist()) == "u>The capital?"
    assert tokenizer.decode(example.tokens[example.learn].tolist()) == "a>Paris."  # there is no header to tell apart


@pytest.mark.parametrize("name", ["bytes", "qwen25", "llama3", "mistral"])
def test_a_plain_completion_is_learnt_with_an_end_token_and_needs_no_template(hf_folder, name):
    tokenizer = BYTES if name == "bytes" else build(hf_folder, name)
    example = encode_completion(tokenizer, "The capital of France is", " Paris.")
    assert example.tokens[-1] == tokenizer.eos_id
    prompt = [*tokenizer.start_ids, *tokenizer.encode("The capital of France is")]
    assert example.tokens[: len(prompt)].tolist() == prompt
    assert example.learn.tolist() == [False] * len(prompt) + [True] * (len(example.tokens) - len(prompt))
    assert (
        tokenizer.decode(example.tokens[len(tokenizer.start_ids) :].tolist()).strip()
        == "The capital of France is Paris."
    )


def test_a_prompt_keeps_its_own_tokens_and_a_written_end_is_not_doubled(hf_folder):
    tokenizer = build(hf_folder, "qwen25")
    example = encode_completion(tokenizer, "The capi", "tal<|im_end|>")  # one token when written together
    assert example.tokens.tolist() == [*tokenizer.encode("The capi"), *tokenizer.encode("tal"), tokenizer.eos_id]


def test_the_date_stands_still_so_that_a_resumed_run_sees_the_same_tokens(hf_folder):
    chat = build(hf_folder, "llama3", date="2030-01-02").chat
    assert "Today Date: 02 Jan 2030<" in chat.render(CHAT[:1])
    template = (
        "{{ strftime_now('%Y') }}{% if strftime_now is defined %} {{ strftime_now(\"%B %d\") }}{% endif %}"
        "{{ messages[0].content }}"
    )
    own = build(hf_folder, "chatml", chat_template=template, date="2001-02-03").chat
    assert own.render(CHAT[:1]) == "2001 February 03The capital?"
