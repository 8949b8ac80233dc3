"""Every test runs on CPU with eight fake devices, so that meshes are tested on a laptop."""

import os
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAG = "--xla_force_host_platform_device_count=8"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()

# Nearly all of the time of these tests is compilation. LLVM's optimiser does little for tiny programs: it is asked for less; and
# compiled programs are kept, for the other worker, for the commands that tests start, and for the next time.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maypole" / "tests"
os.environ.setdefault("MAYPOLE_CACHE", str(_cache))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["MAYPOLE_CACHE"])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# A shell that starts this in the background makes it, and all programs that tests start and stop, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
