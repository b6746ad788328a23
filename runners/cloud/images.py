"""Container images: bases pinned by digest, builds by content, digests into the user's stack files; and a boot image that holds them.

No digest is invented. A base's is looked up in its registry (``resolve``), an image's is what the registry says after the push (``build``);
a base without one is refused. An image's tag is the digest of its inputs, so a build that was made already is found and not made again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from runners import identity, log, outside
from runners.errors import UserError
from runners.pipeline import GATEWAY, images_of
from runners.planning import stacks

ROOT = Path(__file__).resolve().parents[2]
BASES = ROOT / "images" / "bases.yaml"
#: The build argument that takes an image's base.
ARGUMENT_OF = {"python": "PYTHON_BASE", "caddy": "CADDY_BASE"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}"
    for kind in ("oci.image.index.v1+json", "docker.distribution.manifest.list.v2+json", "oci.image.manifest.v1+json", "docker.distribution.manifest.v2+json")
)


def bases(file: Path = BASES) -> dict[str, dict[str, Any]]:
    """What ``images/bases.yaml`` holds."""
    found: dict[str, dict[str, Any]] = outside.read_yaml(file)
    if wrong := [name for name, base in found.items() if not isinstance(base, dict) or not {"image", "tag", "digest"} <= base.keys()]:
        raise UserError(f"{file}: {wrong[0]} has no image, tag and digest", "the three of each base", f"edit {file}")
    return found


def pinned(name: str, file: Path = BASES) -> str:
    """A base as ``IMAGE@sha256:…``. Raises UserError while its digest is missing."""
    base = bases(file)[name]
    if not _DIGEST.fullmatch(str(base["digest"])):
        raise UserError(
            f"the base image {name} ({base['image']}:{base['tag']}) has no digest in {file.name}",
            "a digest that its registry gave; none is invented",
            "elson images resolve",
        )
    return f"{base['image']}@{base['digest']}"


def resolve(file: Path = BASES, names: tuple[str, ...] = ()) -> dict[str, str]:
    """Look up the digest behind each base's tag and write it into the file; returns name -> digest."""
    text, found = file.read_text(), {}
    for name, base in bases(file).items():
        if names and name not in names:
            continue
        found[name] = look_up(base["image"], base["tag"])
        text = with_digest(text, name, found[name], datetime.now(UTC).date().isoformat())
    file.write_text(text)
    return found


def with_digest(text: str, name: str, digest: str, day: str) -> str:
    """The bases file with one digest changed; comments and order stay."""
    block = re.compile(rf"(?m)^({re.escape(name)}:\n(?:  (?!digest|resolved_at).*\n)*)  digest: .*\n  resolved_at: .*$")
    changed, count = block.subn(rf"\g<1>  digest: {digest}\n  resolved_at: {day}", text)
    if count != 1:
        raise UserError(f"bases.yaml has no entry {name} with digest and resolved_at", "the file's layout", "restore images/bases.yaml from git")
    return changed


def look_up(image: str, tag: str, scheme: str = "https") -> str:
    """The digest of a tag, from the registry itself (Distribution API v2, with the anonymous token that public registries ask for). Raises UserError."""
    host, _, path = image.partition("/")
    address = "registry-1.docker.io" if host == "docker.io" else host
    url, headers = f"{scheme}://{address}/v2/{path}/manifests/{tag}", {"Accept": _MANIFESTS}
    try:
        answer = requests.head(url, headers=headers, timeout=30, allow_redirects=True)
        if answer.status_code == 401:
            headers["Authorization"] = f"Bearer {_token(answer.headers['WWW-Authenticate'])}"
            answer = requests.head(url, headers=headers, timeout=30, allow_redirects=True)
        answer.raise_for_status()
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{image}:{tag} cannot be looked up: {error}", "an answer from its registry", "run it where the registry can be reached") from None
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not _DIGEST.fullmatch(digest):
        raise UserError(
            f"{address} gives {digest!r} as the digest of {path}:{tag}", "sha256 and 64 hex digits", "check the image and the tag in images/bases.yaml"
        )
    return digest


def _token(challenge: str) -> str:
    """The anonymous token a ``WWW-Authenticate: Bearer realm=…`` asks for."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    answer = requests.get(fields["realm"], {key: fields[key] for key in ("service", "scope") if key in fields}, timeout=30)
    answer.raise_for_status()
    values = answer.json()
    return str(values.get("token") or values["access_token"])


def base_of(image: str) -> str:
    """The base that an image is built on: a key of ``images/bases.yaml``."""
    return "caddy" if image == GATEWAY else "python"


def dockerfile(image: str) -> str:
    """The Dockerfile of an image, relative to the project."""
    return "images/gateway/Dockerfile" if image == GATEWAY else "images/Dockerfile"


def inputs(image: str, root: Path = ROOT) -> list[Path]:
    """Every file that goes into an image: its Dockerfile, its lock, and the code that its stages import."""
    own = [root / dockerfile(image)]
    if image == GATEWAY:
        return [*own, root / "images" / image / "Caddyfile", root / "images" / image / "start.sh"]
    return [*own, root / "images" / image / "requirements.lock", *identity.image_files(image, root)]


def context(image: str, folder: Path, root: Path = ROOT) -> None:
    """Copy an image's inputs to an empty folder: what it is built from, and nothing else."""
    for file in inputs(image, root):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def content_tag(stage: str, base: str, root: Path = ROOT) -> str:
    """Tag of an image: the digest of its base and its files."""
    digest = hashlib.sha256(base.encode())
    for file in inputs(stage, root):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def build_command(stage: str, project: str, region: str, commit: str, file: Path = BASES) -> tuple[str, list[str]]:
    """(image with its tag, the ``gcloud`` call that builds it). Raises UserError while a base has no digest."""
    name = base_of(stage)
    base = pinned(name, file)
    # Only a server meets drivers older than its wheels.
    compat = pinned("cuda", file) if stage == "serve" else base
    image = f"{region}-docker.pkg.dev/{project}/elson/{stage}:{content_tag(stage, base if compat == base else base + compat)}"
    values = {
        "_IMAGE_NAME": stage,
        "_DOCKERFILE": dockerfile(stage),
        "_BASE_ARGUMENT": ARGUMENT_OF[name],
        "_BASE": base,
        "_COMPAT_BASE": compat,
        "_BUILDER": pinned("builder", file),
        "_COMMIT": commit,
        "_IMAGE": image,
    }
    substitutions = ",".join(f"{key}={value}" for key, value in values.items())
    config = ["--config=images/cloudbuild.yaml", f"--substitutions={substitutions}", f"--project={project}", f"--region={region}", "--format=json"]
    # Its own account, which may push images and read its sources in scratch, instead of the project's, which may do far more or nothing at all.
    config += [
        f"--service-account=projects/{project}/serviceAccounts/elson-build@{project}.iam.gserviceaccount.com",
        f"--gcs-source-staging-dir={stacks.buckets_of(project).scratch}/builds",
    ]
    return image, ["gcloud", "builds", "submit", *config]


def build(stage: str, project: str, region: str, commit: str) -> str:
    """Build an image, or find it built; returns it pinned by digest. Raises UserError."""
    image, command = build_command(stage, project, region, commit)
    digest = _digest_of(image, project)
    if digest:
        log.event("image is built already", image=image)
    else:
        log.event("building", stage=stage, image=image)
        with tempfile.TemporaryDirectory(prefix="elson-build-") as folder:
            context(stage, Path(folder))
            gcloud([*command[:3], folder, *command[3:]], ROOT)
        digest = _digest_of(image, project)
    if not digest:
        raise UserError(f"{image} was built and is not in the registry", "its digest", f"look at the build: gcloud builds list --project {project}")
    return f"{image.rpartition(':')[0]}@{digest}"


def _digest_of(image: str, project: str) -> str:
    command = ["gcloud", "artifacts", "docker", "images", "describe", image, f"--project={project}", "--format=value(image_summary.digest)"]
    done = subprocess.run(_found(command), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and _DIGEST.fullmatch(done.stdout.strip()) else ""


def gcloud(command: list[str], folder: Path | None = None) -> str:
    """Run ``gcloud``; its stdout. Raises UserError when it fails or is not installed."""
    done = subprocess.run(_found(command), stdout=subprocess.PIPE, text=True, cwd=folder, check=False)
    if done.returncode:
        raise UserError(
            f"`{' '.join(command[:4])} …` ended with code {done.returncode}", "0; its message is above", "fix that, then run the same command again"
        )
    return done.stdout


def _found(command: list[str]) -> list[str]:
    if not shutil.which(command[0]):
        raise UserError("gcloud is not installed", "Google Cloud's command line", "https://cloud.google.com/sdk/docs/install, then: gcloud auth login")
    return command


def write_digests(images: dict[str, str], folder: Path | None = None) -> list[Path]:
    """Write pinned images into the user's own file of every stack whose role uses them; returns the files changed."""
    changed = []
    for name in stacks.names(folder):
        role = stacks.load(name, folder).role
        wanted = {stage: image for stage, image in images.items() if role in ("train", "serve") and stage in images_of(role)}
        if wanted and (file := stacks.remember(name, {"elson:spec": {"environments": wanted}}, folder)):
            changed.append(file)
    return changed
