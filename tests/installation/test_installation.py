"""The installer: what pip knows reaches uv, the right torch, one sentence for each machine that cannot do it, nothing deleted that is not ours."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runners import environments
from runners.installation import install, preflight, smoke, torch_build, uv
from runners.installation.failure import InstallationError

ROOT = environments.ROOT
LISTING = """:env:.find-links='/wheels /more'
:env:.disable-pip-version-check='1'
global.cert='/etc/ca.crt'
global.extra-index-url='\\nhttps://a/simple\\nhttps://b/simple'
global.find-links='/old'
global.index-url='https://global/simple'
install.index-url='https://user:secret@install/simple'
"""


def test_pips_settings_are_read_in_pips_order() -> None:
    found = uv.pip_settings(LISTING)
    assert found["find-links"] == ["/wheels", "/more"]
    assert found["extra-index-url"] == ["https://a/simple", "https://b/simple"]
    assert found["index-url"] == ["https://user:secret@install/simple"]


def test_uv_is_told_what_pip_knows_but_the_users_own_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("UV_", "SSL_CERT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "7")
    found = uv.environment(uv.pip_settings(LISTING + "global.timeout='60'\n"))
    assert found["UV_DEFAULT_INDEX"] == "https://user:secret@install/simple"
    assert found["UV_INDEX"] == "https://a/simple https://b/simple"
    assert (found["UV_FIND_LINKS"], found["SSL_CERT_FILE"], found["UV_HTTP_TIMEOUT"]) == ("/wheels,/more", "/etc/ca.crt", "7")
    assert found["UV_CACHE_DIR"].startswith(str(ROOT))


@pytest.mark.parametrize("stage", [stage for stage in environments.STAGES if stage != "tools"])
def test_the_default_torch_comes_with_its_cuda_packages_and_the_cpu_torch_without(stage: str) -> None:
    lock = environments.lock_file(stage).read_text()
    default, cpu = torch_build.requirements(lock, ""), torch_build.requirements(lock, "torch==1+cpu --hash=sha256:0")
    assert any(line.startswith("nvidia-cudnn") for line in default) and any(line.startswith("torch==2") for line in default)
    assert "torch==1+cpu --hash=sha256:0" in cpu and not [line for line in cpu if re.match("nvidia|cuda|triton|torch==2", line)]
    assert all("--hash=sha256:" in line for line in default)
    assert not [line for line in default if line.startswith("triton")], "autoawq takes triton's kernels where it is, also without a card"
    assert [line for line in torch_build.requirements(lock, "", card=True) if line.startswith("triton")]


def test_the_cpu_build_is_the_version_of_every_lock_and_has_a_hash_for_every_python() -> None:
    (line,) = torch_build.split(torch_build.LOCK.read_text())
    version = re.search(r"torch==(\S+)\+cpu", line)
    assert version and line.count("--hash=sha256:") == len(preflight.PYTHONS)
    for stage in environments.STAGES[1:]:
        assert f"\ntorch=={version.group(1)} " in environments.lock_file(stage).read_text()


class Index:
    """uv, where the CPU build is in pip's indexes or is not."""

    program = Path(sys.executable)

    def __init__(self, has_it: bool, **settings: list[str]) -> None:
        self.has_it, self.settings = has_it, {name.replace("_", "-"): value for name, value in settings.items()}

    def finds(self, *_: str) -> bool:
        return self.has_it


@pytest.mark.parametrize(
    "index, public, expected",
    [
        (Index(True), False, "torch==2"),
        (Index(False), True, "torch @ https://download.pytorch.org/"),
        (Index(False), False, ""),
        (Index(False, no_index=["1"]), True, ""),
    ],
)
def test_where_torch_comes_from(index: Any, public: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "answers", lambda _: public)
    found = torch_build.choose(index, tmp_path)
    assert found.startswith(expected) if expected else not found
    assert not found or "--hash=sha256:" in found


def machine(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    about = {"system": "Linux", "machine": "x86_64", "libc": ("glibc", "2.36"), "free": 50e9, "memory": 16.0, "python": (3, 12, 1)} | changes
    monkeypatch.setattr(platform, "system", lambda: about["system"])
    monkeypatch.setattr(platform, "machine", lambda: about["machine"])
    monkeypatch.setattr(platform, "libc_ver", lambda: about["libc"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=about["free"]))
    monkeypatch.setattr(preflight, "memory_gib", lambda: about["memory"])
    monkeypatch.setattr(sys, "version_info", about["python"])


ALL = ["tools", "train", "quantize", "serve"]


@pytest.mark.parametrize(
    "changes, stages, words",
    [
        ({}, ALL, None),
        ({"python": (3, 10, 4)}, ["tools"], "3.11, 3.12 or 3.13"),
        ({"python": (3, 14, 0)}, ALL, "make setup PYTHON="),
        ({"system": "Darwin", "machine": "arm64", "libc": ("", "")}, ["tools"], None),
        ({"system": "Darwin", "machine": "arm64", "libc": ("", "")}, ALL, "need Linux on x86-64"),
        ({"machine": "aarch64"}, ["tools"], None),
        ({"machine": "aarch64"}, ALL, "need Linux on x86-64"),
        ({"system": "Windows", "machine": "AMD64"}, ["tools"], "locked wheels for"),
        ({"libc": ("", "")}, ["tools"], "glibc"),
        ({"libc": ("glibc", "2.28")}, ALL, "2.31"),
        ({"libc": ("glibc", "2.28")}, ["tools"], None),
        ({"free": 1e9}, ALL, "1.0 GB are free"),
        ({"memory": 2.0}, ALL, "2.0 GiB of memory"),
        ({"memory": 2.0}, ["tools"], None),
    ],
)
def test_a_machine_is_refused_in_one_sentence(changes: dict[str, Any], stages: list[str], words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, **changes)
    found = preflight.problems(stages)
    assert (not found) if words is None else (len(found) == 1 and words in found[0] and "\n" not in found[0])


def test_nothing_is_downloaded_when_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, free=1e9)
    monkeypatch.setattr(install, "is_complete", lambda _: False)
    monkeypatch.setattr(install, "Uv", lambda: pytest.fail("uv was fetched"))
    with pytest.raises(InstallationError, match="free some space"):
        install.install(ALL)


class Recorder:
    """uv, which makes a folder."""

    program = Path(sys.executable)

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def call(self, *arguments: str, failure: str) -> None:
        self.calls.append(arguments)
        if arguments[0] == "venv":
            (Path(arguments[-1]) / "bin").mkdir(parents=True)
            (Path(arguments[-1]) / "bin" / "python").touch()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments in a folder of the test's own."""
    monkeypatch.setattr(install, "path", lambda stage: tmp_path / "envs" / stage)
    monkeypatch.setattr(install, "python", lambda stage: tmp_path / "envs" / stage / "bin" / "python")
    monkeypatch.setattr(smoke, "run", lambda _: None)
    return tmp_path


def test_what_a_link_points_to_is_never_deleted(elsewhere: Path) -> None:
    shared = elsewhere / "shared"
    (shared / "bin").mkdir(parents=True)
    (shared / "bin" / "python").write_text("somebody's")
    (elsewhere / "envs").mkdir()
    (elsewhere / "envs" / "train").symlink_to(shared)
    install._one(Recorder(), "train", "", elsewhere)  # type: ignore[arg-type]
    assert (shared / "bin" / "python").read_text() == "somebody's" and list(shared.iterdir()) == [shared / "bin"]
    assert not (elsewhere / "envs" / "train").is_symlink() and (elsewhere / "envs" / "train" / "stamp").exists()


def test_a_cut_off_installation_goes_on_and_is_not_complete_before_its_smoke_run(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise InstallationError("it does not run", "a run", "again")

    monkeypatch.setattr(smoke, "run", fails)
    first, folder = Recorder(), elsewhere / "envs" / "train"
    with pytest.raises(InstallationError):
        install._one(first, "train", "", elsewhere)  # type: ignore[arg-type]
    assert first.calls[0][0] == "venv" and not (folder / "stamp").exists()
    monkeypatch.setattr(smoke, "run", lambda _: None)
    second = Recorder()
    install._one(second, "train", "", elsewhere)  # type: ignore[arg-type]
    assert [call[:2] for call in second.calls] == [("pip", "sync")] and (folder / "stamp").exists()


@pytest.mark.parametrize(
    "says, words",
    [
        ("error: Failed to fetch: `https://x/simple/torch/`\n  Caused by: error sending request\n  Caused by: dns error", "package index that answers"),
        ("failed to write to file /a/libtorch.so: No space left on device (os error 28)", "free some space"),
        ("Hash mismatch for torch==2.13.0", "hashes"),
        ("something new", "code 3"),
    ],
)
def test_a_failed_command_is_one_message_with_its_fix(says: str, words: str) -> None:
    with pytest.raises(InstallationError, match=words) as caught:
        uv.run(["sh", "-c", f"cat >&2 <<'E'\n{says}\nE\nexit 3"], "it failed")
    assert "Traceback" not in str(caught.value) and "run the same command again" in str(caught.value)


def test_a_broken_environment_fails_its_smoke_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "python", lambda _: Path(sys.executable))
    with pytest.raises(InstallationError, match=r"does not work[\s\S]*torch"):
        smoke.run("train")  # the tools have no torch


@pytest.mark.parametrize(
    ("environment", "module"),
    [
        ("tools", "pulumi_gcp/compute/_inputs"),
        ("tools", "google/cloud/storage/client"),
        ("train", "peft/tuners/lora/dora"),
        ("quantize", "awq/quantize/quantizer"),
        ("serve", "vllm/entrypoints/openai/api_server"),
        ("serve", "vllm/v1/engine/core"),
        ("serve", "vllm/model_executor/models/qwen2"),
    ],
)
def test_nothing_large_is_compiled_at_each_start(environment: str, module: str) -> None:
    """Where Python may not write bytecode, as under `make`, only the smoke run leaves any."""
    (source,) = environments.path(environment).glob(f"lib/python3*/site-packages/{module}.py")
    assert Path(importlib.util.cache_from_source(str(source))).exists()


def test_a_dead_index_ends_in_a_sentence(tmp_path: Path) -> None:
    """The real program, in an empty copy of the tree, with an index that nobody serves."""
    for name in ("runners", "images"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
    }
    done = subprocess.run([sys.executable, "-m", "runners.installation", "tools"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "CalledProcessError" not in done.stderr
    assert "error: uv could not be installed" in done.stderr and "check the network" in done.stderr
