"""A Google Cloud project made ready for elson: login, billing, the first APIs, a place for Pulumi's state, the stacks, and the user's own values.

Everything is looked at first and done after a confirmation; each step finds out by itself whether it is done already. What is Pulumi's to make
(buckets, network, accounts) is not made here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runners.cloud import deploy
from runners.errors import UserError
from runners.planning import stacks
from runners.planning.machines import machine

#: What `pulumi up` needs to be on before it can turn on the rest, and what `elson doctor` asks for quotas.
FIRST_SERVICES = ("cloudresourcemanager", "serviceusage", "compute", "iam", "storage", "cloudbilling", "billingbudgets")
_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_MEMBER = re.compile(r"(user|group|serviceAccount|domain):\S+")


@dataclass(frozen=True)
class ProjectState:
    """What is there before anything is changed."""

    account: str
    has_application_credentials: bool
    billing_account: str
    billing_accounts: tuple[str, ...]
    backend: str


@dataclass(frozen=True)
class Wanted:
    """The user's answers. No billing account: no budget. ``backend`` is where Pulumi keeps its state."""

    project: str
    region: str
    backend: str
    billing_account: str | None = None
    operators: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    budget_per_month: float = 50.0


@dataclass(frozen=True)
class InitTask:
    """One thing to do, in words, and the call that does it."""

    text: str
    run: Callable[[], object] = field(repr=False)


def tools() -> None:
    """Raise UserError with everything that is not installed."""
    problems = []
    if not shutil.which("gcloud"):
        problems.append(UserError("gcloud is not installed", "Google Cloud's command line", "https://cloud.google.com/sdk/docs/install"))
    try:
        deploy.command()
    except UserError as error:
        problems.append(error)
    if problems:
        raise UserError("; ".join(p.found for p in problems), problems[0].expected, "; ".join(p.fix for p in problems))


def look(project: str) -> ProjectState:
    """Login, billing and Pulumi's backend. Raises UserError for a project that cannot be read."""
    account = gcloud("auth", "list", "--filter=status:ACTIVE", "--format=value(account)").strip()
    if not account:
        return ProjectState("", has_application_credentials=False, billing_account="", billing_accounts=(), backend="")
    about = json.loads(gcloud("projects", "describe", project, "--format=json"))
    if about.get("lifecycleState") != "ACTIVE":
        raise UserError(f"the project {project} is {about.get('lifecycleState')}", "ACTIVE", "pass another --project")
    linked = json.loads(gcloud("billing", "projects", "describe", project, "--format=json"))
    accounts = tuple(
        row["name"].removeprefix("billingAccounts/") for row in json.loads(gcloud("billing", "accounts", "list", "--filter=open=true", "--format=json"))
    )
    billing = linked.get("billingAccountName", "").removeprefix("billingAccounts/") if linked.get("billingEnabled") else ""
    try:
        backend = deploy.login().url
    except UserError:
        backend = ""
    return ProjectState(account.splitlines()[0], _has_credentials(), billing, accounts, backend)


def log_in() -> None:
    """Both logins in one browser visit: gcloud's own, and the credentials that libraries use. Needs a terminal."""
    if subprocess.run(["gcloud", "auth", "login", "--update-adc"], check=False).returncode:
        raise UserError("the login did not succeed", "an account of Google Cloud", "gcloud auth login --update-adc")


def answers(
    project: str,
    found: ProjectState,
    *,
    yes: bool,
    no_budget: bool,
    ask: Callable[..., str],
    billing_account: str | None,
    region: str,
    operators: tuple[str, ...],
    emails: tuple[str, ...],
    budget: float,
    backend: str | None,
) -> Wanted:
    """The options, and for the rest the defaults or a question. Raises UserError where there is no default and nobody to ask."""
    billing = billing_account or found.billing_account
    if not billing and found.billing_accounts:
        only = found.billing_accounts[0] if len(found.billing_accounts) == 1 else None
        billing = ask(f"billing account ({', '.join(found.billing_accounts)})", yes, "--billing-account", only)
    if not billing:
        raise UserError(
            f"{project} has no billing account, and {found.account} may use none",
            "an open billing account",
            "https://console.cloud.google.com/billing, or ask its owner for roles/billing.user; then elson init again",
        )
    # A budget needs the right to see the account; the project may be linked to one that only its owner sees.
    sees = billing_account is not None or billing in found.billing_accounts
    if not no_budget and not sees:
        raise UserError(
            f"{found.account} may not see the billing account {billing} of {project}, so it can make no budget",
            "roles/billing.costsManager on it",
            "ask its owner; or elson init --no-budget (then nothing stops at a month's sum)",
        )
    person = f"user:{found.account}" if not found.account.endswith(".gserviceaccount.com") else f"serviceAccount:{found.account}"
    return Wanted(
        project,
        region if yes else ask("region", yes, "--region", region),
        backend or found.backend or f"gs://{project}-elson-state",
        None if no_budget else billing,
        operators or (person,),
        emails or ((found.account,) if person.startswith("user:") else ()),
        budget,
    )


def shown(wanted: Wanted, found: ProjectState) -> list[str]:
    """The answers, for a person to agree to."""
    budget = (
        f"{wanted.budget_per_month:g} a month, in the currency of {wanted.billing_account}"
        if wanted.billing_account
        else "none: nothing stops at a month's sum"
    )
    return [
        f"project    {wanted.project} ({found.account})",
        f"region     {wanted.region}",
        f"budget     {budget}; alerts to {', '.join(wanted.emails) or 'nobody'}",
        f"operators  {', '.join(wanted.operators)}",
        f"state      {wanted.backend}",
    ]


def check(wanted: Wanted) -> None:
    """Raise UserError for an answer that cannot be right."""
    if not _PROJECT.fullmatch(wanted.project):
        raise UserError(f"{wanted.project!r} is no project id", "6 to 30 lower-case letters, digits and hyphens", "gcloud projects list")
    for member in wanted.operators:
        if not _MEMBER.fullmatch(member):
            raise UserError(f"the operator {member!r} is no member", "user:me@example.org, group:…", "pass --operator user:me@example.org")
    for name in stacks.names():
        spec = stacks.load(name).spec
        host = machine(spec.machine.machine_type) if spec.machine and _moves(name) and spec.machine.provisioning_model != "RUN" else None
        if host and not host.zones_in(wanted.region):
            known = ", ".join(region for region, _ in host.zones)
            raise UserError(f"no zone of {wanted.region} is known to have {host.name}, the machine of {name}", f"one of {known}", "pass another --region")


def tasks(wanted: Wanted, found: ProjectState) -> list[InitTask]:
    """What is to be done, in order. Pure; each task runs later."""
    todo = []
    project = f"--project={wanted.project}"
    if wanted.billing_account and wanted.billing_account != found.billing_account:
        link = ("billing", "projects", "link", wanted.project, f"--billing-account={wanted.billing_account}")
        todo.append(InitTask(f"link {wanted.project} to the billing account {wanted.billing_account}", lambda: gcloud(*link)))
    services = [f"{name}.googleapis.com" for name in FIRST_SERVICES]
    todo.append(InitTask(f"turn on {len(services)} APIs", lambda: gcloud("services", "enable", *services, project)))
    todo.append(InitTask(f"charge API calls to {wanted.project}", lambda: _quota_project(wanted.project)))
    if wanted.backend != found.backend:
        todo.append(InitTask(f"keep Pulumi's state in {wanted.backend}", lambda: _backend(wanted)))
    names = stacks.names()
    todo.append(InitTask(f"make the stacks {', '.join(names)}", lambda: [deploy.select(name, make=True) for name in names]))
    todo.append(InitTask("write your values to infra/stacks/mine (ignored by git)", lambda: [stacks.remember(name, values(name, wanted)) for name in names]))
    return todo


def values(name: str, wanted: Wanted) -> dict[str, Any]:
    """What the user's own file of a stack says."""
    spec: dict[str, Any] = {"machine": {"region": wanted.region}} if _moves(name) else {}
    if stacks.load(name).role == "foundation":
        own = {"billing_account": wanted.billing_account, "operators": list(wanted.operators), "alert_emails": list(wanted.emails)}
        spec = {"foundation": {"region": wanted.region, "budget_per_month": wanted.budget_per_month, **own}}
    return {"gcp:project": wanted.project, "elson:spec": spec}


def _moves(name: str) -> bool:
    """Whether a stack is where the foundation is; one whose tracked file names a region stays there."""
    return "region" not in (stacks.tracked(name) or {}).get("machine", {})


def _backend(wanted: Wanted) -> None:
    if wanted.backend.startswith("gs://"):
        where = f"--project={wanted.project}"
        if gcloud("storage", "buckets", "list", where, f"--filter=name={wanted.backend.removeprefix('gs://')}", "--format=value(name)").strip() == "":
            gcloud(
                *("storage", "buckets", "create", wanted.backend, where, f"--location={wanted.region}"),
                *("--uniform-bucket-level-access", "--public-access-prevention"),
            )
            # A state that is overwritten by mistake can be brought back.
            gcloud("storage", "buckets", "update", wanted.backend, "--versioning")
    deploy.log_in(wanted.backend)


def _quota_project(project: str) -> None:
    """Credentials of a person name the project that their calls count against; those of an account know it."""
    import google.auth

    credentials, _ = google.auth.default()
    if type(credentials).__module__ == "google.oauth2.credentials":
        gcloud("auth", "application-default", "set-quota-project", project)


def _has_credentials() -> bool:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except GoogleAuthError:
        return False
    return True


#: What gcloud says -> what to do.
_KNOWN = (
    ("does not have permission to access projects|not found or you do not have", "gcloud projects list, or gcloud projects create PROJECT_ID"),
    ("billing account.*(not found|not open|closed)", "pass --billing-account (gcloud billing accounts list)"),
    ("billing.*permission|permission.*billing", "ask the billing account's owner for roles/billing.user (and roles/billing.costsManager for the budget)"),
    ("permission", "ask the project's owner for roles/owner, or for roles/editor and roles/resourcemanager.projectIamAdmin"),
    ("reauth|invalid_grant|refresh.*token|not currently have an active account", "gcloud auth login --update-adc"),
    ("requested bucket name is not available|already exists|409", "that name is taken by somebody else: pass --backend gs://ANOTHER-NAME"),
)


def gcloud(*arguments: str) -> str:
    """gcloud's stdout. Raises UserError with its own words and what to do."""
    done = subprocess.run(["gcloud", *arguments, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    said = " ".join(line.strip() for line in done.stderr.splitlines() if line.strip()).removeprefix("ERROR: ")[:500] or "it said nothing"
    fix = next((fix for pattern, fix in _KNOWN if re.search(pattern, said, re.IGNORECASE)), f"try it by hand: gcloud {' '.join(arguments)}")
    raise UserError(f"`gcloud {' '.join(arguments[:3])}` failed: {said}", "it to succeed", f"{fix}; then elson init again")
