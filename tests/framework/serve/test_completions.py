"""`/v1/completions` over a real server, with the official client."""

import codecs
import concurrent.futures

import numpy as np
import pytest
from tiny_server import NAME, Running, events

CAT = "the cat"
EXTENSIONS = ("top_k", "min_p", "min_tokens", "ignore_eos", "return_token_ids")


def complete(served: Running, prompt, **settings):
    """The official client; what OpenAI does not have goes in the extra body, as its users write it."""
    extra = {name: settings.pop(name) for name in EXTENSIONS if name in settings}
    return served.openai().completions.create(model=NAME, prompt=prompt, extra_body=extra, **settings)


def tokens_of(answer):
    return [choice.token_ids for choice in answer.choices]


def test_a_seeded_answer_is_what_the_engine_says_alone(served, right, checkpoint):
    want = right(CAT, seed=7)[0]
    got = complete(served, CAT, seed=7, return_token_ids=True)
    assert (got.object, got.model) == ("text_completion", NAME)
    assert got.choices[0].text == want.text
    assert got.choices[0].finish_reason == want.finish_reason
    assert tokens_of(got) == [want.tokens.tolist()]
    assert got.usage.prompt_tokens == len(checkpoint.tokenizer.encode(CAT))
    assert got.usage.completion_tokens == len(want.tokens) <= 16
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"top_k": 3, "min_p": 0.05}, {"top_k": 3, "min_p": 0.05}),
        ({"top_k": -1}, {}),
        ({"max_tokens": 40, "ignore_eos": True}, {"max_tokens": 40, "ignore_stop": True}),
        ({"max_tokens": 30, "min_tokens": 20}, {"max_tokens": 30, "min_tokens": 20}),
        ({"presence_penalty": 0, "logit_bias": {}, "echo": False, "best_of": 1, "user": "me", "suffix": None}, {}),
    ],
    ids=str,
)
def test_every_setting_reaches_the_engine(served, right, sent, meant):
    want = right(CAT, seed=5, **meant)[0]
    assert tokens_of(complete(served, CAT, seed=5, return_token_ids=True, **sent)) == [want.tokens.tolist()]


def test_all_64_bits_of_a_seed_count(served):
    answers = [complete(served, CAT, seed=seed).choices[0].text for seed in (1, 1 + 2**32, -1, 2**63 - 1)]
    assert len(set(answers)) == 4


def test_without_a_seed_every_answer_is_another(served):
    assert len({complete(served, CAT).choices[0].text for _ in range(3)}) == 3


def test_a_seeded_answer_does_not_depend_on_what_else_runs(served, right):
    want = {seed: [c.text for c in right(CAT, seed=seed, samples=2)] for seed in range(6)}
    with concurrent.futures.ThreadPoolExecutor(18) as pool:
        noise = [pool.submit(complete, served, "a dog", n=2, max_tokens=30) for _ in range(12)]
        asked = {seed: pool.submit(complete, served, CAT, n=2, seed=seed) for seed in want}
        got = {seed: [choice.text for choice in answer.result().choices] for seed, answer in asked.items()}
        assert all(len(answer.result().choices) == 2 for answer in noise)
    assert got == want


def test_prompts_may_be_texts_or_token_ids_alone_or_in_lists(served, right, checkpoint):
    ids = [checkpoint.tokenizer.encode(text) for text in (CAT, "a dog sat")]
    want = [[c.text for c in right(prompt, seed=3, samples=2)] for prompt in ids]
    for prompt in (CAT, [CAT], ids[0], [ids[0]]):
        answer = complete(served, prompt, seed=3, n=2)
        assert [choice.text for choice in answer.choices] == want[0]
    for prompt in ([CAT, "a dog sat"], ids):
        answer = complete(served, prompt, seed=3, n=2)
        assert [choice.text for choice in answer.choices] == [*want[0], *want[1]]
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == len(ids[0]) + len(ids[1])  # a prompt counts once, whatever n is


def test_a_stream_says_the_same_as_the_whole_answer(served):
    settings = {"seed": 11, "n": 2, "max_tokens": 30}
    whole = complete(served, [CAT, "ein Mädchen"], **settings)
    texts, reasons = ["" for _ in whole.choices], {}
    chunks = list(
        complete(served, [CAT, "ein Mädchen"], stream=True, stream_options={"include_usage": True}, **settings)
    )
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        for choice in chunk.choices:
            assert choice.index not in reasons, "text after the end"
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert [reasons[i] for i in range(4)] == [choice.finish_reason for choice in whole.choices]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_options_has_no_usage(served):
    body = {"model": NAME, "prompt": CAT, "seed": 1, "stream": True}
    with served.http as http, http.stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert not any("usage" in event for event in events(response))


def test_a_stop_string_is_cut_off_and_no_part_of_it_is_streamed(served, right):
    plain = right(CAT, seed=2, max_tokens=40, ignore_stop=True)[0].text
    stop = plain[7:10]  # wherever tokens begin and end
    want = plain[: plain.index(stop)]
    settings = {"seed": 2, "max_tokens": 40, "ignore_eos": True, "stop": ["never said", stop]}
    answer = complete(served, CAT, **settings)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (want, "stop")
    assert answer.choices[0].stop_reason == stop
    assert answer.usage.completion_tokens < 40
    chunks = list(complete(served, CAT, stream=True, **settings))
    assert "".join(chunk.choices[0].text for chunk in chunks) == want


def test_log_probabilities_are_the_untempered_ones(served, right):
    want = right(CAT, seed=9, temperature=0.3, top_logprobs=3, max_tokens=24)[0]
    found = complete(served, CAT, seed=9, temperature=0.3, logprobs=3, max_tokens=24).choices[0].logprobs
    # Two engines of the same program on the same weights: rows of a batch may be summed in another order.
    np.testing.assert_allclose(found.token_logprobs, want.logp_untempered, atol=1e-5)
    assert abs(np.subtract(want.logp, want.logp_untempered)).max() > 0.1
    for i, best in enumerate(found.top_logprobs):
        assert found.tokens[i] in best
        assert len(best) in (3, 4)  # the chosen one is always there
        top = sorted(best.values(), reverse=True)[:3]
        np.testing.assert_allclose(top, want.top_logp[i], atol=1e-5)
    assert len(found.tokens) == len(want.tokens)


def test_log_probabilities_of_a_stream_are_those_of_the_whole(served):
    settings = {"seed": 9, "logprobs": 2, "max_tokens": 24}
    whole = complete(served, CAT, **settings).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in complete(served, CAT, stream=True, **settings)]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [x for part in parts if part is not None for x in getattr(part, field)]
        if field in ("tokens", "text_offset"):
            assert joined == getattr(whole, field)
        assert len(joined) == len(whole.tokens)


def test_tokens_and_offsets_lead_through_the_text(served):
    choice = complete(served, CAT, seed=4, logprobs=0, max_tokens=40, ignore_eos=True).choices[0]
    assert choice.logprobs.top_logprobs is None
    raw = [
        bytes.fromhex(token.removeprefix("bytes:").replace("\\x", "")) if token.startswith("bytes:") else token.encode()
        for token in choice.logprobs.tokens
    ]
    text = b"".join(token for token in raw if token not in (b"<eos>", b"<pad>"))
    assert text.decode("utf-8", "replace") == choice.text
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    at = 0
    for token, offset in zip(raw, choice.logprobs.text_offset, strict=True):
        assert offset == at
        at += len(decoder.decode(token))


def test_sixteen_tokens_are_the_default_and_the_context_is_the_limit(served, checkpoint):
    assert complete(served, CAT, ignore_eos=True).usage.completion_tokens == 16
    room = 96 - len(checkpoint.tokenizer.encode(CAT))
    answer = complete(served, CAT, ignore_eos=True, max_tokens=room)
    assert answer.usage.completion_tokens == room
    assert answer.choices[0].finish_reason == "length"
