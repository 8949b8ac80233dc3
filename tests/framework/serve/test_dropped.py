"""A client that goes away frees its slot, at whatever point it goes."""

import json
import socket
import threading
import time

import pytest
from tiny_server import NAME

BODY = {"model": NAME, "prompt": "the cat", "max_tokens": 80, "ignore_eos": True}


def send(served, body):
    """A request over a plain socket, which can be closed at any moment."""
    host, port = served.url.removeprefix("http://").split(":")
    raw = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(head.encode() + raw)
    return connection


def wait_until(true, seconds=10):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_running_and_waiting_answers_of_a_client_that_goes_are_given_up(served, held_up, stream):
    aborted = served.service.metrics._aborted["client"]
    with held_up(served.engine):
        connection = send(served, BODY | {"n": 7, "stream": stream})
        wait_until(lambda: served.metric("requests_running") == 4 and served.metric("requests_waiting") == 3)
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()
        served.wait_until_empty(3)  # 40 rounds of 0.2 s would be needed to finish them
    assert served.service.metrics._aborted["client"] == aborted + 1


def test_others_get_their_answers_when_a_client_goes(served, held_up, right):
    want = right("the cat", seed=1, max_tokens=60, ignore_stop=True)[0].text
    with held_up(served.engine, 0.03) as go_on:
        connection = send(served, BODY | {"stream": True, "n": 2})
        assert connection.recv(100)
        found = []
        other = threading.Thread(
            target=lambda: found.append(
                served.openai().completions.create(
                    model=NAME, prompt="the cat", seed=1, max_tokens=60, extra_body={"ignore_eos": True}
                )
            )
        )
        other.start()
        wait_until(lambda: served.metric("requests_running") == 3)
        connection.close()
        wait_until(lambda: served.metric("requests_running") == 1)
        go_on()
        other.join(20)
    assert found[0].choices[0].text == want
    served.wait_until_empty()


def test_a_client_that_goes_before_its_request_is_whole_leaves_nothing(served):
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    connection.close()
    wait_until(lambda: 'path="/v1/completions",status="499"' in metrics(served))
    served.wait_until_empty()


def test_a_client_that_reads_nothing_holds_no_slot(served):
    connection = send(served, BODY | {"stream": True, "n": 4, "logprobs": 5})
    served.wait_until_empty()
    connection.close()


def metrics(served):
    with served.http as http:
        return http.get("/metrics").text
