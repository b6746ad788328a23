"""Pulumi's Automation API on this project's program: what ``elson up`` and ``elson down`` ask of the Pulumi command.

The program, its stacks and its state are those of ``pulumi up -s STACK``; nothing is kept here. Pulumi's own lines go to stderr while they come;
when it fails, its error diagnostics become the one error that a person reads.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runners import log
from runners.cloud.taken import EXISTS, UnmanagedResource, taken, unknown_to_the_state
from runners.environments import ROOT
from runners.errors import UserError
from runners.planning import stacks

#: The first with exit codes by category; the flags used here are older.
MINIMUM = (3, 200)
INSTALL = "https://www.pulumi.com/docs/iac/download-install/ (Linux and macOS: curl -fsSL https://get.pulumi.com | sh), then a new shell"
_MARKUP = re.compile(r"<\{%.*?%\}>")
_LOGIN = re.compile(r"PULUMI_ACCESS_TOKEN must be set|not logged in|pulumi login|invalid access token", re.IGNORECASE)


@dataclass(frozen=True)
class Login:
    """Where Pulumi keeps the state, and as whom. ``url`` is empty where the command does not say."""

    user: str
    url: str


@functools.cache
def command() -> Any:
    """The Pulumi command on PATH. Raises UserError when it is missing or too old."""
    from pulumi.automation import InvalidVersionError, PulumiCommand

    try:
        found = PulumiCommand()
    except FileNotFoundError:
        raise UserError("the Pulumi command is not installed", f"pulumi {_minimum()} or newer on PATH", INSTALL) from None
    except InvalidVersionError as error:
        raise UserError(f"the Pulumi command cannot be used: {error}", f"pulumi {_minimum()} or newer", INSTALL) from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"`pulumi version` failed: {error}", "its version", INSTALL) from None
    if found.version and (found.version.major, found.version.minor) < MINIMUM:
        raise UserError(f"the Pulumi command is of version {found.version}", f"{_minimum()} or newer", INSTALL)
    return found


def _minimum() -> str:
    return ".".join(map(str, MINIMUM))


def workspace() -> Any:
    """This project as Pulumi sees it."""
    from pulumi.automation import LocalWorkspace

    # State and configuration hold no secret of ours (the API key is in Secret Manager alone), and Pulumi wants a passphrase all the same.
    unlocked = {} if {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & set(os.environ) else {"PULUMI_CONFIG_PASSPHRASE": ""}
    return LocalWorkspace(work_dir=str(ROOT), pulumi_command=command(), env_vars=unlocked)


def login() -> Login:
    """Who is logged in to Pulumi, and where. Raises UserError when nobody is."""
    from pulumi.automation import CommandError

    here = workspace()
    try:
        found = here.who_am_i()
    except CommandError as error:
        if _LOGIN.search(str(error)):
            raise UserError(
                "nobody is logged in to Pulumi", "a place for its state", "elson init, or pulumi login gs://A-BUCKET-OF-YOURS (--local: this machine)"
            ) from None
        raise _explained("whoami", "", error, []) from None
    return Login(found.user, found.url or "")


def log_in(url: str) -> None:
    """Keep the state at ``url`` (``gs://…``, ``file://…``, or Pulumi's own service). Raises UserError."""
    here = workspace()
    done = subprocess.run([here.pulumi_command.command, "login", url, "--non-interactive"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`pulumi login {url}` failed: {_last(done.stderr)}", "a bucket or folder that you may write", "pass another --backend")


def select(name: str, *, make: bool = False) -> Any:
    """A stack of the program, made when it is not there and ``make`` is set; None when it is not there. Raises UserError."""
    from pulumi.automation import CommandError, Stack, StackNotFoundError

    try:
        return Stack.create_or_select(name, workspace()) if make else Stack.select(name, workspace())
    except StackNotFoundError:
        return None
    except CommandError as error:
        raise _explained("stack select", name, error, []) from None


def outputs(name: str) -> dict[str, Any]:
    """What a stack's last ``up`` gave out; empty when it was never made."""
    stack = select(name)
    return {key: output.value for key, output in stack.outputs().items()} if stack else {}


def resources(name: str) -> int:
    """How many resources a stack has now, by Pulumi's state."""
    stack = select(name)
    deployment = stack.export_stack().deployment if stack else None
    return sum(1 for resource in (deployment or {}).get("resources", []) if resource["type"] != "pulumi:pulumi:Stack" and resource.get("custom"))


def up(name: str) -> dict[str, Any]:
    """``pulumi up --refresh``; returns the outputs. Raises UserError.

    The state is refreshed first: a group that emptied itself has size 0 in the cloud and 1 in the state.
    """
    stack = select(name, make=True)
    try:
        done = _up(stack, name)
    except AlreadyThere as error:
        mine = [one for one in error.found_there if one.urn in _being_made(stack)]
        _take_over(stack, mine)
        if others := [one for one in error.found_there if one not in mine]:
            raise unknown_to_the_state(name, others) from None
        done = _up(stack, name)
    if _being_made(stack):
        # Made by this update, or without a name of its own; left there, each later update would warn of it.
        with _watched("refresh", name):
            stack.refresh(clear_pending_creates=True, color="never", on_output=_show)
    return {key: output.value for key, output in done.outputs.items()}


def _up(stack: Any, name: str) -> Any:
    with _watched("up", name) as watch:
        return stack.up(refresh=True, color="never", on_output=_show, on_event=watch)


def _being_made(stack: Any) -> set[str]:
    """URNs of what an update was making when it was cut off. Pulumi keeps them until a refresh is told what became of them."""
    pending = (stack.export_stack().deployment or {}).get("pending_operations") or []
    return {operation["resource"]["urn"] for operation in pending if operation["type"] == "creating"}


def _take_over(stack: Any, found: list[UnmanagedResource]) -> None:
    """Tell Pulumi the IDs of what the update that was cut off has made. The Automation API has no word for it."""
    if not found:
        return
    for one in found:
        _show(f"{one} was made by an update that was cut off: taken over")
    pairs = [word for one in found for text in (one.urn, one.id) for word in ("--import-pending-creates", text)]
    call = ["refresh", "--yes", "--skip-preview", "--clear-pending-creates", *pairs, "--stack", stack.name, "--color", "never"]
    with _watched("refresh", stack.name):
        stack.workspace.pulumi_command.run(call, stack.workspace.work_dir, stack.workspace.env_vars, _show)


def preview(name: str) -> dict[str, int]:
    """What ``up`` would do: resources by operation. Raises UserError."""
    stack = select(name, make=True)
    with _watched("preview", name) as watch:
        return _counts(stack.preview(color="never", on_output=_show, on_event=watch).change_summary)


def destroy(name: str, *, keep_protected: bool) -> None:
    """``pulumi destroy``; what is protected stays where ``keep_protected`` is set. Raises UserError."""
    stack = select(name)
    with _watched("destroy", name) as watch:
        stack.destroy(refresh=True, exclude_protected=keep_protected or None, color="never", on_output=_show, on_event=watch)


def _counts(changes: Any) -> dict[str, int]:
    return {str(getattr(kind, "value", kind)): count for kind, count in changes.items()}


def _show(line: str) -> None:
    if line.strip():
        log.say(f"  {line}", err=True)


@contextmanager
def _watched(verb: str, name: str) -> Iterator[Any]:
    """Collects Pulumi's error diagnostics; they say what the command's last line only counts. Raises UserError."""
    from pulumi.automation import CommandError

    errors: dict[str, list[str]] = {}
    refused: list[Any] = []

    def watch(event: Any) -> None:
        if (said := event.diagnostic_event) and said.severity == "error" and not said.ephemeral:
            errors.setdefault(said.urn or "", []).append(_MARKUP.sub("", said.message).strip().removeprefix("error: "))
        if event.res_op_failed_event and event.res_op_failed_event.metadata.new:
            refused.append(event.res_op_failed_event.metadata.new)

    try:
        yield watch
    except CommandError as error:
        texts = [text for some in errors.values() for text in some]
        explained = _explained(verb, name, error, texts)
        if refused and all(EXISTS.search(" ".join(errors.get(one.urn, []))) for one in refused):
            project = stacks.load(name).project
            there = [taken(one.urn, one.parent, one.inputs or {}, project) for one in refused]
            if all(there):
                raise AlreadyThere(explained, [one for one in there if one]) from None
        raise explained from None


class AlreadyThere(UserError):
    """An update failed for nothing but things that are in the cloud and not in the state."""

    def __init__(self, error: UserError, found: list[UnmanagedResource]) -> None:
        super().__init__(error.found, error.expected, error.fix)
        self.found_there = found


def _explained(verb: str, name: str, error: Exception, errors: list[str]) -> UserError:
    """One error of what Pulumi said: the program's own refusal word for word, a provider's message with the command to run again."""
    from pulumi.automation import ConcurrentUpdateError

    if isinstance(error, ConcurrentUpdateError):
        return UserError(
            f"another update of {name} is running, or one was cut off",
            "one at a time",
            f"wait for it; if there is none: pulumi cancel -s {name}, then: {_again(verb, name)}",
        )
    if "incorrect passphrase" in str(error):
        return UserError(
            f"{name} was made with another passphrase", "the one it was made with", "export PULUMI_CONFIG_PASSPHRASE=…, then the same command again"
        )
    own = next((text for text in errors if "\n  fix:" in text), None)
    if own:
        found, _, rest = own.partition("\n  expected: ")
        expected, _, fix = rest.partition("\n  fix:      ")
        return UserError(found, expected, fix)
    found = "; ".join(dict.fromkeys(_shortened(text) for text in errors)) or _last(str(error))
    return UserError(f"pulumi {verb} {name}: {found}".replace("  ", " "), "it to succeed; what it made is kept", _fix(found, verb, name))


#: What Google says -> what to do.
_KNOWN = (
    (r"quota .*exceeded|QUOTA_EXCEEDED|Quota '", "ask for the quota: elson doctor names it and the page"),
    (r"billing account for project|BILLING_DISABLED|billing to be enabled", "link a billing account: elson init --billing-account ID"),
    (r"billing.*(permission|denied)|billingbudgets", "ask the billing account's owner for roles/billing.costsManager, or: elson init --no-budget"),
    (r"has not been used in project|SERVICE_DISABLED|it is disabled", "wait two minutes for the APIs, then run the same command again"),
    (r"could not find default credentials|invalid_grant|reauth", "gcloud auth login --update-adc"),
    (r"name is not available", "somebody else has a bucket of that name: set another under buckets in infra/stacks/mine"),
    (EXISTS.pattern, "it is in the cloud and not in Pulumi's state: delete it with gcloud, or pulumi import it"),
    (r"Permission .* denied|does not have .* access|forbidden", "ask the project's owner for the missing role"),
)


def _fix(text: str, verb: str, name: str) -> str:
    found = next((fix for pattern, fix in _KNOWN if re.search(pattern, text, re.IGNORECASE)), "")
    again = _again(verb, name)
    return f"{found}; then: {again}" if found else f"correct that, then run it again: {again}"


def _again(verb: str, name: str) -> str:
    return {"up": f"elson up {name}", "destroy": f"elson down {name}"}.get(verb, f"pulumi {verb}")


def _shortened(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:600]


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()] or [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("stderr:").strip().removeprefix("error: ")[:600] if lines else "it said nothing"
