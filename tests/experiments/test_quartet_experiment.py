"""The Quartet experiment: what its arms share, what its claims are judged on, and a small run of everything `reproduce` does."""

import dataclasses
import json
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.token_files import TokenFiles
from experiments import _quartet_results, quartet
from experiments._quartet_grid import PARAMETERS
from experiments._quartet_law import PUBLISHED, Efficiency
from experiments._quartet_page import page
from experiments._quartet_ptq import WAYS
from experiments._quartet_report import fit_grid, gap, grid_points, sections
from experiments._quartet_results import collect, reproduce_claims, update_page
from experiments._quartet_training import OneCycle, QuartetArm, QuartetTraining
from framework.config import load_experiment
from framework.config_text import to_json
from framework.errors import UserError
from framework.rundata import load_run
from models.quant import FORWARD_ONLY, NAIVE, QUARTET, QUARTET_SR
from models.tokenizer import ByteTokenizer

FINAL = {"exact": 2.0, "quartet_rtn": 2.05, "quartet_sr": 2.06, "forward_only": 2.04, "naive": 2.2}


@pytest.fixture(autouse=True)
def fewer_numbers(monkeypatch):
    """The table of quantisers has tests of its own; what is collected here is quick."""
    measured = {"mse": 0.013, "mse_octave": 0.013, "misalignment": 0.0}
    row = dataclasses.make_dataclass("Row", measured)
    names = ("quest_nearest", "absmax_rtn", "absmax_sr")
    errors = {name: row(**measured | {"mse": 0.012 + 0.001 * i}) for i, name in enumerate(names)}
    found = dataclasses.make_dataclass("Found", ("bias", "cosine"))
    for module in ("experiments._quartet_results", "experiments._quartet_report"):
        monkeypatch.setattr(f"{module}.measure_quantisers", lambda seed: errors)
        monkeypatch.setattr(f"{module}.measure_gradients", lambda seed: {"rtn_random_signs": found(0.02, 0.98)})


def write_run(path, config, final, *, done=True):
    """A run whose arms end at these losses, evaluated at steps 0, 2 and 4."""
    path.mkdir(parents=True)
    stored = {"source": "test", "overrides": [], "config": to_json(config)}
    (path / "config.json").write_text(json.dumps(stored))
    (path / "env.json").write_text(json.dumps({"git": {"commit": "0123456789abcdef"}}))
    for arm in config.arms:
        folder = path / arm.name
        folder.mkdir()
        lines = [
            {"step": step, "time_s": step / 1.0, "eval/loss": final[arm.name] + (4 - step) / 10, "loss/total": 2.5}
            for step in (0, 2, 4)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if done:
            (folder / "done.json").write_text(json.dumps({"steps": 4}))
    return load_run(path, order=[arm.name for arm in config.arms])


def law_losses(law=PUBLISHED, efficiency=Efficiency(eff_n=0.7, eff_d=0.9)):  # noqa: B008 - frozen
    """What every arm of the grid would end at under a law."""
    found = {}
    for arm in quartet.grid.arms:
        assert arm.model is not None
        n = arm.model.parameter_count() - arm.model.vocab_size * arm.model.dim
        d = (arm.steps or 0) * quartet.grid.rows * quartet.grid.length
        found[arm.name] = float(law.loss(n, d, efficiency if arm.name.startswith("quartet") else Efficiency()))
    return found


def test_every_variant_is_valid_and_can_be_found_by_name():
    for name in ("tiny", "smoke", "grid", "smoke_grid", "paper"):
        config = load_experiment(f"quartet:{name}").config
        assert isinstance(config, QuartetTraining)
        config.validate()
        assert config == getattr(quartet, name)
    assert quartet.tiny.model.parameter_count() < 1e6
    quartet.smoke.build()


def test_the_papers_models_steps_and_rates_are_those_it_names():
    for name, model in quartet.LLAMA.items():
        assert model.parameter_count() - 2 * model.vocab_size * model.dim == PARAMETERS[name]
    arms = quartet.paper_arms(sizes=("30M", "200M"), ratios=(25, 100), rules=("exact", "quartet_sr"))
    assert [arm.name for arm in arms][:3] == ["exact_30M_r25", "quartet_sr_30M_r25", "exact_30M_r100"]
    assert [arm.steps for arm in arms[::2]] == [2861, 11444, 19073, 76293]
    assert [arm.optimizer for arm in arms[::4]] == [OneCycle(lr=1.2e-3), OneCycle(lr=3e-4)]
    assert arms[1].quant == QUARTET_SR
    assert {arm.name.rsplit("_", 2)[0] for arm in quartet.paper.arms} == {
        "exact",
        "quartet_rtn",
        "forward_only",
        "backward_only",
    }


def test_arms_differ_in_how_products_are_quantised_and_in_nothing_else():
    trainings = [quartet.tiny.training(arm) for arm in quartet.tiny.arms]
    assert [training.quant for training in trainings] == [None, QUARTET, QUARTET_SR, FORWARD_ONLY, NAIVE]
    assert all(dataclasses.replace(training, quant=None) == trainings[0] for training in trainings)
    exact, other = (quartet.smoke.training(arm).build().init()[0] for arm in quartet.smoke.arms[:2])
    chex.assert_trees_all_equal(jax.tree.leaves(exact), jax.tree.leaves(other))


def test_the_rate_is_that_of_torchs_one_cycle():
    import torch

    steps = 200
    config = OneCycle(lr=1.2e-3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    wanted = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.2e-3, total_steps=steps, pct_start=0.1, div_factor=1e2, final_div_factor=0.1, cycle_momentum=False
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        wanted.step() if len(rates) < steps else None
    got = config.learning_rate(steps)(jnp.arange(steps))
    # float32 against float64, and the cosine loses digits near its turning points
    np.testing.assert_allclose(got, rates, rtol=2e-5)
    with pytest.raises(UserError, match=r"warmup=1\.5"):
        OneCycle(warmup=1.5).build(steps)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ()}, "one or more arms of different names"),
        ({"arms": (QuartetArm(name="a"), QuartetArm(name="a", quant=QUARTET))}, "one or more arms of different names"),
        ({"rows": 3, "length": 20}, "groups of 32 tokens"),
    ],
)
def test_what_cannot_be_trained_says_so_before_it_begins(change, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(quartet.smoke, **change).validate()
    with pytest.raises(UserError, match=r"no arm 'b'\. It has: exact"):
        quartet.smoke.arm("b")


def test_claims_are_judged_on_what_the_runs_and_the_law_say(tmp_path):
    better = FINAL | {"quartet_rtn": 2.07, "forward_only": 2.08}
    runs = {seed: write_run(tmp_path / str(seed), quartet.tiny, (FINAL, better)[seed]) for seed in (0, 1)}
    grid_run = write_run(tmp_path / "grid", quartet.grid, law_losses())
    after = {seed: {"after_quest": 2.3 + seed} for seed in runs}
    results = collect(runs, grid_run, quartet.claims, list(FINAL), after)
    json.dumps(results, allow_nan=False)
    held = {claim["name"]: claim["holds"] for claim in results["claims"]}
    assert held == {
        "eff_n_of_quest": True,
        "eff_d_of_sr": True,
        "eff_d_of_rtn": True,
        "law_is_refitted": True,
        "quest_has_the_least_error": True,
        "sr_is_aligned": True,
        "quartet_costs_something": True,
        "quartet_beats_naive": True,
        "forward_costs_less": False,  # on one of two seeds
        "quartet_beats_rounding_afterwards": True,
        "rtn_no_worse_than_sr": False,
    }
    assert results["arms"]["naive"]["mean"]["gap"]["mean"] == pytest.approx(0.2)
    assert results["rtn_minus_sr"]["mean"]["final_loss"]["mean"] == pytest.approx(0.0)
    assert results["grid"]["efficiencies"]["quartet_rtn"] == pytest.approx({"eff_n": 0.7, "eff_d": 0.9}, abs=1e-3)
    assert results["after_training"]["after_quest"]["mean"]["gap"]["mean"] == pytest.approx(0.8)
    text = page(results)
    assert "| after_quest | 2.8000 ±" in text
    assert all(f"| {arm} |" in text for arm in FINAL)
    assert "the two do not separate at this scale" in text
    assert "| effN of QuEST forward, effD = 1 | 0.643 | 0.64 |" in text
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- results -->\nstale\n<!-- end of results -->\nafter\n")
    update_page(file, results)
    assert file.read_text() == f"before\n<!-- results -->\n{text}<!-- end of results -->\nafter\n"


def test_arms_that_were_not_run_are_not_claimed_about(tmp_path):
    config = dataclasses.replace(quartet.tiny, arms=quartet.tiny.arms[:2])
    run = write_run(tmp_path / "run", config, FINAL)
    grid_run = write_run(
        tmp_path / "grid", quartet.smoke_grid, dict.fromkeys((a.name for a in quartet.smoke_grid.arms), 2.0)
    )
    results = collect({0: run}, grid_run, quartet.claims, ["exact", "quartet_rtn"], {})
    names = {claim["name"] for claim in results["claims"]}
    assert "quartet_costs_something" in names
    assert not names & {
        "quartet_beats_naive",
        "forward_costs_less",
        "rtn_no_worse_than_sr",
        "quartet_beats_rounding_afterwards",
    }
    assert results["rtn_minus_sr"] is None
    assert results["grid"]["law"] is None  # two runs for six coefficients
    assert "| quartet_rtn | 2 | 0.0000 | – | – |" in page(results)


def test_a_gap_is_taken_at_the_steps_both_were_evaluated_at(tmp_path):
    run = write_run(tmp_path / "run", quartet.tiny, FINAL)
    file = tmp_path / "run/naive/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    del lines[1]["eval/loss"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = load_run(tmp_path / "run")
    steps, values = gap(run.stage("naive"), run.stage("exact"))
    assert steps.tolist() == [0, 4]
    assert values == pytest.approx([0.2, 0.2])


def test_the_grid_counts_parameters_without_embeddings_and_leaves_out_what_is_not_done(tmp_path):
    run = write_run(tmp_path / "grid", quartet.grid, law_losses())
    points = grid_points(run)
    assert {rule: len(grid) for rule, grid in points.items()} == {"exact": 9, "quartet_rtn": 9}
    first = quartet.grid.arms[0]
    assert first.model is not None
    assert points["exact"].parameters[0] == first.model.parameter_count() - 272 * first.model.dim
    assert points["exact"].tokens[0] == 100 * 16 * 128
    fit = fit_grid(points)
    assert fit is not None
    assert fit.error < 1e-6
    (tmp_path / "grid" / first.name / "done.json").unlink()
    assert len(grid_points(load_run(tmp_path / "grid"))["exact"]) == 8
    assert fit_grid({"exact": points["exact"].of_size(points["exact"].parameters[0])}) is None


def test_the_report_has_gaps_or_the_grid_and_both_times_law_and_quantisers(tmp_path):
    runs = [write_run(tmp_path / name, quartet.tiny, FINAL) for name in ("a", "b")]
    grid_run = write_run(tmp_path / "grid", quartet.grid, law_losses())
    always = ["The law on the published losses", "The quantisers"]
    assert [section.title for section in sections(runs[:1])] == ["What four bits cost", *always]
    assert [section.title for section in sections([grid_run])] == ["The law at home", *always]
    assert sections([]) == []
    cost = sections(runs)[0]
    assert len(cost.figures) == 2
    assert cost.table is not None
    found = {str(row[0]): row[2] for row in cost.table.rows}
    assert {name.rpartition("/")[2]: value for name, value in found.items()} == pytest.approx(
        {name: loss - 2.0 for name, loss in FINAL.items()}
    )


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page_file = Path(__file__).resolve().parents[2] / "docs/papers/quartet.md"
    scope: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page_file.read_text(), re.MULTILINE | re.DOTALL):
        exec(block, scope)
    assert capsys.readouterr().out == "effN 0.60, effD 0.90\n"
    ByteTokenizer(tags=()).build().save(tmp_path / "tokenizer")
    documents = [{"text": f"document {i} " * 20} for i in range(9)]
    monkeypatch.setitem(scope, "load_dataset", lambda *_, **__: documents)
    scope["write_c4"](tmp_path, str(tmp_path / "tokenizer"), heldout=3)
    source = TokenFiles(train=str(tmp_path / "train.bin"), heldout=str(tmp_path / "val.bin"), heldout_batches=1)
    data = source.build(ByteTokenizer(tags=()).build(), rows=2, length=64, seed=0, say=lambda text: None)
    assert data.epoch_steps > 1.9 * len(data.heldout)  # six documents to three


@pytest.mark.slow
def test_reproduce_measures_every_arm_and_keeps_what_is_finished(tmp_path, monkeypatch):
    results, page_file = tmp_path / "results/quartet.json", tmp_path / "page.md"
    page_file.write_text("<!-- results -->\n<!-- end of results -->\n")
    for name, value in {"RESULTS": results, "PAGE": page_file, "SEEDS": (0,)}.items():
        monkeypatch.setattr(_quartet_results, name, value)
    ask = {"out": tmp_path / "runs", "results": results, "seeds": (0,)}
    reproduce_claims(quartet.smoke, quartet.smoke_grid, quartet.claims, **ask)
    first = json.loads(results.read_text())
    assert set(first["arms"]) == {arm.name for arm in quartet.smoke.arms}
    assert all(np.isfinite(arm["seeds"]["0"]["final_loss"]) for arm in first["arms"].values())
    assert first["arms"]["quartet_rtn"]["seeds"]["0"]["gap"] != 0  # quantised in training and evaluation
    after = {name: entry["seeds"]["0"] for name, entry in first["after_training"].items()}
    assert after.keys() == WAYS.keys()
    assert all(0 < abs(entry["gap"]) < 0.1 for entry in after.values())  # quantised, the same model, the same text
    assert (tmp_path / "runs/report.html").is_file()
    assert page(first) in page_file.read_text()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/metrics.jsonl")}
    assert len(stamps) == len(quartet.smoke.arms) + len(quartet.smoke_grid.arms)
    reproduce_claims(quartet.smoke, quartet.smoke_grid, quartet.claims, **ask)  # nothing is trained again
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert json.loads(results.read_text())["arms"] == first["arms"]
    from framework.rundir import RunDir

    run = RunDir.open(tmp_path / "runs/seed-0")
    texts = quartet.smoke.policy(run.stage("quartet_rtn")).generate(
        ["import "], samples=2, temperature=1.0, max_tokens=4, seed=0
    )
    assert len(texts[0]) == 2
    quartet.smoke.export(run.stage("quartet_rtn"), tmp_path / "hf", dtype="float32", shard_size=10**9)
    assert (tmp_path / "hf/model.safetensors").is_file()
    assert ByteTokenizer(tags=()).build().vocab_size <= quartet.smoke.model.vocab_size
