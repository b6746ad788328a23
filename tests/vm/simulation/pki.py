"""A certificate authority of the test's own, and a signed apt repository with a GPU toolkit that knows no GPU."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HOSTS = (
    "us-docker.pkg.dev",
    "storage.googleapis.com",
    "www.googleapis.com",
    "oauth2.googleapis.com",
    "compute.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "secretmanager.googleapis.com",
    "nvidia.github.io",
)


def certificates(folder: Path) -> None:
    """``ca.crt``, and ``server.crt`` with ``server.key`` for every host above."""
    folder.mkdir(parents=True)
    extension = folder / "names"
    extension.write_text("subjectAltName=" + ",".join(f"DNS:{host}" for host in HOSTS) + "\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _quiet(
        "openssl",
        "req",
        "-x509",
        *key,
        "-days",
        "30",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=simulation",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        cwd=folder,
    )
    _quiet("openssl", "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=simulation", cwd=folder)
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", extension.name]
    _quiet("openssl", "x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt", cwd=folder)


#: Reads a template instead of asking a driver.
_TOOLKIT = """#!/bin/sh
[ "$1 $2" = "cdi generate" ] || exit 64
cp /etc/simulation/cdi.json "${3#--output=}"
"""


def apt_repository(folder: Path) -> None:
    """``libnvidia-container/…`` as nvidia.github.io has it: packages, a signed index, the key."""
    package, repository = folder / "package", folder / "libnvidia-container" / "stable" / "deb" / "amd64"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/bin").mkdir(parents=True)
    repository.mkdir(parents=True)
    fields = {
        "Package": "nvidia-container-toolkit",
        "Version": "1.18.0-1",
        "Architecture": "amd64",
        "Maintainer": "simulation <s@example.org>",
        "Description": "a stand-in",
    }
    control = "".join(f"{key}: {value}\n" for key, value in fields.items())
    (package / "DEBIAN/control").write_text(control)
    (package / "usr/bin/nvidia-ctk").write_text(_TOOLKIT)
    (package / "usr/bin/nvidia-ctk").chmod(0o755)
    name = "nvidia-container-toolkit_1.18.0-1_amd64.deb"
    _quiet("dpkg-deb", "--build", "--root-owner-group", str(package), str(repository / name))
    content = (repository / name).read_bytes()
    index = f"{control}Filename: ./{name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n\n".encode()
    (repository / "Packages").write_bytes(index)
    release = f"Origin: simulation\nSuite: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    (repository / "Release").write_text(release)
    # gpg-agent's socket has a path limit of 108 characters, so its home is short-lived and short.
    home = Path(f"/tmp/elson-gpg-{os.getpid()}")
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    try:
        _quiet(*gpg, "--passphrase", "", "--quick-gen-key", "s@example.org", "ed25519", "sign", "never")
        _quiet(*gpg, "--clearsign", "--output", str(repository / "InRelease"), str(repository / "Release"))
        _quiet(*gpg, "--armor", "--export", "--output", str(folder / "libnvidia-container/gpgkey"), "s@example.org")
    finally:
        _quiet("gpgconf", "--homedir", str(home), "--kill", "gpg-agent")
        shutil.rmtree(home, ignore_errors=True)


def _quiet(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
