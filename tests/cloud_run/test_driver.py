"""The compatibility library is chosen by the driver that answers: real shared libraries that answer as drivers 535 and 580 do, asked as libcuda is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runners.cloud_run import driver
from runners.cloud_run.driver import Driver
from runners.errors import UserError
from runners.planning import cloud_run
from runners.serving import serve

#: NVIDIA's driver API as far as it is called: every function returns 0, or an error.
SOURCE = """
int cuInit(unsigned flags) { return %(init)d; }
int cuDriverGetVersion(int *version) { *version = %(version)d; return 0; }
int cuDeviceGetCount(int *count) { *count = %(cards)d; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1; return 0; }
"""
#: Driver -> the CUDA that it knows: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes
CUDA_OF = {"535": 12020, "580": 13000}


def library(folder: Path, version: int, cards: int = 1, init: int = 0) -> Path:
    """A libcuda.so.1 that answers as asked."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        reason = "no C compiler here to make a driver library with"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "driver.c").write_text(SOURCE % {"version": version, "cards": cards, "init": init})
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")], check=True)
    return folder


@pytest.fixture
def compat(tmp_path: Path) -> Path:
    folder = tmp_path / "compat"
    folder.mkdir()
    (folder / "libcuda.so.580.82.07").touch()
    return folder


@pytest.mark.parametrize(("name", "wanted"), [("535", True), ("580", False)])
def test_a_driver_of_535_gets_the_library_and_one_of_580_does_not(
    name: str, wanted: bool, tmp_path: Path, compat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in cloud_run.DRIVERS.values()
    there = library(tmp_path / "driver", CUDA_OF[name])
    monkeypatch.setenv("LD_LIBRARY_PATH", str(there))
    found = driver.installed()
    assert found == Driver((CUDA_OF[name] // 1000, CUDA_OF[name] % 1000 // 10), 1, 8.9)
    chosen = driver.environment(found, (13, 0), os.environ, compat)
    assert chosen["LD_LIBRARY_PATH"] == (f"{compat}:{there}" if wanted else str(there))
    # What a program loads in that environment: the compatibility library before the driver's, or the driver's alone.
    first = next(folder for folder in chosen["LD_LIBRARY_PATH"].split(":") if list(Path(folder).glob("libcuda.so*")))
    assert (first == str(compat)) == wanted


def test_a_library_on_the_path_is_taken_away_from_a_new_driver(compat: Path) -> None:
    """Forced beside a driver that is as new, it fails with error 803."""
    before = {"LD_LIBRARY_PATH": f"{compat}:/usr/local/nvidia/lib64"}
    assert driver.environment(Driver((13, 0), 1, 12.0), (13, 0), before, compat) == {"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}
    assert driver.environment(Driver((13, 2), 1, 12.0), (13, 0), {}, compat) == {}
    assert driver.environment(None, (13, 0), {}, compat) == driver.environment(Driver((12, 2), 1, 8.9), None, {}, compat) == {}


def test_an_old_driver_without_the_library_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the driver knows CUDA 12.2, and torch was built for 13.0") as error:
        driver.environment(Driver((12, 2), 1, 8.9), (13, 0), {}, tmp_path)
    assert "elson images build serve" in error.value.fix


@pytest.mark.parametrize(("cards", "init"), [(0, 0), (1, 100), (1, 803)])
def test_no_card_or_an_error_is_no_driver(cards: int, init: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library(tmp_path / "driver", 13000, cards, init)))
    assert driver.installed() is None


def test_the_wheels_say_what_they_were_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "version.py").write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    assert driver.wheels_cuda() is None
    (package / "version.py").write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    assert driver.wheels_cuda() == (13, 0)


def test_the_inner_key_is_no_users_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 40 + "\n" + "s" * 40 + "\n")
    monkeypatch.setenv("ELSON_GATEWAY_KEYS", str(keys))
    found = serve.read_key()
    assert len(found) == 64 and found not in keys.read_text()
    keys.write_text("k" * 40)
    assert serve.read_key() == found, "the end of the line is no part of a key"
    keys.write_text("\n")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(UserError, match="API key"):
        serve.read_key()
