"""Real compilations by libtpu for pods that are not there: memory, FLOPs, what does not fit and what helps."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from framework.chips import CHIPS, Topology
from framework.cli_plan import DOES_NOT_FIT, plan_command
from framework.config import load_experiment
from framework.errors import UserError
from framework.mesh import MeshConfig
from framework.plan import Planner

STACK = Path(__file__).parent / "fixtures" / "plan_experiment.py"
TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"
ROOT = Path(__file__).resolve().parents[2]
V5E = Topology.parse("v5e:2x4")
CHIP = V5E.chip
HUGE = ["--rows", "4194304", "--keeps", "4"]  # 31 GiB on each device of 15.75


@pytest.fixture(scope="module")
def stack():
    return load_experiment(str(STACK)).config


@pytest.fixture(scope="module")
def planned(stack):
    """Sharded over eight devices without any work done twice."""
    config = dataclasses.replace(stack, mesh=MeshConfig(fsdp=8))
    return config, Planner(V5E).plan(config).programs[0]


def test_arguments_are_what_their_shardings_leave_on_a_device(planned):
    config, program = planned
    weights = 6 * config.dim**2 * 4
    assert program.memory.arguments["parameters"] == weights // 8
    assert program.memory.arguments["optimizer"] == weights // 8 + 4  # momentum, and the number of the step
    assert program.memory.arguments["batch"] == config.rows * config.dim * 4 // 8
    # The layout rounds small arrays up to tiles: never below the shapes, and here by a few KiB at most.
    assert 0 <= program.memory.padding < 16 * 2**10
    assert program.memory.outputs < 2**10  # the state is donated: its results take over its memory
    assert program.fits


def test_a_loop_counts_as_often_as_it_turns(planned):
    config, program = planned
    assert program.cost.notes == ()
    # Forward, and the gradients of input and weight: 2 FLOPs a weight and row each, in each of the 6 layers.
    exact = 6 * 6 * config.dim**2 * config.rows / 8
    assert program.cost.flops == pytest.approx(exact, rel=1e-6)
    assert program.cost.flops == pytest.approx(program.model_flops / 8, rel=1e-6)
    assert program.xla_flops < exact / 3  # the reason for counting ourselves


def test_weights_of_other_devices_are_fetched_in_every_layer(planned):
    config, program = planned
    gathers = program.cost.collectives["all-gather"]
    # 7 of 8 shards come from elsewhere, once forwards and once backwards. Halved if the compiler sends bfloat16, as it may for
    # a product that is computed in it; small arrays beside them make the sum a little larger.
    least = 6 * config.dim**2 * 2 * 7 / 8
    assert least <= gathers.bytes_sent <= 5 * least
    assert gathers.calls >= 6


def test_times_follow_from_the_figures_of_the_chip(planned):
    _, program = planned
    bounds = program.bounds(CHIP)
    assert bounds["compute"] == pytest.approx(program.cost.flops / 197e12)
    assert program.roofline_s(CHIP) == max(bounds.values())
    assert program.mfu(CHIP, 8) == pytest.approx(program.model_flops / 8 / CHIP.flops / max(bounds.values()))
    assert 0 < program.mfu(CHIP, 8) < 1


def test_what_is_on_the_device_beforehand_may_already_be_too_much(stack):
    config = dataclasses.replace(stack, dim=2**16)  # 6 x 16 GiB of weights, as much momentum, over eight devices
    program = Planner(V5E).plan(config).programs[0]
    assert not program.fits
    assert program.cost is None
    assert "not compiled" in program.notes[0]


def test_the_command_tries_what_the_experiment_proposes_and_names_the_first_that_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = plan_command([str(STACK), "--topology", "v5e:2x4", "--out", "plan.json", *HUGE])
    said = capsys.readouterr().out
    assert code == DOES_NOT_FIT
    assert "Does not fit: train step needs 31.00 GiB on each device, 15.75 can be used." in said
    assert f"Type: maypole plan {STACK} --topology v5e:2x4 {' '.join(HUGE)} --parts 16" in said
    saved = json.loads(Path("plan.json").read_text())
    assert [(tried["overrides"], tried["fits"]) for tried in saved["remedies"]] == [
        (["--parts", "2"], False),
        (["--parts", "16"], True),
    ]
    # Activations of 6 layers that are kept: four in float32 for the sines, one in bfloat16 for the product.
    assert saved["programs"][0]["largest_buffers"][0] == {
        "bytes": 6 * 2**30,
        "kind": "temporary",
        "shape": "f32[6,1048576,256]",
        "what": saved["programs"][0]["largest_buffers"][0]["what"],
        "source": saved["programs"][0]["largest_buffers"][0]["source"],
    }
    assert "plan_experiment.py:" in saved["programs"][0]["largest_buffers"][0]["source"]


def test_remedies_are_asked_for_with_the_devices_that_an_axis_of_minus_one_gets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--mesh.fsdp",
        "-1",
        "--dim",
        "65536",
        "--out",
        "plan.json",
    ]  # matrices that alone are too large: nothing compiles
    assert plan_command([str(STACK), "--topology", "v5e:2x4", *words]) == DOES_NOT_FIT
    assert [tried["fits"] for tried in json.loads(Path("plan.json").read_text())["remedies"]] == [False, False]


def test_a_plan_that_fits_is_saved_under_the_names_of_experiment_and_topology(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plan_command([str(STACK), "--topology", "v5e:2x4", "--rows", "128"]) == 0
    out = capsys.readouterr().out
    saved = json.loads(Path("runs/plans/plan_experiment-v5e-2x4.json").read_text())
    assert saved["fits"]
    assert saved["overrides"] == ["--rows", "128"]
    assert saved["programs"][0]["tokens"] == 128
    assert saved["programs"][0]["memory"]["total"] < saved["programs"][0]["memory"]["usable"]
    for line in ("  rows: 64 -> 128", "parameters", "temporaries", "tokens/s at most", "Fits: train step needs most"):
        assert line in out


def test_a_quick_plan_says_the_same_but_for_the_machine_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole, quick = [], []
    for said, words in ((whole, []), (quick, ["--quick"])):
        assert plan_command([str(STACK), "--topology", "v5e:2x4", "--out", "plan.json", *words]) == 0
        said += json.loads(Path("plan.json").read_text())["programs"]
    (a,), (b,) = whole, quick
    assert a["memory"].pop("code") > 0
    assert b["memory"].pop("code") == 0
    for memory in (a["memory"], b["memory"]):
        memory.pop("total")
    # Constants and the gaps between allocations come on top when the program is loaded: a few KiB.
    assert a["memory"].pop("temporaries") == pytest.approx(b["memory"].pop("temporaries"), abs=64 * 2**10)
    for name in ("memory", "largest_buffers", "flops", "hbm_bytes", "collectives", "fits"):
        assert a[name] == b[name], name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "v5x:2x4"], "there is no family 'v5x'"),
        (["--topology", "v5p:4x4"], "grid of 3 numbers, v5p:AxBxC. For instance: v5p:2x2x1"),
        (["--topology", "v5e"], "grid of 2 numbers"),
        (["--topology", "v5e:64x64"], "the largest TPU v5e pod has 256"),
        (["--topology", "v5e:3x5"], "libtpu does not know this shape"),
        ([], "For which pod?"),
        (
            ["--topology", "v5e:4x4"],
            "uses 8 chips, but v5e:4x4 has 16. Use --mesh.fsdp 8, or plan for 8 chips: --topology v5e:2x4.",
        ),
        (["--topology", "v5e:2x4", "--mesh.tensor", "3"], "Use --mesh.fsdp 8 --mesh.tensor 1"),
        (["--topology", "v5e:2x4", "--only", "decode"], "no program is called so. There are: 'train step'"),
        (["--topology", "v5e:2x4", "--tries", "-1"], "--tries -1"),
        (["--topology", "v5e:2x4", "--row", "3"], "Did you mean rows"),
    ],
)
def test_mistakes_say_what_to_type(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        plan_command([str(STACK), *words])
    assert message in str(error.value)


def test_an_experiment_without_programs_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Toy cannot be planned: .* programs\(mesh\) and remedies\(failing\)"):
        plan_command([str(TOY), "--topology", "v5e:2x4"])


def test_without_libtpu_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("framework.platforms._installed", lambda module: False)
    with pytest.raises(UserError, match=r"pip install 'maypole\[plan\]'"):
        plan_command([str(STACK), "--topology", "v5e:2x4"])


@pytest.mark.parametrize("family", CHIPS)
def test_every_family_compiles_and_its_limit_is_the_compilers_own(family, stack):
    topology = Topology.parse(f"{family}:{CHIPS[family].examples[0]}")
    config = dataclasses.replace(stack, rows=2**25, keeps=8, mesh=MeshConfig(fsdp=topology.chips))
    program = Planner(topology).plan(config).programs[0]
    assert not program.fits
    assert any("the compiler refused it" in note for note in program.notes)
    # The compiler rounds what it says to 0.01 GiB.
    assert program.usable == pytest.approx(topology.chip.usable_hbm, abs=0.011 * 2**30)


@pytest.mark.slow
def test_two_plans_at_the_same_time_and_nothing_but_the_plan_is_printed(tmp_path):
    words = [sys.executable, "-c", "import sys; from framework.cli_plan import *; sys.exit(plan_command(sys.argv[1:]))"]
    words += [str(STACK), "--topology", "v5e:2x4"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    processes = [
        subprocess.Popen(
            [*words, "--out", f"{n}.json"],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for n, process in enumerate(processes):
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.splitlines()[-1] == f"{n}.json"
