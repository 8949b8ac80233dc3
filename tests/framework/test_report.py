"""The page a report is: what it shows, and what it never does."""

import html.parser
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from test_report_synthetic import HOSTILE, make_run

from framework.report import Section, Table, load_run, metric_figure, write_report


class Page(html.parser.HTMLParser):
    """Tags, attributes, and the text of every script and style, as a browser would split them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.json, self.styles, self.text, self._open = [], {}, [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag in ("script", "style"):
            self._open = (tag, attrs.get("id"))
            if attrs.get("id"):
                self.json[attrs["id"]] = ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open = None

    def handle_data(self, data):
        if self._open is None:
            self.text.append(data)
        elif self._open[0] == "style":
            self.styles.append(data)
        elif self._open[1]:
            self.json[self._open[1]] += data

    @property
    def plots(self):
        """Heading of a plot -> its specification."""
        named = {a["id"]: a.get("data-title", "") for t, a in self.tags if t == "div" and "data-title" in a}
        return {title: json.loads(self.json[f"{key}-spec"]) for key, title in named.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(make_run(tmp_path_factory.mktemp("runs") / "demo"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    sections = [
        Section(
            "The <law>",
            "One.\n\nTwo & three.",
            [metric_figure([run], "policy/cov_mean", y="covariance (nats)", title="Cov <i>mean</i>")],
            Table(["Arm", "a"], [["grpo", 0.123456], ["clip_cov", None]], "Fitted."),
            "Small print.",
        )
    ]
    return write_report([run], tmp_path_factory.mktemp("out") / "report.html", sections=sections).read_text()


def test_the_page_names_every_arm_and_fact(page):
    text = " ".join(Page(page).text)
    for word in (
        "clip_cov",
        "grpo",
        "Example CPU, 2 cores, 23 GiB",
        "0123456789 (with local changes)",
        "2026-08-01 10:00",
        "The <law>",
        "Two & three.",
        "0.1235",
    ):
        assert word in text
    assert "1e-06" not in text


def test_nothing_is_loaded_from_a_network(page):
    parsed = Page(page)
    loads = ("src", "href", "srcset", "data", "action", "poster", "background", "formaction")
    assert not [
        (t, a) for t, a in parsed.tags for k, v in a.items() if k in loads and v and not v.startswith(("#", "data:"))
    ]
    assert {t for t, _ in parsed.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "img"})
    styles = " ".join(parsed.styles + [a.get("style") or "" for _, a in parsed.tags])
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert 'showSendToCloud: false, plotlyServerURL: ""' in page
    assert page.count("plotly.js v") == 1
    assert len(page.encode()) < 8_000_000


def test_hostile_samples_stay_text_and_round_trip(page, run):
    parsed = Page(page)
    assert not [a for _, a in parsed.tags if "onerror" in a]
    assert "\u2028" not in page
    data = json.loads(parsed.json["samples-data"])
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    keys = ("step", "split", "task", "question", "response", "answer", "reward")
    assert [tuple(r[k] for k in keys) for r in rows if r["stage"] == "grpo"] == [
        tuple(s[k] for k in keys) for s in run.stage("grpo").samples
    ]
    assert HOSTILE in {r["response"] for r in rows}


def test_warm_start_has_a_panel_of_its_own_and_no_place_among_the_arms(page):
    plots = Page(page).plots
    assert "Warm-start loss" in plots
    for title in ("Held-out accuracy", "Policy entropy", "Reward"):
        assert {t["name"] for t in plots[title]["data"]} == {"clip_cov", "grpo"}
    assert plots["Warm-start loss"]["layout"]["xaxis"]["title"]["text"] == "warm-start step"


def test_every_axis_has_a_title(page):
    for title, spec in Page(page).plots.items():
        assert spec["layout"]["xaxis"]["title"]["text"], title
        if title != "Time per phase":
            assert spec["layout"]["yaxis"]["title"]["text"], title


def test_an_arm_has_one_colour_in_every_plot(page):
    colours = {}
    for spec in Page(page).plots.values():
        for trace in spec["data"]:
            if "legendgroup" in trace:
                colours.setdefault((trace["legendgroup"], trace["name"]), set()).add(trace["line"]["color"])
    assert all(len(found) == 1 for found in colours.values())
    assert colours[("arm0", "clip_cov")] != colours[("arm1", "grpo")]


def test_damage_is_said_on_the_page(page):
    text = " ".join(Page(page).text)
    assert "clip_cov, grpo: NaN or infinite values, not drawn: grad/norm (1×)." in text
    assert "grpo: a half-written last line was left out." in text
    assert "grpo: not finished, the curves end at step 53." in text


def test_panels_without_data_are_left_out_and_one_point_is_a_marker(tmp_path):
    folder = tmp_path / "runs" / "one" / "arm"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "policy/entropy": null}\n')
    plots = Page(write_report([load_run(folder.parent)], tmp_path / "r.html").read_text()).plots
    assert set(plots) == {"Reward"}
    assert plots["Reward"]["data"][0]["mode"] == "lines+markers"


def test_a_run_that_is_still_warming_up_is_reported(tmp_path):
    run = load_run(make_run(tmp_path / "demo") / "warm_start")
    plots = Page(write_report([run], tmp_path / "r.html").read_text()).plots
    assert {"Held-out accuracy", "Loss"} <= set(plots)


def test_two_runs_are_compared_under_their_own_names(tmp_path):
    runs = [load_run(make_run(tmp_path / name, steps=30)) for name in ("first", "second")]
    parsed = Page(write_report(runs, tmp_path / "r.html").read_text())
    names = {t["name"] for t in parsed.plots["Reward"]["data"]}
    assert names == {"first/clip_cov", "first/grpo", "second/clip_cov", "second/grpo"}
    assert "Fields in which the runs differ:" in " ".join(parsed.text)


def test_seeds_are_joined_when_only_the_seed_differs(tmp_path):
    runs = [load_run(make_run(tmp_path / f"s{i}" / "demo", steps=30, seed=i)) for i in range(3)]
    parsed = Page(write_report(runs, tmp_path / "r.html").read_text())
    assert {t["name"] for t in parsed.plots["Reward"]["data"]} == {"clip_cov", "grpo"}
    lines = [t for t in parsed.plots["Held-out accuracy"]["data"] if t["name"] == "grpo"]
    assert len(lines) == 4  # three seeds and their mean
    assert "standard deviation over 3 seeds" in " ".join(parsed.text)
    bars = parsed.plots["Time per phase"]["data"][0]["y"]
    assert len(set(bars)) == len(bars) == 9
    apart = Page(write_report(runs, tmp_path / "r.html", seeds=False).read_text())
    assert len({t["name"] for t in apart.plots["Reward"]["data"]}) == 6


def test_many_tasks_become_a_heatmap(tmp_path):
    folder = tmp_path / "runs" / "many" / "arm"
    folder.mkdir(parents=True)
    tasks = {f"eval/accuracy/t{i:02d}": i / 20 for i in range(20)}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **tasks}) + "\n")
    plots = Page(write_report([load_run(folder.parent)], tmp_path / "r.html").read_text()).plots
    assert plots["At the last evaluation"]["data"][0]["type"] == "heatmap"


def test_a_figure_keeps_its_data_and_gives_its_title_to_the_page(page, run, tmp_path):
    assert "Cov mean" in re.sub(r"\s+", " ", " ".join(Page(page).plots))
    figure = go.Figure(go.Scatter(x=[1, 2], y=np.array([3.0, 4.0])), layout={"title": "Mine", "width": 2000})
    path = write_report([run], tmp_path / "r.html", sections=[Section("S", figures=[figure])])
    assert "width" not in Page(path.read_text()).plots["Mine"]["layout"]
    assert figure.layout.title.text == "Mine"


def test_a_report_replaces_the_old_one_whole_or_not_at_all(run, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(ValueError, match="no runs"):
        write_report([], out)
    assert out.read_text() == "old"
    write_report([run], out, title="New")
    assert "<title>New</title>" in out.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="row 0 has 1 cells but the table has 2 columns"):
        Table(["a", "b"], [["x"]])
