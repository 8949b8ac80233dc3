"""Job files: what they say, that they parse, and that every word arrives at the program as it was typed."""

import os
import subprocess
import types

import pytest
import yaml

from framework.cli import main
from framework.errors import UserError
from framework.launch import Job, check_mesh, parse_topology, render

TOY = "tests/framework/fixtures/toy_experiment.py:config"


def launch(capsys, *words):
    code = main(["launch", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("text", "hosts", "chips", "xpk"),
    [
        ("v5p:4x4x4", 16, 64, "v5p-128"),  # named after its cores, two a chip
        ("v4:2x2x2", 2, 8, "v4-16"),
        ("v5e:2x4", 1, 8, "v5litepod-8"),  # one machine of eight
        ("v5e:4x4", 4, 16, "v5litepod-16"),
        ("v6e:16x16", 64, 256, "v6e-256"),
    ],
)
def test_a_topology_says_how_many_hosts_and_what_xpk_calls_it(text, hosts, chips, xpk):
    found = parse_topology(text)
    assert (found.hosts, found.chips, found.xpk) == (hosts, chips, xpk)


@pytest.mark.parametrize("text", ["v5p", "v5p:4x4", "v9:2x2", "v5e:0x4", "v5e:3x3", "h100:8", "v5e:4x4x4", "v5p:4xax4"])
def test_a_topology_that_does_not_exist_is_refused_with_one_that_does(text):
    with pytest.raises(UserError, match=r"v5e:4x4|v5p:4x4x4"):
        parse_topology(text)


def test_the_jobset_parses_and_starts_one_pod_a_host(capsys):
    code, out, _ = launch(
        capsys, TOY, "--on", "gke", "--topology", "v5p:4x4x4", "--image", "repo/img:1", "--name", "my-run", "--print"
    )
    assert code == 0
    jobset = yaml.safe_load(out)
    assert jobset["kind"] == "JobSet"
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 16
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    container = pod["containers"][0]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    env = {item["name"]: item["value"] for item in container["env"]}
    assert env["MAYPOLE_COORDINATOR"] == "my-run-hosts-0-0.my-run:8476"  # the name JobSet gives to the first pod
    assert env["MAYPOLE_PROCESSES"] == "16"
    # A mistake (exit code 2) is not tried again; a lost host (75) is.
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    assert container["volumeMounts"][0]["mountPath"] == "/runs"


def test_a_jobset_for_gpus_asks_for_gpus(capsys):
    _, out, _ = launch(
        capsys, TOY, "--on", "gke", "--nodes", "2", "--gpu-type", "nvidia-h100-80gb", "--name", "g", "--print"
    )
    pod = yaml.safe_load(out)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}


NASTY = """--rollout.stop=a b"c'd$HOME`e`: #f\\"""


def run_with_fakes(tmp_path, script, fakes, env=None, check=True):
    """Run a job file with small programs in place of the cluster's; each logs its words, a line a word."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, body in fakes.items():
        file = bin_dir / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    (tmp_path / "job").write_text(script)
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), **(env or {})}
    done = subprocess.run(["bash", str(tmp_path / "job")], env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done, (tmp_path / "log").read_text().splitlines()


def job(**more):
    return Job(name="a", spec="x:y", overrides=(NASTY,), hosts=2, devices_per_host=4, **more)


def test_every_word_arrives_unchanged_through_the_jobset_yaml(tmp_path):
    pods = yaml.safe_load(render(job(slice=parse_topology("v5e:2x8")), "gke"))
    script = pods["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    fake = 'printf "%s\\n" "$MAYPOLE_PROCESS_ID" "$@" >> "$LOG"'
    _, log = run_with_fakes(tmp_path, script, {"maypole": fake}, {"JOB_COMPLETION_INDEX": "7"})
    assert log == ["7", "run", "x:y", "--name", "a", "--dir", "/runs", "--or-resume", NASTY]


def test_every_word_arrives_unchanged_through_slurm(tmp_path):
    fakes = {
        "scontrol": "echo node-3; echo node-4",
        # srun drops its own options and runs the rest, as task 1
        "srun": 'while [[ "$1" == --* ]]; do shift; done; SLURM_PROCID=1 "$@"',
        "maypole": 'printf "%s\\n" "$MAYPOLE_COORDINATOR" "$MAYPOLE_PROCESSES" "$MAYPOLE_PROCESS_ID" "$@" >> "$LOG"',
    }
    env = {"SLURM_JOB_ID": "5", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[3-4]"}
    _, log = run_with_fakes(tmp_path, render(job(), "slurm"), fakes, env)
    assert log[:3] == ["node-3:20320", "2", "1"]
    assert log[3:] == ["run", "x:y", "--name", "a", "--dir", "/runs", "--or-resume", NASTY]


@pytest.mark.parametrize(
    ("code", "tries", "requeued"), [(75, 3, False), (137, 3, False), (2, 1, False), (1, 1, False), (143, 1, True)]
)
def test_slurm_tries_again_after_a_lost_host_and_not_after_a_mistake(tmp_path, code, tries, requeued):
    fakes = {
        "scontrol": 'echo "$1" >> "$LOG"; echo node-3',
        "srun": f'echo srun >> "$LOG"; exit {code}',
    }
    env = {"SLURM_JOB_ID": "5", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[3-4]"}
    done, log = run_with_fakes(tmp_path, render(job(restarts=2), "slurm"), fakes, env, check=False)
    assert done.returncode == code
    assert log.count("srun") == tries
    assert ("requeue" in log) == requeued


def test_every_word_arrives_unchanged_through_xpk(tmp_path):
    script = render(job(slice=parse_topology("v5e:2x8"), image="repo/img:1"), "xpk")
    # xpk hands --command to a shell in the pod
    fakes = {
        "xpk": 'while [[ "$1" != --command ]]; do shift; done; bash -c "$2"',
        "maypole": 'printf "%s\\n" "$@" >> "$LOG"',
    }
    _, log = run_with_fakes(tmp_path, script, fakes, {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z"})
    assert log[:9] == ["run", "x:y", "--name", "a", "--dir", "/runs", "--or-resume", NASTY, "--distributed"]


@pytest.mark.parametrize("target", ["gke", "xpk", "slurm"])
def test_every_template_is_in_the_package_and_no_shell_finds_fault_with_it(target, tmp_path):
    piece = None if target == "slurm" else parse_topology("v6e:4x4")
    text = render(job(slice=piece), target)
    if target == "gke":
        assert yaml.safe_load(text)
    else:
        (tmp_path / "job.sh").write_text(text)
        assert subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], capture_output=True).stderr == b""


def test_without_print_nothing_is_started_and_the_message_says_what_to_type(capsys):
    code, out, err = launch(capsys, TOY, "--on", "slurm", "--nodes", "2", "--name", "a")
    assert (code, out) == (2, "")
    assert "--print shows the job file, --out FILE writes it" in err


def test_out_writes_the_file_and_says_how_to_start_it(capsys, tmp_path):
    file = tmp_path / "job.sh"
    code, out, err = launch(capsys, TOY, "--on", "slurm", "--nodes", "2", "--name", "a", "--out", str(file))
    assert (code, out) == (0, "")
    assert f"sbatch {file}" in err
    assert "#SBATCH --nodes=2" in file.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "slurm", "--topology", "v5p:4x4x4", "--print"], "use --nodes N"),
        (["--on", "xpk", "--nodes", "2", "--print"], "say which with --topology"),
        (["--on", "gke", "--print"], "Say how large"),
        (["--on", "slurm", "--nodes", "0", "--print"], "--nodes is too small"),
        (["--on", "slurm", "--nodes", "2", "--name", "My_Run", "--print"], "--name my-run"),
        (["--on", "slurm", "--nodes", "2", "--name", "a", "--stepz", "3", "--print"], "stepz"),
        (["--on", "slurm", "--nodes", "2", "--name", "a", "--time", "a day", "--print"], "such as 24:00:00"),
    ],
)
def test_a_mistake_is_refused_with_what_to_type(capsys, words, message):
    code, out, err = launch(capsys, TOY, *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_mesh_that_does_not_fit_the_devices_is_refused_before_the_pod_is_up(capsys):
    code, _, err = launch(capsys, "entropy_mechanism", "--on", "slurm", "--nodes", "2", "--print")
    assert code == 2
    assert "takes 1 device, and there are 16. Add --mesh.fsdp -1" in err
    assert launch(capsys, "entropy_mechanism", "--on", "slurm", "--nodes", "2", "--mesh.fsdp", "-1", "--print")[0] == 0


@pytest.mark.parametrize("mesh", [{"data": -1, "fsdp": 0}, {"data": -1, "fsdp": -1}, {"fsdp": -2}], ids=str)
def test_sizes_that_are_no_mesh_are_refused(mesh):
    from framework.mesh import MeshConfig

    with pytest.raises(UserError, match="is not a mesh"):
        check_mesh(types.SimpleNamespace(mesh=MeshConfig(**mesh)), 16)


def test_a_mesh_of_the_right_size_passes():
    from framework.mesh import MeshConfig

    class Config:
        mesh = MeshConfig(fsdp=-1, tensor=4)

    check_mesh(Config(), 64)
    with pytest.raises(UserError, match="there are 6"):
        check_mesh(Config(), 6)


def test_help_says_units_and_defaults(capsys):
    code, out, _ = launch(capsys, "--help")
    assert code == 0
    for text in ("default: 8", "hours:minutes:seconds", "v5p:4x4x4", "default: 10"):
        assert text in " ".join(out.split())
