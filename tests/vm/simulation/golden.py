"""What every simulated VM starts from: an upper layer over this machine's root file system, made once per set of inputs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm.simulation import namespace, pki

ROOT = Path(__file__).resolve().parents[3]
STATE = ROOT / ".elson" / "sim"
UPPER, PKI, APT, DEBS = STATE / "golden", STATE / "pki", STATE / "apt", STATE / "debs"
STAGES = ("train", "quantize", "serve")

_HOSTS = f"""127.0.0.1 localhost
{namespace.METADATA} metadata.google.internal metadata
{namespace.APIS} {" ".join(host for host in pki.HOSTS if not host.startswith(("us-docker", "storage")))}
{namespace.REGISTRY} us-docker.pkg.dev
{namespace.STORAGE} storage.googleapis.com
"""
#: docker wants the cgroup tree and its own network's settings writable; nspawn mounts them read-only.
_DOCKER_UNIT = """[Service]
ExecStartPre=/bin/sh -c 'for d in /sys/fs/cgroup/*; do mount -o remount,rw,bind $$d 2>/dev/null; done; true'
ExecStartPre=/bin/sh -c 'mountpoint -q /proc/sys/net || { mount --bind /proc/sys/net /proc/sys/net && mount -o remount,rw,bind /proc/sys/net; }'
"""
#: The sandbox may not raise limits that a real VM may; container_linux would refuse to start.
_RUNC = """#!/usr/bin/python3
import json, os, sys
arguments = sys.argv[1:]
if "create" in arguments and "--bundle" in arguments:
    file = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(file) as source:
        config = json.load(source)
    config["process"]["rlimits"] = []
    with open(file, "w") as target:
        json.dump(config, target)
os.execv("/usr/sbin/runc.real", ["runc", *arguments])
"""
#: Resolves CDI devices from the file that `nvidia-ctk cdi generate` wrote, as docker 25 and newer do by themselves.
_DOCKER = """#!/usr/bin/python3
import json, os, sys
arguments = sys.argv[1:]
while "--device" in arguments and "nvidia.com/gpu=all" in arguments:
    at = arguments.index("nvidia.com/gpu=all")
    with open("/etc/cdi/nvidia.yaml") as source:
        edits = json.load(source)["containerEdits"]
    resolved = [part for mount in edits["mounts"] for part in ("--volume", f"{mount['hostPath']}:{mount['containerPath']}:ro")]
    resolved += [part for value in edits["env"] for part in ("--env", value)]
    arguments[at - 1 : at + 1] = resolved
os.execv("/usr/bin/docker", ["docker", *arguments])
"""
#: As many calls fail as /etc/simulation/driver-late says: a driver whose modules are still being loaded.
_NVIDIA_SMI = """#!/bin/sh
late=$(cat /etc/simulation/driver-late 2>/dev/null || echo 0)
[ "$late" -gt 0 ] && { echo $((late - 1)) >/etc/simulation/driver-late; echo "NVIDIA-SMI has failed" >&2; exit 9; }
echo "GPU 0: NVIDIA H100 80GB HBM3 (simulated)"
"""


def site_packages(stage: str) -> Path:
    """Packages of a stage's environment on this machine."""
    return next((ROOT / ".elson" / "envs" / stage / "lib").glob("python3.*")).resolve() / "site-packages"


def prepare() -> None:
    """Make what is missing or stale below ``.elson/sim``."""
    stamp = hashlib.sha256("".join([*(file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))), sys.version]).encode()).hexdigest()
    mark = STATE / "golden.stamp"
    if mark.exists() and mark.read_text() == stamp:
        return
    for folder in (UPPER, PKI, APT):
        shutil.rmtree(folder, ignore_errors=True)
    DEBS.mkdir(parents=True, exist_ok=True)
    for package in ("google-guest-agent",):
        if not list(DEBS.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=DEBS, check=True, capture_output=True)
    pki.certificates(PKI)
    pki.apt_repository(APT)
    _root()
    mark.write_text(stamp)


def unpack(package: str, target: Path) -> None:
    """Put a downloaded Debian package's files below a folder; nothing of it is installed on this machine."""
    deb = next(DEBS.glob(f"{package}_*.deb"))
    files = subprocess.run(["dpkg", "--fsys-tarfile", str(deb)], check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--keep-directory-symlink", "--directory", str(target)], input=files, check=True)


def mount(root: Path, upper: Path, work: Path) -> None:
    for folder in (root, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root)], check=True)


def _root() -> None:
    root, work = STATE / "golden.root", STATE / "golden.work"
    mount(root, UPPER, work)
    try:
        unpack("google-guest-agent", root)
        _write(root / "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        (root / "var/log/journal").mkdir(exist_ok=True)  # so that the journal is on the disk, and can be read when the VM is off
        _write(root / "etc/hosts", _HOSTS)
        _write(root / "etc/resolv.conf", "")
        units = root / "etc/systemd/system"
        for wants in ("multi-user", "timers", "sockets", "sysinit", "network-online"):
            folder = units / f"{wants}.target.wants"
            if folder.is_dir():
                shutil.rmtree(folder)
        for unit in ("docker.service", "google-guest-agent.service", "google-startup-scripts.service", "google-shutdown-scripts.service"):
            _link(units / "multi-user.target.wants" / unit, f"/lib/systemd/system/{unit}")
        _link(units / "sockets.target.wants/docker.socket", "/lib/systemd/system/docker.socket")
        _link(units / "default.target", "/lib/systemd/system/multi-user.target")
        _write(units / "docker.service.d/10-simulation.conf", _DOCKER_UNIT)
        # What a real VM has and a container cannot have: the clock, the kernel's modules, a getty.
        for unit in ("systemd-resolved.service", "systemd-timesyncd.service", "console-getty.service", "systemd-logind.service"):
            _link(units / unit, "/dev/null")
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (root / "usr/sbin/runc").rename(root / "usr/sbin/runc.real")
        _write(root / "usr/sbin/runc", _RUNC, 0o755)
        _write(root / "usr/local/bin/docker", _DOCKER, 0o755)
        _write(root / "usr/bin/nvidia-smi", _NVIDIA_SMI, 0o755)
        mounts = [{"hostPath": str(site_packages(stage)), "containerPath": f"/opt/environments/{stage}"} for stage in STAGES]
        mounts.append({"hostPath": "/etc/ssl/certs", "containerPath": "/etc/ssl/certs"})
        environment = ["REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "OMP_NUM_THREADS=1"]
        _write(
            root / "etc/simulation/cdi.json",
            json.dumps({"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "containerEdits": {"mounts": mounts, "env": environment}}),
        )
        shutil.rmtree(root / "etc/apt/sources.list.d", ignore_errors=True)
        (root / "etc/apt/sources.list.d").mkdir()
        _write(root / "etc/apt/sources.list", "")
        _write(root / "usr/local/share/ca-certificates/simulation.crt", (PKI / "ca.crt").read_text())
        subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, capture_output=True)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
        shutil.rmtree(work, ignore_errors=True)


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(mode)


def _link(file: Path, target: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.symlink_to(target)
