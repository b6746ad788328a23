"""Is everything there that a stack needs? Each check says what it found and, when that is not enough, the command that fixes it. Nothing is changed."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from runners.artifacts import layout, registry, storage
from runners.cloud import api_key
from runners.errors import UserError
from runners.pipeline import IMAGES, images_of
from runners.planning import places
from runners.planning.machines import machine
from runners.planning.stacks import Stack

SERVICES = ("artifactregistry", "compute", "iam", "logging", "monitoring", "run", "secretmanager", "storage")
_PINNED = re.compile(r"(?P<host>[a-z0-9.-]+)/(?P<path>[a-z0-9._/-]+)@(?P<digest>sha256:[0-9a-f]{64})")
GLOBAL_GPUS = "GPUS_ALL_REGIONS"


@dataclass(frozen=True)
class Finding:
    """One check's outcome. ``needs`` says what is missing for the check itself: then nothing is known about ``name``."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    needs: str = ""

    def __str__(self) -> str:
        if self.needs:
            return f"not checked  {self.name} (needs {self.needs})"
        return f"{self.state:11}  {self.name}: {self.found}" + ("" if self.ok else f"\n{'fix:':13}{self.fix}")

    @property
    def state(self) -> str:
        """``ok``, ``missing`` or ``not checked``."""
        return "ok" if self.ok else "not checked" if self.needs else "missing"

    @property
    def after_foundation(self) -> bool:
        """Whether the foundation stack makes what the check needs."""
        return self.needs.startswith(("the API", "the buckets"))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "state": self.state}


class Clients:
    """Google's APIs, made when they are first asked for. ``endpoints`` replaces addresses (api -> URL)."""

    def __init__(self, credentials: Any, endpoints: dict[str, str] | None = None) -> None:
        self._credentials, self._endpoints = credentials, endpoints or {}

    def api(self, name: str, version: str) -> Any:
        """A client from the discovery document that comes with the library."""
        from googleapiclient.discovery import build

        options = {"api_endpoint": self._endpoints[name]} if name in self._endpoints else None
        return build(name, version, credentials=self._credentials, cache_discovery=False, static_discovery=True, client_options=options)


def examine(stack: Stack, clients: Clients | None = None) -> list[Finding]:
    """Every check for a stack, all in one run: those that cannot be made say what they need."""
    findings = [*_pulumi(), *_gcloud()]
    findings.append(Finding("project", bool(stack.project), stack.project or "none is set", "elson init, or export GOOGLE_CLOUD_PROJECT=PROJECT_ID"))
    credentials = Finding("credentials", ok=True, found="given")
    if clients is None:
        clients, credentials = _credentials()
    findings.append(credentials)
    here = clients or Clients(None)
    role = stack.role
    models = {"train": ("dataset", "base model"), "serve": ("model to serve",)}.get(role, ())
    # A digest that is in no stack file is missing, whatever the registry would say.
    unset = [finding for finding in _images(stack, None) if not finding.ok]
    checks: tuple[tuple[tuple[str, ...], str, Callable[[], Iterator[Finding]]], ...] = (
        (("APIs",), "", lambda: _services(stack, here)),
        (("quotas",) if stack.spec.machine else (), "API compute", lambda: _quotas(stack, here)),
        (("buckets",), "", lambda: _buckets(stack)),
        (() if unset else ("images",), "API artifactregistry", lambda: _images(stack, here)),
        (models, "bucket", lambda: _models(stack)),
        (() if role == "train" else ("API key",), "API secretmanager", lambda: _key(stack, here)),
    )
    for names, needs, check in checks:
        lacking = _lacking(("project", "credentials", *([needs] if needs else [])), findings)
        findings += [Finding(name, ok=False, found="", needs=lacking) for name in names] if lacking else _safely(check) if names else []
    return findings + unset


def _lacking(needs: tuple[str, ...], so_far: list[Finding]) -> str:
    words = {"bucket": "the buckets", "project": "a project", "credentials": "credentials"}
    return ", ".join(words.get(need, f"the {need}") for need in needs if any(not finding.ok and finding.name.startswith(need) for finding in so_far))


def _pulumi() -> Iterator[Finding]:
    from runners.cloud import deploy

    try:
        version = deploy.command().version
    except UserError as error:
        yield Finding("Pulumi command", ok=False, found=error.found, fix=error.fix)
        yield Finding("Pulumi login", ok=False, found="", needs="the Pulumi command")
        return
    yield Finding("Pulumi command", ok=True, found=f"{version}")
    try:
        login = deploy.login()
    except UserError as error:
        yield Finding("Pulumi login", ok=False, found=error.found, fix=error.fix)
    else:
        yield Finding("Pulumi login", ok=True, found=f"{login.user}, state in {login.url or 'an unnamed place'}")


def _gcloud() -> Iterator[Finding]:
    from runners.cloud import project

    if not shutil.which("gcloud"):
        yield Finding("gcloud", ok=False, found="not installed", fix="https://cloud.google.com/sdk/docs/install, then: gcloud auth login --update-adc")
        return
    try:
        account = project.gcloud("auth", "list", "--filter=status:ACTIVE", "--format=value(account)").strip()
    except UserError as error:
        yield Finding("gcloud", ok=False, found=error.found, fix=error.fix)
    else:
        yield Finding("gcloud", bool(account), account or "nobody is logged in", "gcloud auth login --update-adc")


def _safely(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check that cannot be made is a finding as well."""
    from googleapiclient.errors import HttpError

    found: list[Finding] = []
    try:
        found += check()
    except UserError as error:
        found.append(Finding("bucket", ok=False, found=error.found, fix=error.fix))
    except HttpError as error:
        found.append(Finding(f"API {error.uri.split('/')[2]}", ok=False, found=f"{error.status_code}: {error.reason}", fix=_http_fix(error.status_code)))
    except OSError as error:
        found.append(Finding("network", ok=False, found=str(error), fix="check the connection, then run elson doctor again"))
    return found


def _http_fix(status: int) -> str:
    return "enable the API: pulumi up -s foundation" if status == 403 else "check gcp:project, then run elson doctor again"


def _credentials() -> tuple[Clients | None, Finding]:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except GoogleAuthError:
        return None, Finding("credentials", ok=False, found="libraries have none (Application Default Credentials)", fix="gcloud auth login --update-adc")
    return Clients(credentials), Finding("credentials", ok=True, found=f"application default credentials ({project or 'no default project'})")


def _services(stack: Stack, clients: Clients) -> Iterator[Finding]:
    names = [f"projects/{stack.project}/services/{name}.googleapis.com" for name in SERVICES]
    answer = clients.api("serviceusage", "v1").services().batchGet(parent=f"projects/{stack.project}", names=names).execute()
    states = {service["name"].rsplit("/", 1)[-1].removesuffix(".googleapis.com"): service.get("state") for service in answer.get("services", [])}
    for name in SERVICES:
        ok = states.get(name) == "ENABLED"
        yield Finding(f"API {name}", ok, str(states.get(name, "unknown")).lower(), f"gcloud services enable {name}.googleapis.com --project {stack.project}")


def _quotas(stack: Stack, clients: Clients) -> Iterator[Finding]:
    """The global quota, then that of every place: its region and its kind of card, each once. Cloud Run's cards count against none of these."""
    if stack.spec.machine is None:
        return
    host, region = machine(stack.spec.machine.machine_type), stack.spec.machine.region
    if host.is_run:
        page = f"https://console.cloud.google.com/iam-admin/quotas?project={stack.project}&service=run.googleapis.com"
        yield Finding(f"quota of {host.accelerator.type} on Cloud Run in {region}", ok=False, found="", needs=f"a look at {page}: elson does not know its name")
        return
    compute = clients.api("compute", "v1")
    machines = [spec.machine for spec in places.every(stack.spec) if spec.machine]
    servers = stack.spec.serve.replicas.max
    most = max(machine(wanted.machine_type).count for wanted in machines) * servers
    yield _quota(stack, GLOBAL_GPUS, "global", most, compute.projects().get(project=stack.project).execute())
    regions: dict[str, Any] = {}
    needed: dict[tuple[str, str], int] = {}
    for wanted in machines:
        host = machine(wanted.machine_type)
        key = (host.quota(wanted.provisioning_model), wanted.region)
        needed[key] = max(host.count * servers, needed.get(key, 0))
    for (metric, region), count in needed.items():
        regions[region] = regions.get(region) or compute.regions().get(project=stack.project, region=region).execute()
        yield _quota(stack, metric, region, count, regions[region])


def _quota(stack: Stack, metric: str, place: str, count: int, answer: dict[str, Any]) -> Finding:
    quota = next((entry for entry in answer.get("quotas", []) if entry["metric"] == metric), {"limit": 0.0, "usage": 0.0})
    free = quota["limit"] - quota.get("usage", 0.0)
    ask = (
        f"ask for {count} at https://console.cloud.google.com/iam-admin/quotas?project={stack.project} (metric {metric}, {place}); "
        "new projects start at 0, and an answer takes from minutes to two days"
    )
    elsewhere = stack.spec.machine is not None and place not in ("global", stack.spec.machine.region)
    name = f"quota {metric}{f' in {place}' if elsewhere else ''}"
    return Finding(name, free >= count, f"{quota['limit']:.0f} in {place}, {free:.0f} free, {count} needed", ask)


def _buckets(stack: Stack) -> Iterator[Finding]:
    for uri in (stack.spec.buckets.models, stack.spec.buckets.scratch):
        name = storage.split(uri)[0]
        try:
            with storage.explained(uri):
                storage.client().get_bucket(name, timeout=30)
        except FileNotFoundError:
            yield Finding(f"bucket {name}", ok=False, found="not there", fix="pulumi up -s foundation")
        else:
            yield Finding(f"bucket {name}", ok=True, found="there")


def _images(stack: Stack, clients: Clients | None) -> Iterator[Finding]:
    stages = images_of(stack.role) if stack.spec.machine else IMAGES
    for stage in stages:
        image = getattr(stack.spec.environments, stage)
        parts = _PINNED.fullmatch(image or "")
        if parts is None:
            yield Finding(f"image {stage}", ok=False, found=image or "no digest in the stack file", fix=f"elson images build {stage}")
            continue
        if clients:
            yield _image_there(stage, parts, clients)


def _image_there(stage: str, parts: re.Match[str], clients: Clients) -> Finding:
    from googleapiclient.errors import HttpError

    location, _, host = parts["host"].partition("-docker.")
    if host != "pkg.dev":
        return Finding(f"image {stage}", ok=True, found=f"{parts['path']}@{parts['digest'][:19]}… in {parts['host']}, which is not looked into")
    project, repository, image = parts["path"].split("/", 2)
    name = f"projects/{project}/locations/{location}/repositories/{repository}/dockerImages/{image.replace('/', '%2F')}@{parts['digest']}"
    try:
        clients.api("artifactregistry", "v1").projects().locations().repositories().dockerImages().get(name=name).execute()
    except HttpError as error:
        if error.status_code != 404:
            raise
        return Finding(f"image {stage}", ok=False, found=f"{parts['digest'][:19]}… is not in {repository}", fix=f"elson images build {stage}")
    return Finding(f"image {stage}", ok=True, found=f"{parts['digest'][:19]}… in {repository}")


def _models(stack: Stack) -> Iterator[Finding]:
    spec, buckets = stack.spec, stack.spec.buckets
    if stack.role == "serve":
        for what, one in zip(("model to serve", "second model to serve"), spec.serve.models(), strict=False):
            yield _named(what, functools.partial(registry.to_serve, buckets, one.model), "elson models promote NAME")
    if stack.role != "train":
        return
    yield _named("dataset", lambda: registry.usable(buckets, spec.dataset.name), f"elson data build --publish  (as {spec.dataset.name})")
    yield _named("base model", lambda: registry.usable(buckets, spec.base_model.name), f"elson base publish {spec.base_model.name} --from DIR")
    folder = layout.model(buckets, spec.base_model.name)
    manifest = storage.read_manifest(folder)
    if manifest is None:
        return
    sizes = {stored.path: stored.size for stored in storage.listing(folder)}
    wrong = [path for path, file in manifest.files.items() if sizes.get(path) != file.size]
    found = f"{len(manifest.files)} files, {manifest.total_bytes / 1e9:.1f} GB" if not wrong else f"{wrong[0]} is missing or has another size"
    yield Finding("base model's files", not wrong, found, f"elson base publish {spec.base_model.name} --from DIR")


def _named(what: str, look: Callable[[], registry.Entry], fix: str) -> Finding:
    try:
        entry = look()
    except UserError as error:
        return Finding(what, ok=False, found=error.found, fix=fix)
    return Finding(what, ok=True, found=f"{entry.name} ({entry.id}, {entry.kind})")


def _key(stack: Stack, clients: Clients) -> Iterator[Finding]:
    if stack.role == "train":
        return
    from googleapiclient.errors import HttpError

    parent = f"projects/{stack.project}/secrets/{api_key.NAME}"
    versions = clients.api("secretmanager", "v1").projects().secrets().versions()
    try:
        answer = versions.list(parent=parent, filter="state:ENABLED").execute()
    except HttpError as error:
        if error.status_code != 404:
            raise
        yield Finding("API key", ok=False, found=f"no secret {api_key.NAME}", fix="pulumi up -s foundation")
        return
    enabled = answer.get("versions", [])
    yield Finding("API key", bool(enabled), f"{len(enabled)} enabled versions", f"elson key rotate --project {stack.project}")
