"""Wrong requests: OpenAI's status and shape, and a message that says what to change. Nothing of them reaches a slot."""

import dataclasses
import json
import logging

import httpx
import jax
import jax.numpy as jnp
import openai
import pytest
from tiny_server import NAME, half_a_request, make_engine, running

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def refused(response, status, *, param=None, code=None):
    """The message of an error, once its shape is that of OpenAI."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
        status, "invalid_request_error"
    )
    assert (error["param"], error["code"]) == (param, code)
    return error["message"]


WRONG = [
    (TEXT, {"prompt": None}, "prompt", None, "it is missing. Give a string, a list of strings"),
    (TEXT, {"prompt": []}, "prompt", None, "it must be a string, a list of strings"),
    (TEXT, {"prompt": [1, "a"]}, "prompt", None, "all of one kind"),
    (TEXT, {"prompt": [True]}, "prompt", None, "all of one kind"),
    (TEXT, {"prompt": ""}, "prompt", None, "has no tokens"),
    (TEXT, {"prompt": [[]]}, "prompt", None, "has no tokens"),
    (TEXT, {"prompt": [5, 100_000]}, "prompt", None, "has token 100000, but the model has tokens 0 to"),
    (TEXT, {"prompt": [-1]}, "prompt", None, "has token -1"),
    (TEXT, {"prompt": "\ud83d"}, "prompt", None, "half of a character"),
    (TEXT, {"max_tokens": 0}, "max_tokens", None, "0 is out of range: it must be at least 1"),
    (TEXT, {"max_tokens": 1.5}, "max_tokens", None, "1.5 is not a whole number"),
    (TEXT, {"max_tokens": True}, "max_tokens", None, "true is not a whole number"),
    (TEXT, {"max_tokens": 96}, "prompt", "context_length_exceeded", "maximum context length is 96 tokens"),
    (TEXT, {"min_tokens": 20}, "min_tokens", None, "20 is more than the 16 tokens"),
    (TEXT, {"temperature": -1}, "temperature", None, "-1 is out of range: it must be at least 0"),
    (TEXT, {"temperature": "hot"}, "temperature", None, '"hot" is not a number'),
    (TEXT, {"top_p": 0}, "top_p", None, "it must be above 0 and at most 1"),
    (TEXT, {"top_p": 1.5}, "top_p", None, "1.5 is out of range"),
    (TEXT, {"top_k": -2}, "top_k", None, "-2 is out of range"),
    (TEXT, {"min_p": 2}, "min_p", None, "2 is out of range"),
    (TEXT, {"n": 0}, "n", None, "it must be from 1 to 128"),
    (TEXT, {"max_tokens": 10**4000}, "max_tokens", None, "is out of range: it must be from 1 to 9223372036854775807."),
    (TEXT, {"top_k": -(10**4000)}, "top_k", None, "it must be at least -1."),
    (TEXT, {"prompt": [10**4000]}, "prompt", None, "but the model has tokens 0 to"),
    (TEXT, {"max_tokens": json.loads("[" * 900 + "]" * 900)}, "max_tokens", None, "a list is not a whole number"),
    (TEXT, {"stream": {"a": 1}}, "stream", None, "an object is neither true nor false"),
    (TEXT, {"stop": "a" * 4097}, "stop", None, "a string has 4097 characters and may have 4096"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": [[1]]}]}]}, "messages[0].content", None, "type a list"),
    (CHAT, {"n": 100}, None, None, "asks for 100 answers at once"),
    (TEXT, {"n": 100}, None, None, "asks for 100 answers at once"),
    (TEXT, {"stop": ""}, "stop", None, "would stop every answer at once"),
    (TEXT, {"stop": [1]}, "stop", None, "a string or a list of strings"),
    (TEXT, {"stop": ["a"] * 17}, "stop", None, "has 17 strings and may have 16"),
    (TEXT, {"seed": 2**63}, "seed", None, "is out of range"),
    (TEXT, {"logprobs": 6}, "logprobs", None, "it must be from 0 to 5"),
    (TEXT, {"logprobs": True}, "logprobs", None, "true is not a whole number"),
    (TEXT, {"stream": "yes"}, "stream", None, '"yes" is neither true nor false'),
    (TEXT, {"stream_options": 1}, "stream_options", None, "1 is not an object"),
    (TEXT, {"stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter", "include_usage?"),
    (TEXT, {"best_of": 3}, "best_of", "unsupported_parameter", "not supported. Leave it out"),
    (TEXT, {"echo": True}, "echo", "unsupported_parameter", "the continuation only"),
    (TEXT, {"suffix": "end"}, "suffix", "unsupported_parameter", "in the middle"),
    (TEXT, {"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter", "set it to 0"),
    (TEXT, {"frequency_penalty": True}, "frequency_penalty", "unsupported_parameter", "set it to 0"),
    (TEXT, {"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter", "Leave it out"),
    (TEXT, {"temprature": 1}, "temprature", "unknown_parameter", "Did you mean temperature?"),
    (TEXT, {"model": None}, "model", None, "You must provide a model parameter. This server has 'tiny'"),
    (TEXT, {"model": 3}, "model", None, "3 is not a string"),
    (CHAT, {"messages": None}, "messages", None, "give at least one message"),
    (CHAT, {"messages": []}, "messages", None, "give at least one message"),
    (CHAT, {"messages": ["hi"]}, "messages", None, "an object with role and content"),
    (CHAT, {"messages": [{"role": "cat", "content": "a"}]}, "messages[0].role", None, "none of system, developer"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", None, "it must be a string"),
    (CHAT, {"messages": [*HI, {"role": "tool", "content": "4"}]}, "messages[1].role", None, "answers of tools"),
    (CHAT, {"messages": [{"role": "user", "content": "\ud83d"}]}, "messages", None, "half of a character"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content",
        None,
        '"image_url" cannot be read',
    ),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 200}]}, "messages", "context_length_exceeded", "96 tokens"),
    (TEXT, {"prompt": ["a", "b" * 10**6]}, "prompt", "context_length_exceeded", "you sent 1000000"),
    (CHAT, {"messages": HI * 2000}, "messages", "context_length_exceeded", "you sent 4000"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools", "unsupported_parameter", "tools are not supported"),
    (CHAT, {"tool_choice": "required"}, "tool_choice", "unsupported_parameter", "tools are not supported"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter", "text"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", None, "it needs logprobs to be true"),
    (CHAT, {"logprobs": 2}, "logprobs", None, "2 is neither true nor false"),
    (CHAT, {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", None, "Give one of them"),
    (CHAT, {"prompt": "a"}, "prompt", "unknown_parameter", "Unrecognized request argument"),
]


@pytest.mark.parametrize(("path", "change", "param", "code", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_a_wrong_field_is_named_with_what_would_work(served, path, change, param, code, message):
    body = {"model": NAME, **({"prompt": "a"} if path == TEXT else {"messages": HI})} | change
    headers = {"content-type": "application/json"}
    with served.http as http:
        for stream in ({}, {"stream": True}):
            response = http.post(path, content=json.dumps(stream | body), headers=headers)
            said = refused(response, 400, param=param, code=code)
            assert message in said
            assert len(said) < 400
    assert served.metric("slots_free") == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"model": ', "cannot be read as JSON"),
        (b'{"temperature": NaN}', "NaN is not a number of JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b"[1]", "is a list, where an object"),
        (b'"text"', "is a string, where an object"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_what_is_no_json_object_says_so(served, body, message):
    with served.http as http:
        response = http.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert message in refused(response, 400)


def test_an_infinite_number_is_out_of_range(served):
    body = f'{{"model": "{NAME}", "prompt": "a", "temperature": 1e999}}'
    with served.http as http:
        response = http.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert "out of range" in refused(response, 400, param="temperature")


def test_a_hundred_thousand_prompts_are_counted_before_a_tokenizer_reads_them(served, monkeypatch):
    read = []
    monkeypatch.setattr(served.service, "encode", lambda text, param: read.append(text))
    for prompts in (["a"] * 100_000, [[70]] * 100_000):
        with served.http as http:
            response = http.post(TEXT, json={"model": NAME, "prompt": prompts})
        assert "asks for 100000 answers at once" in refused(response, 400)
    assert read == []


def test_a_body_that_does_not_come_is_given_up(served, monkeypatch):
    monkeypatch.setattr("framework.serve.app.BODY_SECONDS", 0.2)
    with half_a_request(served) as client:
        answer = client.makefile("rb").read()  # until the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"was not here after 0.2 s" in answer


def test_paths_methods_and_content_types_that_are_not_there(served):
    with served.http as http:
        assert "There is no POST /v1/embeddings" in refused(http.post("/v1/embeddings", json={}), 404)
        assert "There is no GET /" in refused(http.get("/"), 404)
        assert "There is no GET /health/" in refused(http.get("/health/"), 404)
        response = http.get(TEXT)
        assert "GET /v1/completions is not allowed; POST is." in refused(response, 405)
        assert response.headers["allow"] == "POST"
        response = http.post(TEXT, content=b"{}", headers={"content-type": "text/plain"})
        assert "Send Content-Type: application/json" in refused(response, 415)
        response = http.post(TEXT, content=b" " * (9 * 2**20), headers={"content-type": "application/json"})
        assert "larger than 8 MiB" in refused(response, 413)


def test_another_model_is_not_found_by_the_client_either(served):
    with pytest.raises(
        openai.NotFoundError, match=r"'gpt' does not exist. This server has 'tiny', 'alias/tiny'"
    ) as caught:
        served.openai().completions.create(model="gpt", prompt="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        served.openai().models.retrieve("gpt")


def test_a_key_is_asked_for_before_anything_else_is_said(checkpoint, reference):
    with running(checkpoint, reference, api_key="right") as served:
        with served.http as http:
            for value in ("Bearer wrong", "Bearer righ", "Bearer rightt", "Basic right", "right", "Bearer"):
                for path in ("/v1/models", "/v1/nothing"):
                    response = http.get(path, headers={"authorization": value})
                    assert "Incorrect API key" in refused(response, 401, code="invalid_api_key")
            refused(http.post(TEXT, content=b"not json"), 401, code="invalid_api_key")
            assert http.get("/v1/models", headers={"authorization": "bEARER right"}).status_code == 200
            assert http.get("/health").status_code == http.get("/metrics").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            served.openai(api_key="wrong").models.list()
        answer = served.openai(api_key="right").completions.create(model=NAME, prompt="a", max_tokens=2)
        assert answer.usage.completion_tokens > 0


def test_a_full_queue_says_when_to_come_again(checkpoint, reference, monkeypatch, held_up):
    monkeypatch.setattr(reference, "config", dataclasses.replace(reference.config, max_queue=1))
    with running(checkpoint, reference, max_queue=1) as served, held_up(reference) as go_on:
        body = {"model": NAME, "prompt": "a", "max_tokens": 90, "ignore_eos": True}
        with served.http as http:
            first = http.build_request("POST", TEXT, json=body | {"stream": True, "n": 5})
            response = http.send(first, stream=True)  # four run, one waits
            again = http.post(TEXT, json=body)
            said = refused(again, 429, code="queue_full")
            assert "The server is busy: 1 answer(s) wait, and there" in said
            assert said.count("Try again") == 1
            assert "engine." not in said
            assert again.headers["retry-after"] == "1"
            # One of two prompts would have had room: none of them is kept.
            refused(http.post(TEXT, json=body | {"prompt": ["a", "b"]}), 429, code="queue_full")
            with pytest.raises(openai.RateLimitError):
                served.openai().completions.create(model=NAME, prompt="a")
            go_on()
            response.read()
            assert response.text.endswith("data: [DONE]\n\n")
        served.wait_until_empty()
        with served.http as http:
            assert http.post(TEXT, json=body).status_code == 200


def test_weights_that_give_nan_are_an_error_of_the_server_and_not_its_end(checkpoint, reference):
    good = reference._device.params
    reference.load(jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), good), 1)
    try:
        with running(checkpoint, reference) as served:
            with served.http as http:
                body = {"model": NAME, "prompt": "a"}
                assert "NaN or infinite logits" in refused(http.post(TEXT, json=body), 500, code="engine_failed")
                with http.stream("POST", TEXT, json=body | {"stream": True}) as response:
                    lines = [line for line in response.iter_lines() if line]
                assert "NaN" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]
                with pytest.raises(openai.APIError, match="NaN"):
                    list(served.openai().completions.create(model=NAME, prompt="a", stream=True))
            served.wait_until_empty()
    finally:
        reference.load(good, 0)


def test_an_engine_that_breaks_fails_what_is_under_way_and_ends_the_server(checkpoint, reference, monkeypatch, caplog):
    step, rounds = reference.step, iter(range(100))

    def breaking():
        if next(rounds) == 3:
            raise RuntimeError("out of memory, as XLA says it")
        return step()

    monkeypatch.setattr(reference, "step", breaking)
    with running(checkpoint, reference) as served, served.http as http, caplog.at_level(logging.ERROR, "maypole.serve"):
        body = {"model": NAME, "prompt": "a", "max_tokens": 90, "ignore_eos": True}
        message = refused(http.post(TEXT, json=body), 500, code="engine_failed")
        assert message == "The generation engine failed: RuntimeError: out of memory, as XLA says it"
        assert "Traceback" in caplog.text
        served.thread.join(10)
        assert not served.thread.is_alive()  # whoever supervises it starts another
    monkeypatch.undo()
    while not reference.idle:  # what the broken round left
        reference.step()


def test_a_mistake_of_the_server_itself_is_an_answer_and_a_line_in_the_log(served, monkeypatch, caplog):
    monkeypatch.setattr(served.service, "read", None)
    with served.http as http, caplog.at_level(logging.ERROR, "maypole.serve"):
        response = http.post(TEXT, json={"model": NAME, "prompt": "a"})
    assert "its log says which" in refused(response, 500)
    assert "Traceback" in caplog.text


def test_a_mistake_in_the_middle_of_a_stream_cuts_it_off_and_frees_its_slot(served, monkeypatch):
    def broken(token):
        raise KeyError(token)

    monkeypatch.setattr(served.service.pieces, "text", broken)
    body = {"model": NAME, "messages": HI, "logprobs": True, "stream": True, "ignore_eos": True}
    with served.http as http, http.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()
    served.wait_until_empty()


def test_an_engine_says_what_it_refuses(checkpoint):
    with pytest.raises(
        ValueError, match=r"--max-length 97 is more than the 96 tokens the model was made for\. Use 96\."
    ):
        checkpoint.engine(slots=1, max_length=97, max_queue=1)
    with pytest.raises(ValueError, match=r"slots=0 must be at least 1"):
        make_engine(checkpoint, slots=0)
