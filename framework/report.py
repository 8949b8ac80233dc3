"""Turn runs into one HTML page that needs no network: `write_report([load_run("runs/x")], Path("runs/x/report.html"))`.

The page is a title, a summary table, the headline curves, the experiment's own sections, the standard panels, a table of samples
to browse, and the resolved config. Plots are plotly; the page carries plotly.js once and forbids itself any request.
"""

import dataclasses
import html
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
import plotly.io as pio
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from framework.report_arms import Arm, arms_of, run_labels
from framework.report_figures import TEMPLATE, heatmap, line_figure, metric_figure, stacked_bars
from framework.report_panels import Group, Panel, headline, standard_groups
from framework.report_samples import json_for_html, samples_payload
from framework.report_summary import config_differences, page_facts, page_title, page_warnings, summary_table
from framework.report_types import Cell, Section, Table, cell_text
from framework.rundata import Metrics, RunData, RunDataError, StageData, load_run

__all__ = [
    "Arm",
    "Cell",
    "Metrics",
    "RunData",
    "RunDataError",
    "Section",
    "StageData",
    "Table",
    "arms_of",
    "heatmap",
    "line_figure",
    "load_run",
    "metric_figure",
    "stacked_bars",
    "write_report",
]


def write_report(
    runs: Sequence[RunData],
    out: str | Path,
    *,
    sections: Sequence[Section] = (),
    title: str | None = None,
    summary: Table | None = None,
    seeds: bool | None = None,
    max_samples: int = 3000,
) -> Path:
    """Write the page and return its path. The file appears whole or not at all.

    seeds: join stages of equal name over runs (True), keep them apart (False), or decide by the configs (None).
    """
    if not runs:
        raise ValueError("write_report got no runs. Pass at least one: write_report([load_run('runs/<name>')], out).")
    page = _render(runs, sections, title, summary, seeds, max_samples)
    return _write_whole(Path(out), page)


def _render(
    runs: Sequence[RunData],
    sections: Sequence[Section],
    title: str | None,
    summary: Table | None,
    seeds: bool | None,
    max_samples: int,
) -> str:
    arms = arms_of(runs, seeds=seeds)
    run_names = run_labels(runs)
    labelled = [
        (stage.name if len(runs) == 1 else f"{label}/{stage.name}", stage)
        for run, label in zip(runs, run_names, strict=True)
        for stage in run.stages
    ]
    samples = samples_payload(labelled, limit=max_samples)
    numbers = _Numbers()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("framework"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell_text, "paragraphs": _paragraphs, "inline_json": _inline_json}
    return environment.get_template("report.html.jinja").render(
        title=title or page_title(runs, arms),
        facts=page_facts(runs),
        warnings=page_warnings(runs),
        arms=arms,
        colour_of={arm.label: arm.colour for arm in arms},
        summary=summary or summary_table(arms, runs),
        headline=_placed(headline(arms, runs), numbers),
        sections=[_placed_section(section, numbers) for section in sections],
        groups=[_placed_group(group, numbers) for group in standard_groups(arms, runs)],
        samples=samples,
        configs=[
            {"label": label, "config": _pretty(run.config), "env": _pretty(run.env)}
            for label, run in zip(run_names, runs, strict=True)
        ],
        differences=config_differences(runs),
        template=TEMPLATE.to_plotly_json(),
        css=_asset("report.css"),
        scripts=[_asset(name) for name in ("report.js", "samples.js")],
        plotly=Markup(get_plotlyjs()),
    )


@dataclasses.dataclass
class _Numbers:
    """Ids of the plots on the page."""

    last: int = 0

    def next(self) -> int:
        self.last += 1
        return self.last


def _placed(panels: Sequence[Panel], numbers: _Numbers) -> list[dict[str, Any]]:
    """Panels as the template wants them: plot specification as JSON, height, number."""
    out: list[dict[str, Any]] = []
    for panel in panels:
        spec = panel.figure.to_plotly_json()
        layout = {key: value for key, value in spec["layout"].items() if key != "template"}
        text = pio.to_json({"data": spec["data"], "layout": layout}, validate=False)
        out.append(
            {
                "id": numbers.next(),
                "title": panel.title,
                "note": panel.note,
                "height": int(layout.get("height") or 380),
                "spec": Markup(_escape_json(text or "{}")),
                "own_template": _own_template(panel.figure),
            }
        )
    return out


def _placed_section(section: Section, numbers: _Numbers) -> dict[str, Any]:
    """The headings of an experiment's plots move from the plot into the page, where they wrap on a phone."""
    panels: list[Panel] = []
    for original in section.figures:
        figure = go.Figure(original)
        title = html.unescape(re.sub(r"<[^>]*>", " ", str(figure.layout.title.text or ""))).strip()  # type: ignore[reportAttributeAccessIssue]
        figure.update_layout(title_text=None, width=None)
        panels.append(Panel(title, figure))
    return {"section": section, "panels": _placed(panels, numbers)}


def _placed_group(group: Group, numbers: _Numbers) -> dict[str, Any]:
    return {"group": group, "panels": _placed(group.panels, numbers)}


def _own_template(figure: go.Figure) -> Markup:
    """A template that an experiment chose on purpose; plotly's default gives way to the look of the page."""
    template = figure.layout.template.to_plotly_json()  # type: ignore[reportAttributeAccessIssue]
    default = pio.templates[pio.templates.default].to_plotly_json() if pio.templates.default else {}
    keep = template and template not in (default, TEMPLATE.to_plotly_json())
    return Markup(_escape_json(pio.to_json(template, validate=False) or "null")) if keep else Markup("null")


def _escape_json(text: str) -> str:
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline_json(value: Any) -> Markup:
    return Markup(json_for_html(value))


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) if value else ""


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _write_whole(out: Path, page: str) -> Path:
    """A reader, or a second writer, never sees half a page."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(page)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return out
