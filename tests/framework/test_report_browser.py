"""The page in a real browser: plots are drawn, samples are listed, nothing fails."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest
from test_report_synthetic import ARMS, make_run

from framework.report import Section, load_run, metric_figure, write_report

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
    "--dump-dom",
)


def browser():
    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if found is None:
        message = "no chromium, chromium-browser or google-chrome on the path"
        if os.environ.get("MAYPOLE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{message}, and MAYPOLE_REQUIRE_BROWSER=1 asks for one")
        pytest.skip(message)
    return found


def dom_of(page, tmp_path):
    command = [browser(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)


def errors(dom):
    found = re.search(r'<html[^>]* data-errors="([^"]*)"', dom)
    return html.unescape(found[1]) if found else None


@pytest.mark.slow
def test_plots_and_samples_are_drawn_without_an_error(tmp_path):
    run = load_run(make_run(tmp_path / "demo", arms=tuple(ARMS)))
    section = Section("Own", figures=[metric_figure([run], "policy/cov_mean", y="covariance (nats)", title="Own plot")])
    dom = dom_of(write_report([run], tmp_path / "report.html", sections=[section]), tmp_path)
    assert errors(dom) is None
    plots = int(re.search(r'<html[^>]* data-plots="(\d+)"', dom)[1])
    assert plots >= 14
    assert dom.count('class="plot-container') == plots
    assert len(re.findall(r'<svg[^>]*class="main-svg"', dom)) >= plots
    assert dom.count('class="badge ') == 20  # one page of the table
    assert '<span class="tag">&lt;think&gt;</span>' in dom
    assert "<img" not in dom


@pytest.mark.slow
def test_a_hostile_sample_stays_text_in_the_browser(tmp_path):
    folder = make_run(tmp_path / "demo", steps=20)
    lines = [s for s in (folder / "clip_cov" / "samples.jsonl").read_text().splitlines() if "onerror" in s]
    (folder / "clip_cov" / "samples.jsonl").write_text("\n".join(lines))
    (folder / "grpo" / "samples.jsonl").unlink()
    dom = dom_of(write_report([load_run(folder)], tmp_path / "report.html"), tmp_path)
    assert errors(dom) is None
    assert "&lt;img src=x onerror=" in dom
    assert "<img" not in dom
    assert '<span class="odd">U+202E</span>' in dom


USE = """
<script>
const field = (name) => document.querySelector(`[data-filter="${name}"]`);
const set = (name, value) => {
  field(name).value = value;
  field(name).dispatchEvent(new Event(name === "text" ? "input" : "change"));
};
const count = () => document.querySelector('[data-role="count"]').textContent;
const said = [];
set("stage", "grpo"); set("reward", "right"); said.push(count());
document.querySelector('[data-action="next"]').click(); said.push(document.querySelector('[data-role="page"]').textContent);
document.querySelector('[data-action="clear"]').click(); set("text", "SORT: "); said.push(count());
document.querySelector('[data-action="clear"]').click();
document.querySelector("#sample-rows .linkish").click(); said.push(count());
document.querySelector(".chip").click();
said.push(document.getElementById("plot-1").data.map((trace) => trace.visible !== false).join());
document.querySelector("details.fold").open = true;
document.documentElement.dataset.said = JSON.stringify(said);
</script></body>"""


@pytest.mark.slow
def test_filters_pages_search_and_the_legend_work(tmp_path):
    run = load_run(make_run(tmp_path / "demo", steps=40))
    page = write_report([run], tmp_path / "report.html")
    before = int(re.search(r'data-plots="(\d+)"', dom_of(page, tmp_path))[1])
    page.write_text(page.read_text().replace("</body>", USE))
    dom = dom_of(page, tmp_path)
    assert errors(dom) is None
    right, second, sorting, same, visible = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', dom)[1]))
    samples = [s for stage in run.stages for s in stage.samples]
    want = sum(s["reward"] >= 1 for s in run.stage("grpo").samples)
    assert right == f"{want} samples · {want} right (100 %)"
    assert second == f"page 2 of {-(-want // 20)}"
    assert sorting.startswith(f"{sum('Sort: ' in s['question'] for s in samples)} samples")
    first = run.stage("clip_cov").samples[-14][
        "question"
    ]  # the first of the last step: two to train on, twelve held out
    found = sum(s["question"] == first for s in samples)
    assert same.startswith(f"{found} sample{'' if found == 1 else 's'} ·")
    assert visible == "false,true"
    assert dom.count('class="plot-container') > before  # the folded metrics are drawn once they are opened


@pytest.mark.slow
def test_a_script_error_is_recorded_where_a_test_can_see_it(tmp_path):
    page = write_report([load_run(make_run(tmp_path / "demo", steps=12))], tmp_path / "report.html")
    page.write_text(page.read_text().replace("</body>", "<script>undefined_name()</script></body>"))
    assert "undefined_name" in errors(dom_of(page, tmp_path))
