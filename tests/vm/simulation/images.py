"""The project's Dockerfiles, built without a network on a local base that stands where the real one stands, and put into the registry.

The base is this machine's Python and C library in the places of Docker's ``python`` image. Its packages are not installed again
(15 GB of CUDA wheels): the lock is an empty file, and a ``.pth`` names the folder where the simulated toolkit mounts this machine's environment of the stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path

from runners.cloud import images as project
from runners.pipeline import IMAGES
from runners.processes import bound
from tests import caddy
from tests.vm.simulation import golden
from tests.vm.simulation.world import REGISTRY_FILES

_STORE = golden.STATE / "containers"
_RUN = golden.STATE / "containers.run"
_REPOSITORY = "us-docker.pkg.dev/proj/elson"
_PROGRAMS = ["sh", "bash", "cat", "cp", "ls", "mkdir", "rm", "chmod", "chown", "env", "id", "sleep", "true", "false", "grep", "sed", "head", "uname", "lscpu"]
_VLLM = '#!/usr/local/bin/python3\nfrom vllm.entrypoints.cli.main import main\n\nif __name__ == "__main__":\n    main()\n'


def buildah(*arguments: str, network: bool = True) -> str:
    """Run buildah on a store of our own; returns its output."""
    base = [*([] if network else ["unshare", "--net"]), "buildah", f"--root={_STORE}", f"--runroot={_RUN}", "--storage-driver=overlay"]
    done = subprocess.run([*base, *arguments], capture_output=True, text=True, cwd=golden.ROOT, check=False)
    if done.returncode:
        raise AssertionError(f"buildah {' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def pushed() -> dict[str, str]:
    """Build every image and push it; returns pinned references by stage, as ``elson-images`` holds them."""
    inputs = [
        *sorted({file for image in IMAGES for file in project.inputs(image)}),
        *sorted(Path(__file__).parent.glob("*.py")),
    ]
    stamp = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()
    known = golden.STATE / "images.json"
    if known.exists() and (found := json.loads(known.read_text()))["stamp"] == stamp:
        return dict(found["images"])
    _bases()
    shutil.rmtree(REGISTRY_FILES, ignore_errors=True)
    references = {}
    with _registry() as port:
        for stage in (*golden.STAGES, "gateway", "standin"):
            _standin() if stage == "standin" else build(stage)
            target = f"127.0.0.1:{port}/proj/elson/{stage}:test"
            digest_file = golden.STATE / f"{stage}.digest"
            buildah("push", "--tls-verify=false", "--disable-compression", f"--digestfile={digest_file}", f"localhost/elson-{stage}", f"docker://{target}")
            references[stage] = f"{_REPOSITORY}/{stage}@{digest_file.read_text().strip()}"
    known.write_text(json.dumps({"stamp": stamp, "images": references}))
    return references


def build(stage: str) -> None:
    """Build one image from the project's own Dockerfile."""
    base = "CADDY_BASE=localhost/base-gateway" if stage == "gateway" else f"PYTHON_BASE=localhost/base-{stage}"
    lock = [] if stage == "gateway" else [f"--build-arg=IMAGE={stage}", "--build-arg=LOCK=images/empty.lock", "--build-arg=COMMIT=simulated"]
    options = ["--isolation=chroot", "--pull=never", "--network=host", "--layers=false", "--quiet", f"--build-arg={base}", *lock]
    with tempfile.TemporaryDirectory() as folder:
        project.context(stage, Path(folder))
        if stage != "gateway":
            (Path(folder) / "images" / "empty.lock").write_text("# nothing to install: the environment is mounted\n")
        buildah("build", *options, f"--file={folder}/{project.dockerfile(stage)}", f"--tag=localhost/elson-{stage}", folder, network=False)


def config(stage: str) -> dict[str, object]:
    """The configuration of a built image."""
    found: dict[str, object] = json.loads(buildah("inspect", "--type=image", f"localhost/elson-{stage}"))["OCIv1"]["config"]
    return found


def _bases() -> None:
    mark, stamp = golden.STATE / "bases.stamp", hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
    if mark.exists() and mark.read_text() == stamp:
        return
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")
    files = golden.STATE / "base"
    shutil.rmtree(files, ignore_errors=True)
    _root(files)
    _image("localhost/base", None, files)
    for stage in golden.STAGES:
        extra = golden.STATE / "base-extra"
        shutil.rmtree(extra, ignore_errors=True)
        site = extra / f"usr/local/lib/python{sysconfig.get_python_version()}/site-packages"
        site.mkdir(parents=True)
        (site / "environment.pth").write_text(f"/opt/environments/{stage}\n")
        if stage == "serve":
            (extra / "usr/local/bin").mkdir(parents=True)
            (extra / "usr/local/bin/vllm").write_text(_VLLM)
            (extra / "usr/local/bin/vllm").chmod(0o755)
        _image(f"localhost/base-{stage}", "localhost/base", extra)
    shutil.rmtree(files)
    _root(files, python=False)
    shutil.copy2(caddy.binary(), files / "usr/bin/caddy")  # static: it needs no libraries
    _image("localhost/base-gateway", None, files)
    shutil.rmtree(files)
    mark.write_text(stamp)


def _image(name: str, parent: str | None, files: Path) -> None:
    container = buildah("from", "--pull=never", parent or "scratch")
    buildah("copy", "--quiet", container, str(files), "/")
    buildah("config", "--env=PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", container)
    buildah("commit", "--quiet", "--rm", container, name)


def _standin() -> None:
    container = buildah("from", "--pull=never", "localhost/base")
    buildah("copy", "--quiet", container, str(Path(__file__).with_name("standin.py")), "/standin.py")
    buildah("config", '--entrypoint=["python3", "/standin.py"]', "--user=10001", container)
    buildah("commit", "--quiet", "--rm", container, "localhost/elson-standin")


def _root(root: Path, python: bool = True) -> None:
    """A root file system: a shell, a few programs, the C library and, as Docker's image has it, Python in /usr/local."""
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/local/bin", "etc/ssl/certs", "tmp", "proc", "sys", "dev", "run", "var", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\nhosts: files dns\n")
    binaries = [Path(found).resolve() for name in _PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    for name in _PROGRAMS:
        if found := shutil.which(name, path="/usr/bin:/bin"):
            shutil.copy2(Path(found).resolve(), root / "usr/bin" / name)
    libraries = "/usr/lib/x86_64-linux-gnu"
    # All of the C library, since a wheel may want a part that nothing else here does.
    libc = subprocess.run(["dpkg", "--listfiles", "libc6"], capture_output=True, text=True, check=True).stdout.split()
    extra = [f"{libraries}/{Path(name).name}" for name in libc if ".so." in name and "/gconv/" not in name]
    extra += [f"{libraries}/{name}" for name in ("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "libnuma.so.1")]
    if python:
        real = Path(sysconfig.get_config_var("prefix"))
        shutil.copytree(real / "lib", root / "usr/local/lib", symlinks=True, ignore=_unneeded)
        shutil.copy2(Path(sys.executable).resolve(), root / "usr/local/bin/python3")
        (root / "usr/local/bin/python").symlink_to("python3")
        binaries += [Path(sys.executable).resolve(), *(real / "lib").glob("python3.*/lib-dynload/*.so")]
    needed = {line for binary in binaries for line in _libraries(binary)} | {path for path in extra if Path(path).exists()}
    _copy_libraries(sorted(needed), root)
    shutil.copy2(Path("/lib64/ld-linux-x86-64.so.2").resolve(), root / "usr/lib64/ld-linux-x86-64.so.2")
    (root / "etc/ld.so.conf").write_text("/usr/local/lib\n/usr/lib/x86_64-linux-gnu\n")
    subprocess.run(["ldconfig", "-r", str(root)], check=True)


def _copy_libraries(libraries: list[str], root: Path) -> None:
    for library in libraries:
        target = root / "usr/lib/x86_64-linux-gnu" / Path(library).name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and "libpython" not in library:
            shutil.copy2(Path(library).resolve(), target)


def _unneeded(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name in ("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "__pycache__")
        or name.endswith((".a", ".exe"))
        or name.startswith("config-3")
    } | (
        {name for name in names if name not in ("pip", "setuptools") and not name.startswith(("pip-", "setuptools-"))}
        if folder.endswith("site-packages")
        else set()
    )


def _libraries(binary: Path) -> list[str]:
    shown = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"=> (/\S+)", shown)


class _registry:  # reads as a statement
    """A registry on loopback that writes the files which the worlds' registries serve."""

    def __enter__(self) -> int:
        port = 20_000 + os.getpid() % 20_000
        REGISTRY_FILES.mkdir(parents=True, exist_ok=True)
        file = golden.STATE / "registry.json"
        values = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(REGISTRY_FILES)}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        file.write_text(json.dumps(values))
        log = (golden.STATE / "registry.log").open("wb")
        self.process = subprocess.Popen(bound(["docker-registry", "serve", str(file)]), stdout=log, stderr=log)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return port
        raise AssertionError((golden.STATE / "registry.log").read_text())

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
