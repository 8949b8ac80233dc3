"""The notebooks: committed clean, and the quickstart does from top to bottom what it says."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "experiments/notebooks").glob("*.ipynb"))
QUICKSTART = ROOT / "experiments/notebooks/quickstart.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"


def cells_of(notebook):
    """The code cells of a notebook file."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_committed_without_outputs_and_compiles(notebook):
    from IPython.core.inputtransformer2 import TransformerManager

    for number, cell in enumerate(cells_of(notebook)):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = TransformerManager().transform_cell("".join(cell["source"]))  # !command and %magic become Python
        compile(source, f"{notebook.name}, code cell {number}", "exec")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The quickstart, run in an empty folder by a kernel of its own: the outputs of its code cells, and its runs."""
    import nbformat
    from nbclient import NotebookClient

    folder, home = tmp_path_factory.mktemp("quickstart"), tmp_path_factory.mktemp("jupyter")
    own = {name: str(home) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}  # nobody's settings
    env = os.environ | own | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    for name in ("XLA_FLAGS", "PLOTLY_RENDERER"):  # one device, as it will be for who opens it
        env.pop(name, None)
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client = NotebookClient(notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        client.execute(env=env)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return SimpleNamespace(cells=cells, outputs=[out for cell in cells for out in cell.outputs], runs=folder / "runs")


def metrics(stage):
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_cell_runs_without_an_error(executed):
    assert all(cell.execution_count for cell in executed.cells)
    assert not [out for out in executed.outputs if out.output_type == "error"]
    assert not [out.text for out in executed.outputs if out.output_type == "stream" and "Traceback" in out.text]


@pytest.mark.slow
def test_the_runs_and_their_reports_are_there(executed):
    stages = {"first": ("warm_start", "unclipped", "kl_cov"), "mine": ("warm_start", "cispo")}
    assert {path.name for path in executed.runs.iterdir()} == set(stages)
    for run, names in stages.items():
        page = (executed.runs / run / "report.html").read_text(encoding="utf-8")
        assert all((executed.runs / run / name / "done.json").is_file() for name in names)
        assert all(name in page for name in names[1:])


@pytest.mark.slow
def test_the_tables_and_the_plots_are_shown(executed):
    shown = [out.data for out in executed.outputs if out.output_type in ("display_data", "execute_result")]
    tables = [data["text/plain"] for data in shown if "Held-out accuracy" in data.get("text/plain", "")]
    assert [[arm in table for arm in ("unclipped", "kl_cov", "cispo")] for table in tables] == [[1, 1, 0], [0, 0, 1]]
    plots = [data[PLOTLY] for data in shown if PLOTLY in data]
    drawn = [{trace["name"] for trace in plot["data"] if len(trace["x"]) > 1} for plot in plots]
    alone, together = {"unclipped", "kl_cov"}, {"first/unclipped", "first/kl_cov", "mine/cispo"}
    assert drawn == [alone, alone, together, together]
    titles = [plot["layout"]["title"]["text"] for plot in plots]
    assert titles == ["eval/accuracy", "policy/entropy", "eval/accuracy", "eval/length"]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["unclipped", "kl_cov"])
def test_reward_alone_raises_accuracy_above_the_warm_start(executed, arm):
    """Avg@8 on 48 questions that no batch contains: from 46 % to 66 (unclipped) and 56 % (KL-Cov) on this seed."""
    warm = metrics(executed.runs / "first/warm_start")[-1]["eval/accuracy"]
    before, *_, after = metrics(executed.runs / "first" / arm)
    assert before["eval/accuracy"] == warm  # both arms begin there
    assert after["step"] == 40
    assert after["eval/accuracy"] > warm + 0.08


@pytest.mark.slow
def test_the_own_loss_and_the_own_reward_are_what_was_trained_with(executed):
    run = executed.runs / "mine"
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["arms"][0]["loss"] == {"__type__": "CISPO", "eps_hi": 0.2}
    assert config["reward"] == "__main__:short_and_right"
    _, *steps = metrics(run / "cispo")
    assert [line["step"] for line in steps] == list(range(1, 41))
    assert any(line["loss/clip_frac"] > 0 for line in steps)  # its own metric, and tokens that its clip touched
    assert all(line["grad/norm"] > 0 for line in steps)
    assert not any(line[f"reward/{kind}"] for line in steps for kind in ("errors", "timeouts", "nonfinite"))
    samples = [json.loads(line) for line in (run / "cispo/samples.jsonl").read_text().splitlines()]
    paid = [line for line in samples if line["split"] == "train" and line["reward"] > 0]
    assert paid
    assert [line["reward"] for line in paid] == pytest.approx([1 - 0.01 * len(line["response"]) for line in paid])
