"""What `/metrics` counts, by hand and over a server."""

import re

from tiny_server import NAME

from framework.serve.metrics import Histogram, Metrics

GAUGES = {"requests_running": 1, "requests_waiting": 2, "slots": 4, "slots_free": 3, "weights_version": 0}
LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+')


def test_the_page_is_what_prometheus_reads():
    metrics = Metrics()
    metrics.request("/v1/completions", 200)
    metrics.first_token(0.3)
    page = metrics.text(GAUGES)
    assert page.endswith("\n")
    kinds = {}
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            assert LINE.fullmatch(line), line
            name = line.partition(" ")[0].partition("{")[0]
            assert any(name in (kind, f"{kind}_bucket", f"{kind}_sum", f"{kind}_count") for kind in kinds), line
    assert set(kinds.values()) == {"counter", "gauge", "histogram"}
    assert all(name.endswith("_total") for name, kind in kinds.items() if kind == "counter")


def test_a_bucket_holds_all_that_is_smaller():
    histogram = Histogram()
    for seconds in (0.001, 0.005, 0.2, 100):
        histogram.add(seconds)
    lines = dict(line.rsplit(" ", 1) for line in histogram.lines("x"))
    assert lines['x_bucket{le="0.005"}'] == "2"
    assert lines['x_bucket{le="0.25"}'] == "3"
    assert lines['x_bucket{le="60"}'] == "3"
    assert lines['x_bucket{le="+Inf"}'] == lines["x_count"] == "4"
    assert float(lines["x_sum"]) == 100.206


def test_the_speed_is_that_of_the_last_ten_seconds():
    now = [0.0]
    metrics = Metrics(clock=lambda: now[0])
    assert metrics.tokens_per_second() == 0
    now[0] = 2.0
    metrics.generated(100)
    assert metrics.tokens_per_second() == 50  # of the two seconds there were
    now[0] = 11.0
    metrics.generated(300)
    assert metrics.tokens_per_second() == 40
    now[0] = 15.0
    assert metrics.tokens_per_second() == 30
    now[0] = 100.0
    assert metrics.tokens_per_second() == 0


def test_a_server_counts_requests_tokens_and_times(served):
    names = ("prompt_tokens_total", "generated_tokens_total", "first_token_seconds_count", "queue_seconds_count")
    names += ("request_seconds_count",)
    before = {name: served.metric(name) for name in names}
    with served.http as http:
        statuses = http.get("/metrics").text
        for body in ({"prompt": ["a", "b"], "n": 2}, {"prompt": "a", "stream": True}, {"prompt": 3}):
            http.post("/v1/completions", json={"model": NAME, "ignore_eos": True, "max_tokens": 5} | body)
        http.get("/v1/models/x")
        http.get("/not/there")
        after = http.get("/metrics").text
    counted = {name: served.metric(name) - before[name] for name in names}
    assert counted == {
        "prompt_tokens_total": 3,
        "generated_tokens_total": 25,
        "first_token_seconds_count": 3,
        "queue_seconds_count": 3,
        "request_seconds_count": 2,
    }
    for path, status, more in (
        ("/v1/completions", 200, 2),
        ("/v1/completions", 400, 1),
        ("/v1/models", 404, 1),
        ("other", 404, 1),
    ):
        pattern = rf'maypole_requests_total{{path="{path}",status="{status}"}} (\d+)'
        old, new = (re.search(pattern, page) for page in (statuses, after))
        assert int(new[1]) - (int(old[1]) if old else 0) == more
    assert served.metric("tokens_per_second") > 0
