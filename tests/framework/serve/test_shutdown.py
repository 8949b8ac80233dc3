"""The end of a server: what is under way is finished in the grace time, then gets an error."""

import json
import socket
import threading
import time

import httpx
import pytest
from tiny_server import NAME, events, half_a_request, running

from framework.errors import UserError
from framework.serve.server import bind

BODY = {"model": NAME, "prompt": "the cat", "max_tokens": 80, "ignore_eos": True, "seed": 1}


def test_answers_under_way_are_finished_and_new_connections_refused(checkpoint, reference, held_up, right):
    want = right("the cat", seed=1, max_tokens=80, ignore_stop=True)[0].text
    with running(checkpoint, reference, grace=20) as served, held_up(reference, 0.05), served.http as http:
        with http.stream("POST", "/v1/completions", json=BODY | {"stream": True}) as response:
            lines = response.iter_lines()
            first = next(lines)
            served.server.stop()
            until = time.monotonic() + 5
            while True:  # the socket is closed within a tenth of a second
                try:
                    served.metric("slots")
                except httpx.ConnectError:
                    break
                assert time.monotonic() < until, "connections are still taken"
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        text = "".join(
            json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in [first, *rest[:-1]] if line
        )
        assert text == want
        served.thread.join(10)
    assert reference.stats.free_slots == reference.stats.slots


@pytest.mark.parametrize("stream", [False, True])
def test_after_the_grace_time_answers_are_given_up_with_an_error(checkpoint, reference, held_up, stream):
    with running(checkpoint, reference, grace=0.2) as served, held_up(reference, 0.3), served.http as http:
        request = http.build_request("POST", "/v1/completions", json=BODY | {"stream": stream, "n": 6})
        stopper = threading.Timer(0.5, served.server.stop)
        stopper.start()
        began = time.monotonic()
        response = http.send(request)
        assert time.monotonic() - began < 5
        if stream:
            lines = [line for line in response.text.splitlines() if line]
            error = json.loads(lines[-1].removeprefix("data: "))["error"]
        else:
            assert response.status_code == 503
            error = response.json()["error"]
        assert (error["message"], error["code"]) == ("The server is shutting down.", "shutting_down")
        served.thread.join(10)
        assert not served.thread.is_alive()
    while not reference.idle:  # the last round: it hands out what was aborted
        reference.step()
    assert (reference.stats.free_slots, reference.stats.waiting) == (4, 0)


def test_answers_end_with_the_grace_time_also_while_the_engine_is_busy(checkpoint, reference, held_up):
    with running(checkpoint, reference, grace=0.2) as served, held_up(reference, 60) as go_on, served.http as http:
        threading.Timer(0.5, served.server.stop).start()
        began = time.monotonic()
        response = http.post("/v1/completions", json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
        assert time.monotonic() - began < 4  # a round of 60 s, as a compilation may be
        go_on()
        served.thread.join(10)
        assert not served.thread.is_alive()
    while not reference.idle:
        reference.step()


def test_a_request_that_is_still_coming_in_ends_with_the_grace_time(checkpoint, reference, capsys):
    with running(checkpoint, reference, grace=0.3) as served, half_a_request(served) as client:
        assert served.metric("slots") == 4  # the half request is being read by now: it came before this one
        began = time.monotonic()
        served.server.stop()
        answer = client.makefile("rb").read()
        assert time.monotonic() - began < 3
        assert answer.startswith(b"HTTP/1.1 503 ")
        served.thread.join(10)
        assert not served.thread.is_alive()
    assert capsys.readouterr().err == ""  # uvicorn would cancel it in the end, with a traceback


def test_a_connection_that_stays_open_is_told_that_the_server_stops(checkpoint, reference):
    with running(checkpoint, reference) as served, served.http as http:
        assert http.get("/health").status_code == 200
        served.service.draining = True  # between the signal and the end of the listening socket
        response = http.post("/v1/completions", json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
        assert response.headers["retry-after"] == "10"
        assert (http.get("/health").status_code, http.get("/health").json()["status"]) == (503, "shutting down")


def test_an_engine_serves_again_after_its_server_has_ended(checkpoint, reference, right):
    want = right("the cat", seed=1, max_tokens=20)[0].text
    for _ in range(2):
        with running(checkpoint, reference) as served, served.http as http:
            body = BODY | {"max_tokens": 20, "ignore_eos": False, "stream": True}
            with http.stream("POST", "/v1/completions", json=body) as response:
                found = "".join(event["choices"][0]["text"] for event in events(response))
            assert found == want


def test_an_address_that_cannot_be_had_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} cannot be had: Address already in use. Give another port"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host 'no.such.host.invalid' is no address"):
        bind("no.such.host.invalid", 0)
    with bind("127.0.0.1", 0) as listener:
        refused = socket.socket().connect_ex(listener.getsockname())
        assert refused != 0  # bound, but not open before the model is ready
