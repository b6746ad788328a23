"""The NVIDIA driver of this machine, asked through its own library, and NVIDIA's compatibility library where that driver is too old for the wheels.

Wheels for CUDA 13 need the driver 580. An L4 of Cloud Run has 535 (CUDA 12.2): there the package cuda-compat brings a newer libcuda, which works on
data-centre cards. Loaded beside a driver that is as new as itself it fails with error 803, so the choice is made at every start.

    python3 -m runners.cloud_run.driver
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from runners.errors import UserError

#: Where images/Dockerfile puts the package's libraries.
COMPAT = Path("/usr/local/cuda/compat")
_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Driver:
    """``cuda`` is the newest CUDA that the driver knows; ``capability`` is the first card's."""

    cuda: tuple[int, int]
    cards: int
    capability: float


def installed() -> Driver | None:
    """The driver, or None without one or without a card. Asked in a process of its own: a library that is loaded stays loaded."""
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    return Driver(tuple(found["cuda"]), found["cards"], found["capability"]) if found["cards"] else None


def wheels_cuda() -> tuple[int, int] | None:
    """The CUDA that torch was built for, read from its version file and not by importing it; None for the CPU build."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    version = re.search(r"^cuda\b[^=]*=\s*'(\d+)\.(\d+)'", Path(found.origin).with_name("version.py").read_text(), re.MULTILINE)
    return (int(version[1]), int(version[2])) if version else None


def environment(driver: Driver | None, wheels: tuple[int, int] | None, before: Mapping[str, str], compat: Path = COMPAT) -> dict[str, str]:
    """What a program with these wheels needs in its environment on this driver: the compatibility library first, or certainly not at all.

    Raises UserError where the driver is too old and the library is not there.
    """
    paths = [path for path in before.get("LD_LIBRARY_PATH", "").split(":") if path and Path(path) != compat]
    if driver is not None and wheels is not None and driver.cuda[0] < wheels[0]:
        if not list(compat.glob("libcuda.so*")):
            raise UserError(
                f"the driver knows CUDA {driver.cuda[0]}.{driver.cuda[1]}, and torch was built for {wheels[0]}.{wheels[1]}",
                f"a driver for CUDA {wheels[0]}, or NVIDIA's compatibility library in {compat}",
                "elson images resolve cuda; elson images build serve",
            )
        paths.insert(0, str(compat))
    return {"LD_LIBRARY_PATH": ":".join(paths)} if paths or "LD_LIBRARY_PATH" in before else {}


def _ask(library: str = _LIBRARY) -> Driver:
    """The driver's answers. Raises OSError without the library or when it answers with an error."""
    cuda = ctypes.CDLL(library)
    number, cards = ctypes.c_int(), ctypes.c_int()
    capability = [ctypes.c_int(), ctypes.c_int()]
    for function, argument in ((cuda.cuInit, 0), (cuda.cuDriverGetVersion, ctypes.byref(number)), (cuda.cuDeviceGetCount, ctypes.byref(cards))):
        if error := function(argument):
            raise OSError(f"{library} answers with error {error}")
    if cards.value:
        for value, attribute in zip(capability, (_MAJOR, _MINOR), strict=True):
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
    version = number.value
    return Driver((version // 1000, version % 1000 // 10), cards.value, capability[0].value + capability[1].value / 10)


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(asdict(_ask(os.environ.get("ELSON_CUDA_LIBRARY", _LIBRARY)))))
    except OSError as problem:
        sys.exit(str(problem))
