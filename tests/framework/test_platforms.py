"""The platform is chosen only where libtpu is installed, no TPU is, and nobody has chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framework import platforms
from framework.platforms import quiet_without_tpu


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with libtpu and nothing else."""
    monkeypatch.setattr(platforms, "_installed", lambda module: module == "libtpu")
    monkeypatch.setattr(platforms, "_plugins", set)
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_a_machine_without_accelerator_uses_its_cpu(bare):
    environ = {}
    assert quiet_without_tpu(environ, bare)
    assert environ == {"JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize("environ", [{"JAX_PLATFORMS": ""}, {"JAX_PLATFORMS": "tpu"}, {"TPU_NAME": "pod"}])
def test_what_is_set_is_left_alone(bare, environ):
    before = dict(environ)
    assert not quiet_without_tpu(environ, bare)
    assert environ == before


@pytest.mark.parametrize("device", ["accel0", "vfio/0"])
def test_a_tpu_is_left_to_jax(bare, device):
    path = bare / "dev" / device
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert not quiet_without_tpu({}, bare)


def test_without_libtpu_nothing_is_changed(bare, monkeypatch):
    monkeypatch.setattr(platforms, "_installed", lambda module: False)
    assert not quiet_without_tpu({}, bare)


@pytest.mark.parametrize(
    ("plugins", "device", "chosen"),
    [
        ({"xla_cuda13"}, "nvidia0", "cuda,cpu"),
        ({"xla_cuda13"}, None, "cpu"),
        (set(), "nvidia0", "cpu"),  # jax cannot use it without the plugin
        ({"xla_rocm7"}, None, None),
        ({"xla_cuda13", "other"}, "nvidia0", None),
    ],
)
def test_a_gpu_comes_first_and_plugins_we_do_not_know_decide_themselves(bare, monkeypatch, plugins, device, chosen):
    monkeypatch.setattr(platforms, "_plugins", lambda: plugins)
    if device:
        (bare / "dev" / device).touch()
    environ: dict[str, str] = {}
    assert quiet_without_tpu(environ, bare) == (chosen is not None)
    assert environ.get("JAX_PLATFORMS") == chosen


def test_jax_starts_on_the_cpu_without_a_word():
    if platforms.has_tpu(os.environ) or any(Path("/dev").glob("nvidia*")):
        pytest.skip("this machine has an accelerator")
    code = "from framework.platforms import quiet_without_tpu; quiet_without_tpu(); import jax; print(jax.devices()[0].platform)"
    environ = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("cpu\n", "")
