"""`/v1/chat/completions`, `/v1/models` and `/health` over a real server, with the official client."""

import numpy as np
import pytest
from tiny_server import LENGTH, NAME

HI = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi cat"}]


def chat(served, messages=HI, **settings):
    return served.openai().chat.completions.create(model=NAME, messages=messages, **settings)


def test_a_seeded_answer_continues_the_template_of_the_tokenizer(served, right, checkpoint):
    prompt = checkpoint.tokenizer.chat.prompt(HI)
    want = right(prompt, seed=3, samples=2)
    got = chat(served, seed=3, n=2, max_tokens=16)
    assert got.object == "chat.completion"
    assert [choice.message.content for choice in got.choices] == [c.text for c in want]
    assert [choice.message.role for choice in got.choices] == ["assistant"] * 2
    assert [choice.finish_reason for choice in got.choices] == [c.finish_reason for c in want]
    assert got.usage.prompt_tokens == len(prompt)
    assert got.usage.completion_tokens == sum(len(c.tokens) for c in want)


def test_a_stream_says_whose_turn_it_is_then_the_same_text(served):
    settings = {"seed": 4, "n": 2, "max_completion_tokens": 20}
    whole = chat(served, **settings)
    chunks = list(chat(served, stream=True, stream_options={"include_usage": True}, **settings))
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant"] * 2
    texts, reasons = ["", ""], ["", ""]
    for chunk in chunks[:-1]:
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert chunks[-1].usage == whole.usage


def test_the_clients_own_stream_helper_understands_the_stream(served):
    stop = chat(served, seed=8, max_tokens=20).choices[0].message.content[10:13]  # the helper raises for "length"
    whole = chat(served, seed=8, max_tokens=20, stop=stop)
    with served.openai().chat.completions.stream(model=NAME, messages=HI, seed=8, max_tokens=20, stop=stop) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason


def test_log_probabilities_have_bytes_that_make_up_the_text(served, right, checkpoint):
    want = right(checkpoint.tokenizer.chat.prompt(HI), seed=6, max_tokens=30, temperature=0.5)[0]
    choice = chat(served, seed=6, max_tokens=30, temperature=0.5, logprobs=True, top_logprobs=2).choices[0]
    content = choice.logprobs.content
    # Two engines of the same program on the same weights: rows of a batch may be summed in another order.
    np.testing.assert_allclose([token.logprob for token in content], want.logp_untempered, atol=1e-5)
    assert all(len(token.top_logprobs) == 2 for token in content)
    assert all(token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob for token in content)
    said = content[:-1] if choice.finish_reason == "stop" else content
    text = b"".join(bytes(token.bytes) for token in said if token.token != "<pad>")
    assert text.decode("utf-8", "replace") == choice.message.content
    plain = chat(served, seed=6, max_tokens=30, temperature=0.5, logprobs=True).choices[0].logprobs.content
    assert [token.top_logprobs for token in plain] == [[]] * len(content)


def test_developer_is_another_name_for_system_and_parts_of_text_are_joined(served):
    parts = [{"type": "text", "text": "hi "}, {"type": "text", "text": "cat"}]
    other = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts, "name": "me"}]
    answers = [chat(served, messages, seed=1, max_tokens=12) for messages in (HI, other)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage == answers[1].usage


def test_without_a_limit_an_answer_may_fill_the_context(served, checkpoint):
    answer = chat(served, extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens == LENGTH
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("name", [NAME, "alias/tiny"])
def test_the_model_is_listed_under_all_its_names(served, name):
    client = served.openai()
    assert name in [model.id for model in client.models.list()]
    assert client.models.retrieve(name).id == name
    assert client.completions.create(model=name, prompt="a", max_tokens=1).model == NAME


def test_health_says_ok(served):
    with served.http as http:
        response = http.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
