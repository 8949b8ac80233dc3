"""Which platform jax should start on a machine where libtpu is installed but no TPU is.

libtpu is what compiles for a pod that is not there (`maypole plan`). With it installed, jax looks for a TPU first, and where
there is none it writes lines that look like a broken machine before it goes on without.
"""

import importlib.util
import os
import pkgutil
from collections.abc import Mapping, MutableMapping
from importlib.metadata import entry_points
from pathlib import Path

from framework.errors import UserError

__all__ = ["has_tpu", "quiet_without_tpu", "require_libtpu"]

# Cloud TPU machines, their containers and notebooks say so in one of these.
_TPU_VARIABLES = (
    "TPU_NAME",
    "TPU_WORKER_ID",
    "TPU_WORKER_HOSTNAMES",
    "TPU_ACCELERATOR_TYPE",
    "TPU_TOPOLOGY",
    "TPU_CHIPS_PER_HOST_BOUNDS",
    "CLOUD_TPU_TASK_ID",
    "COLAB_TPU_ADDR",
)


def quiet_without_tpu(environ: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> bool:
    """Set JAX_PLATFORMS to what is there, if libtpu is installed, no TPU is, and nobody has chosen; returns whether it did.

    Call it before jax starts a backend. With an NVIDIA GPU and its plugin the GPU comes first; with a plugin that this
    function does not know, nothing is changed.
    """
    if "JAX_PLATFORMS" in environ or not _installed("libtpu") or has_tpu(environ, root):
        return False
    plugins = _plugins()
    if any("cuda" not in plugin for plugin in plugins):
        return False
    gpu = plugins and any((root / "dev" / name).exists() for name in ("nvidia0", "nvidiactl", "dxg"))  # dxg: Windows
    environ["JAX_PLATFORMS"] = "cuda,cpu" if gpu else "cpu"
    return True


def has_tpu(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """True if this machine has a TPU, by its device files or by what Cloud TPU sets."""
    devices = [*(root / "dev").glob("accel[0-9]*"), *(root / "dev/vfio").glob("[0-9]*")]
    return bool(devices) or any(environ.get(name) for name in _TPU_VARIABLES)


def require_libtpu() -> None:
    """A UserError if the compiler for TPUs is not installed."""
    if not _installed("libtpu"):
        raise UserError(
            "Planning for a TPU pod needs its compiler, the package libtpu (no TPU needed), which is not installed. "
            "Type: pip install 'maypole[plan]'"
        )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _plugins() -> set[str]:
    """Names of the platforms that are installed beside jax, found where jax looks for them. Nothing is imported."""
    namespace = importlib.util.find_spec("jax_plugins")
    paths = (namespace.submodule_search_locations if namespace else None) or ()
    return {module.name for module in pkgutil.iter_modules(paths)} | {
        entry.name for entry in entry_points(group="jax_plugins")
    }
