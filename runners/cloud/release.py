"""What a release is made of, and whether any of it is known to be vulnerable: a CycloneDX bill of each lock and image, and pip-audit over all locks.

The bills name every Python package of a lock with the hashes that an installation checks, and of an image its base, pinned by digest, and its digest in the
registry. Debian's packages inside a base image are not listed: its publisher's own bill does that.

    elson images sbom --out sbom
    elson images audit
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runners import __version__, outside
from runners.artifacts.record import code_version
from runners.cloud import images
from runners.errors import Temporary, UserError
from runners.installation import locks, torch_build
from runners.outside import file_digest
from runners.pipeline import GATEWAY, IMAGES

ROOT = images.ROOT
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)")


def lock_files(root: Path = ROOT) -> list[str]:
    """Every lock of the project, relative to it."""
    return [*(lock.file for lock in locks.locks(root)), "images/torch-cpu.lock"]


def packages(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Name -> (version, SHA-256 of its files) of a lock's text. Raises UserError for a line that is not pinned by version and hash."""
    found = {}
    for line in torch_build.split(lock):
        pinned, hashes = _PINNED.match(line), re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
        if not pinned or not hashes:
            raise UserError(f"a lock has the line {line[:100]!r}", "name==version with the hashes of its files", "make locks")
        found[pinned.group(1)] = (pinned.group(2), hashes)
    return found


def bills(root: Path = ROOT, digests: dict[str, str] | None = None, bases: Path = images.BASES) -> dict[str, str]:
    """File name -> CycloneDX 1.6 JSON, one for each lock and each image. ``digests`` are the images as the registry knows them."""
    found = {f"{_plain(file)}.cdx.json": _bill(file, "lock", packages((root / file).read_text()), root) for file in lock_files(root)}
    for image in IMAGES:
        lock = root / "images" / image / "requirements.lock"
        base = images.bases(bases)
        uses = [images.base_of(image), *(["cuda"] if image == "serve" else [])]
        content = packages(lock.read_text()) if image != GATEWAY else {}
        found[f"image-{image}.cdx.json"] = _bill(f"elson/{image}", "image", content, root, [base[name] for name in uses], (digests or {}).get(image))
    return found


def _plain(file: str) -> str:
    return re.sub(r"[/.]+", "-", file.removeprefix("images/").removeprefix("infra/"))


def _bill(name: str, kind: str, content: dict[str, tuple[str, list[str]]], root: Path, bases: Sequence[dict[str, Any]] = (), pinned: str | None = None) -> str:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    code = code_version()
    properties = [Property(name="elson:commit", value=f"{code['commit']}{'-dirty' if code['dirty'] else ''}")]
    if kind == "lock":
        properties.append(Property(name="elson:lock-sha256", value=file_digest(root / name)))
    if pinned:
        properties.append(Property(name="elson:image", value=pinned))
    kinds = {"lock": ComponentType.FILE, "image": ComponentType.CONTAINER}
    subject = Component(name=name, type=kinds[kind], version=__version__, properties=properties, bom_ref=name)
    bom = Bom()
    bom.metadata.component = subject
    parts = []
    for package, (version, hashes) in sorted(content.items()):
        url = PackageURL("pypi", None, package.lower().replace("_", "-"), version)
        files = [HashType(alg=HashAlgorithm.SHA_256, content=value) for value in hashes]
        parts.append(Component(name=package, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url), hashes=files))
    for base in bases:
        url = PackageURL("oci", None, base["image"].rpartition("/")[2], base["digest"], {"repository_url": base["image"], "tag": base["tag"]})
        files = [HashType(alg=HashAlgorithm.SHA_256, content=base["digest"].removeprefix("sha256:"))] if base["digest"] else []
        parts.append(Component(name=base["image"], version=base["tag"], type=ComponentType.CONTAINER, purl=url, bom_ref=str(url), hashes=files))
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(subject, parts)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def rounds(found: Sequence[dict[str, tuple[str, list[str]]]]) -> list[dict[str, tuple[str, list[str]]]]:
    """The packages of many locks, each version once, in as few lists as have every name once: pip-audit takes no list with two versions of a package."""
    lists: list[dict[str, tuple[str, list[str]]]] = []
    for lock in found:
        for name, pinned in lock.items():
            if not any(one.get(name, ("",))[0] == pinned[0] for one in lists):
                free = next((one for one in lists if name not in one), None)
                if free is None:
                    lists.append(free := {})
                free[name] = pinned
    return lists


def audit(root: Path = ROOT, *, ignore: Sequence[str] = (), url: str | None = None) -> tuple[int, list[dict[str, str]]]:
    """(packages asked about, known vulnerabilities) of all locks, from the OSV database. Raises Temporary where that does not answer."""
    named = {file: packages((root / file).read_text()) for file in lock_files(root)}
    asked, rows = 0, []
    for one in rounds(list(named.values())):
        answer = _pip_audit(one, ignore, url)
        asked += len(one)
        for package in answer["dependencies"]:
            if "skip_reason" in package:
                raise UserError(f"pip-audit skipped {package['name']}: {package['skip_reason']}", "an answer for each package", "run it again")
            where = ", ".join(file for file, content in named.items() if content.get(package["name"], ("",))[0] == package["version"])
            rows += [
                {"package": package["name"], "version": package["version"], "id": known["id"], "fixed in": ", ".join(known["fix_versions"]), "in": where}
                for known in package["vulns"]
            ]
    return asked, rows


def _pip_audit(content: dict[str, tuple[str, list[str]]], ignore: Sequence[str], url: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.txt"
        lines = (f"{name}=={version} {' '.join(f'--hash=sha256:{value}' for value in hashes)}\n" for name, (version, hashes) in content.items())
        file.write_text("".join(lines))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--disable-pip", "--require-hashes", "--vulnerability-service", "osv"]
        command += ["--format", "json", "--progress-spinner", "off", *(part for name in ignore for part in ("--ignore-vuln", name))]
        done = subprocess.run([*command, *(["--osv-url", url] if url else [])], capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
    if re.search(r"(?i)connect|timed? ?out|resolve|\b50[0-4]\b", done.stderr):
        raise Temporary(f"the database of vulnerabilities does not answer: {last[:300]}", "an answer from osv.dev", "run it where it can be reached") from None
    raise UserError(f"pip-audit failed: {last[:300]}", "a list of findings", "run elson images audit again; then look at the lock that it names")


def write(folder: Path, found: dict[str, str]) -> list[Path]:
    """Write the bills below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        outside.write_durably(folder / name, text)
    return [folder / name for name in found]
