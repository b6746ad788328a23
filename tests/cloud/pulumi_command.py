"""A stand-in for the `pulumi` command. It refuses unknown flags and commands, calls without a login, a missing passphrase, protected resources.

`up` and `preview` run the program for real, against the stand-in engine of tests/infra; buckets and objects appear in the storage emulator, groups and
APIs in STANDIN. Flags, words and exit codes are those of the command's source and documentation (v3.226.1 and later: 2 configuration, 3 login, 4 resources,
6 no such stack). What is in the cloud and not in the state is answered with 409, as Google does. `cut.json` names a resource at which the command is killed:
it is made, the state has a pending operation, and the lock stays. Left out: providers, diffs of properties, secrets.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from provided import cloud_id, delete, has_bucket, make, taken, there

VERSION = "v3.272.0"
STANDIN = Path(os.environ["STANDIN"])
HOME = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
NONE, ONE = False, True
EVERYWHERE = {
    "--non-interactive": NONE,
    "--color": ONE,
    "-C": ONE,
    "--cwd": ONE,
    "--emoji": NONE,
    "-e": NONE,
    "--logtostderr": NONE,
    "-v": ONE,
    "--verbose": ONE,
}
STACK = {"--stack": ONE, "-s": ONE}
UPDATE = {
    **STACK,
    "--exec-kind": ONE,
    "--event-log": ONE,
    "--message": ONE,
    "-m": ONE,
    "--parallel": ONE,
    "-p": ONE,
    "--target": ONE,
    "-t": ONE,
    "--json": NONE,
    "-j": NONE,
    "--refresh": NONE,
    "-r": NONE,
    "--diff": NONE,
    "--suppress-outputs": NONE,
    "--suppress-progress": NONE,
    "--config-file": ONE,
    "--policy-pack": ONE,
}
YES = {"--yes": NONE, "-y": NONE, "--skip-preview": NONE, "-f": NONE}
COMMANDS: dict[str, dict[str, bool]] = {
    "version": {},
    "whoami": {"--json": NONE, "-j": NONE},
    "login": {"--local": NONE, "-l": NONE, "--cloud-url": ONE, "-c": ONE, "--interactive": NONE},
    "stack select": {**STACK, "--create": NONE, "-c": NONE, "--secrets-provider": ONE},
    "stack init": {**STACK, "--secrets-provider": ONE, "--no-select": NONE, "--copy-config-from": ONE},
    "stack output": {**STACK, "--json": NONE, "-j": NONE, "--show-secrets": NONE, "--shell": NONE},
    "stack export": {**STACK, "--show-secrets": NONE, "--file": ONE, "--version": ONE},
    "stack history": {**STACK, "--json": NONE, "--show-secrets": NONE, "--page-size": ONE, "--page": ONE, "--full-dates": NONE},
    "preview": {**UPDATE, "--save-plan": ONE, "--expect-no-changes": NONE},
    "up": {**UPDATE, **YES, "--plan": ONE, "--expect-no-changes": NONE},
    "refresh": {**UPDATE, **YES, "--clear-pending-creates": NONE, "--skip-pending-creates": NONE, "--import-pending-creates": ONE},
    "import": {**STACK, **YES, "--parent": ONE, "--provider": ONE, "--protect": ONE, "--generate-code": ONE, "--file": ONE},
    "cancel": {**STACK, **YES},
    "destroy": {**UPDATE, **YES, "--preview-only": NONE, "--exclude-protected": NONE, "--remove": NONE},
}


class Failed(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def parse(arguments: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """(command, flags, positional words); Failed for whatever the command does not know."""
    words, given, rest, at = [], {}, list(arguments), 0
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            name, has_value, value = word.partition("=")
            known = EVERYWHERE | COMMANDS.get(" ".join(words[:2]), {}) | COMMANDS.get(" ".join(words[:1]), {})
            if name not in known:
                raise Failed(2, f"unknown flag: {name}")
            if known[name] and not has_value:
                if not rest:
                    raise Failed(2, f"flag needs an argument: {name}")
                value = rest.pop(0)
            if name == "--import-pending-creates" and name in given:
                value = f"{given[name]}\n{value}"
            given[{"-s": "--stack", "-j": "--json", "-y": "--yes", "-f": "--skip-preview", "-r": "--refresh"}.get(name, name)] = value or "true"
        else:
            words.append(word)
    for length in (2, 1):
        if " ".join(words[:length]) in COMMANDS:
            at = length
            break
    if not at:
        raise Failed(2, f'unknown command "{" ".join(words)}" for "pulumi"')
    return " ".join(words[:at]), given, words[at:]


# --- where things are ---------------------------------------------------------------------------------------------------------------------


def backend() -> str:
    found = os.environ.get("PULUMI_BACKEND_URL") or (
        json.loads((HOME / "credentials.json").read_text())["current"] if (HOME / "credentials.json").exists() else ""
    )
    if not found:
        raise Failed(3, "PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions")
    return found


def project() -> tuple[Path, dict[str, Any]]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").exists():
            return folder, yaml.safe_load((folder / "Pulumi.yaml").read_text())
    raise Failed(2, "no Pulumi.yaml project file found (searching upwards from " + str(here) + ")")


def state_file(name: str) -> Path:
    return STANDIN / "backends" / urllib.parse.quote(backend(), safe="") / f"{name}.json"


def read_state(name: str) -> dict[str, Any]:
    file = state_file(name)
    if not file.exists():
        raise Failed(6, f"no stack named '{name}' found")
    return dict(json.loads(file.read_text()))


def write_state(name: str, state: dict[str, Any]) -> None:
    file = state_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(state))


def config_file(name: str) -> Path:
    root, about = project()
    return root / about.get("stackConfigDir", ".") / f"Pulumi.{name}.yaml"


def passphrase() -> None:
    if not backend().startswith("http") and not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & set(os.environ):
        raise Failed(
            2, "getting stack configuration: passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
        )


# --- commands -----------------------------------------------------------------------------------------------------------------------------


def run(command: str, flags: dict[str, str], words: list[str]) -> None:
    name = flags.get("--stack") or (words[0] if words else "")
    if command == "version":
        print(VERSION)
    elif command == "whoami":
        url = backend()
        print(json.dumps({"user": "a-person", "url": url}) if "--json" in flags else "a-person")
    elif command == "login":
        log_in("file://~" if "--local" in flags else flags.get("--cloud-url") or words[0])
    elif command == "stack init":
        backend()
        if state_file(name).exists():
            raise Failed(1, f"stack 'organization/elson/{name}' already exists")
        passphrase()
        file = config_file(name)
        kept = yaml.safe_load(file.read_text()) if file.exists() else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({"encryptionsalt": "v1:salt", **kept}))
        write_state(name, {"resources": [], "outputs": {}, "history": []})
        print(f"Created stack '{name}'")
    elif command == "stack select":
        read_state(name)
    elif command == "stack output":
        print(json.dumps(read_state(name)["outputs"]))
    elif command == "stack export":
        stack = {"type": "pulumi:pulumi:Stack", "custom": False}
        state = read_state(name)
        pending = [{"resource": resource, "type": "creating"} for resource in state.get("pending", [])]
        rows = [stack, *state["resources"]] if state["resources"] else []
        print(json.dumps({"version": 3, "deployment": {"resources": rows, **({"pending_operations": pending} if pending else {})}}))
    elif command == "cancel":
        (STANDIN / f"{name}.lock").unlink(missing_ok=True)
    elif command == "import":
        passphrase()
        take_in(flags["--stack"], flags, words)
    elif command == "stack history":
        print(json.dumps(read_state(name)["history"][-1:]))
    else:
        update(command, name, flags)


def log_in(url: str) -> None:
    if url.startswith("gs://") and not has_bucket(url.removeprefix("gs://").split("/")[0]):
        raise Failed(1, f"problem logging in: unable to open bucket {url}: bucket doesn't exist")
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "credentials.json").write_text(json.dumps({"current": url, "accounts": {url: {}}}))
    print(f"Logged in to {url} as a-person")


def update(command: str, name: str, flags: dict[str, str]) -> None:
    if command != "preview" and not {"--yes", "--skip-preview", "--preview-only"} & set(flags):
        raise Failed(2, "--yes or --skip-preview must be passed in to proceed when running in non-interactive mode")
    state = read_state(name)
    passphrase()
    if (STANDIN / f"{name}.lock").exists():
        raise Failed(
            1, "the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the lock file with `pulumi cancel`."
        )
    begun = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    events: list[dict[str, Any]] = []
    try:
        if command == "refresh":
            changes = refresh(name, flags)
            state = read_state(name)
        else:
            changes = destroy(state, flags, events) if command == "destroy" else apply(command, name, state, flags, events)
        events.append({"summaryEvent": {"durationSeconds": 1, "resourceChanges": changes, "PolicyPacks": {}}})
    finally:
        send(flags.get("--event-log", ""), events)
    if command != "preview":
        entry = {"kind": "update" if command == "up" else command, "startTime": begun, "endTime": begun, "message": "", "environment": {}, "config": {}}
        state["history"].append({**entry, "result": "succeeded", "version": len(state["history"]) + 1, "resourceChanges": changes})
        write_state(name, state)
    print("Resources:\n" + "\n".join(f"    {count} to {kind}" for kind, count in changes.items()))


def apply(command: str, name: str, state: dict[str, Any], flags: dict[str, str], events: list[dict[str, Any]]) -> dict[str, int]:
    # Only here: importing the engine takes seconds.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "infra"))
    import engine
    from conftest import COMPUTED, INVOKES

    root, about = project()
    environment = root / about["runtime"]["options"]["virtualenv"]
    if not (environment / "bin" / "python").exists():
        raise Failed(
            2, f'the \'virtualenv\' option in Pulumi.yaml is set to "{environment.name}", but "{environment}" doesn\'t appear to be a virtual environment'
        )
    file = config_file(name)
    found = (yaml.safe_load(file.read_text()) or {}).get("config", {}) if file.exists() else {}
    config = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    others = {f"organization/elson/{other.stem}": json.loads(other.read_text())["outputs"] for other in state_file(name).parent.glob("*.json")}
    print(f"{'Previewing update' if command == 'preview' else 'Updating'} ({name}):", flush=True)
    did = engine.run(
        root / about["main"], name, config, preview=command == "preview", computed=COMPUTED, invokes=INVOKES, stacks={k: v for k, v in others.items() if v}
    )
    for severity, text in did.logs:
        if severity in ("ERROR", "WARNING", "INFO"):
            shown = f"<{{%fg 1%}}>error: <{{%reset%}}>{text}<{{%reset%}}>\n" if severity == "ERROR" else text
            events.append({"diagnosticEvent": {"message": shown, "color": "raw", "severity": severity.lower()}})
    broken = STANDIN / "fail.json"
    refused = json.loads(broken.read_text()) if broken.exists() else ""
    if did.returncode or (refused and command == "up"):
        if refused:
            events.append({"diagnosticEvent": {"message": f"<{{%fg 1%}}>error: <{{%reset%}}>{refused}<{{%reset%}}>\n", "color": "raw", "severity": "error"}})
        print(f"Diagnostics:\n  pulumi:pulumi:Stack (elson-{name}):\n    {did.errors or refused}")
        raise Failed(4, "update failed" if command == "up" else "preview failed")
    before = {resource["urn"]: resource for resource in state["resources"]}
    now = {resource.urn: resource for resource in did.custom}
    gone = [resource for resource in state["resources"] if resource["urn"] not in now]
    changes = {"create": len(set(now) - set(before)), "same": len(set(now) & set(before)), "delete": len(gone)}
    if command == "up":
        make_all(name, state, did.custom, before, "--refresh" in flags, events)
        for resource in gone:
            delete(resource)
        state["resources"] = [kept(resource) for resource in now.values()]
        state["outputs"] = did.outputs
    return {kind: count for kind, count in changes.items() if count}


def kept(resource: Any) -> dict[str, Any]:
    row = {key: getattr(resource, key) for key in ("urn", "type", "name", "inputs")}
    needs = list(resource.request.dependencies)
    return {**row, "parent": resource.request.parent, "custom": True, "protect": bool(resource.request.protect), "dependencies": needs}


def make_all(name: str, state: dict[str, Any], wanted: list[Any], before: dict[str, dict[str, Any]], refreshed: bool, events: list[dict[str, Any]]) -> None:
    """Make and change what the program asks for, in its order; what cannot be made is left out with all that depends on it."""
    cut = STANDIN / "cut.json"
    cut_at = json.loads(cut.read_text()) if cut.exists() else []
    left_out: set[str] = set()
    done = dict(before)
    for resource in wanted:
        old = before.get(resource.urn)
        mine, found = old and cloud_id(resource.type, old["inputs"]), cloud_id(resource.type, resource.inputs)
        if left_out & set(resource.request.dependencies):
            left_out.add(resource.urn)
        elif found and found != mine and found in there():
            left_out.add(resource.urn)
            step = {"op": "create", "urn": resource.urn, "type": resource.type, "provider": "", "new": {**kept(resource), "id": "", "provider": ""}}
            text = f"<{{%reset%}}>{taken(resource)}<{{%reset%}}>\n"
            events.append({"diagnosticEvent": {"urn": resource.urn, "message": text, "color": "raw", "severity": "error"}})
            events.append({"resOpFailedEvent": {"metadata": step, "status": 0, "steps": 1}})
        elif old and old["inputs"] == resource.inputs and not refreshed:
            continue  # by the state there is nothing to change, whatever became of it in the cloud
        else:
            make(resource)
            if old and mine and mine != found:
                delete(old)
            if resource.key in cut_at:
                # Its dependents wait for it, so they are not begun.
                state["pending"] = [*state.get("pending", []), kept(resource)]
                cut_at.remove(resource.key)
                left_out.add(resource.urn)
            else:
                done[resource.urn] = kept(resource)
                print(f" +  {resource.type} {resource.name} created", flush=True)
            if cut.exists() and not cut_at:
                write_state(name, {**state, "resources": list(done.values())})
                (STANDIN / f"{name}.lock").touch()
                cut.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
    if left_out:
        write_state(name, {**state, "resources": list(done.values())})
        raise Failed(4, "update failed")


def refresh(name: str, flags: dict[str, str]) -> dict[str, int]:
    """Read everything again, and settle what an interrupted update was making: imported by its ID, or forgotten."""
    state, words = read_state(name), flags.get("--import-pending-creates", "").split("\n")
    ids = dict(zip(words[::2], words[1::2], strict=False))
    if words != [""] and len(words) % 2:
        raise Failed(1, "each URN must be followed by an ID: found an odd number of entries")
    for resource in [resource for resource in state.get("pending", []) if resource["urn"] in ids]:
        if ids[resource["urn"]] not in there() or ids[resource["urn"]] != cloud_id(resource["type"], resource["inputs"]):
            raise Failed(4, f"resource '{ids[resource['urn']]}' does not exist")
        state["resources"].append(resource)
        state["pending"].remove(resource)
    if "--clear-pending-creates" in flags:
        state["pending"] = []
    write_state(name, state)
    return {"same": len(state["resources"])}


def take_in(name: str, flags: dict[str, str], words: list[str]) -> None:
    """`pulumi import TYPE NAME ID`."""
    state, (kind, own, found) = read_state(name), words
    parent = flags.get("--parent", "").partition("=")[2]
    if found not in there():
        raise Failed(4, f"resource '{found}' does not exist")
    chain = f"{parent.split('::')[2]}$" if parent else ""
    urn = f"urn:pulumi:{name}::elson::{chain}{kind}::{own}"
    row = {"urn": urn, "type": kind, "name": own, "inputs": there()[found], "parent": parent, "custom": True}
    state["resources"].append({**row, "protect": flags.get("--protect") != "false"})
    write_state(name, state)


def destroy(state: dict[str, Any], flags: dict[str, str], events: list[dict[str, Any]]) -> dict[str, int]:
    protected = [resource for resource in state["resources"] if resource["protect"]]
    if protected and "--exclude-protected" not in flags:
        text = f"Resource {protected[0]['urn']} cannot be deleted\nbecause it is protected. To unprotect the resource,\neither remove the `protect` flag …"
        events.append({"diagnosticEvent": {"message": text, "color": "raw", "severity": "error"}})
        raise Failed(4, "update failed")
    going = [resource for resource in state["resources"] if resource not in protected]
    if "--preview-only" not in flags:
        for resource in reversed(going):  # the program's order backwards: dependents first
            if users := [other["urn"] for other in going if resource["urn"] in other.get("dependencies", []) and other in state["resources"]]:
                raise Failed(4, f"resourceInUseByAnotherResource: {resource['urn']} is used by {users}")
            delete(resource)
            state["resources"].remove(resource)
        state["resources"], state["outputs"] = protected, {}
    return {"delete": len(going)}


def send(where: str, events: list[dict[str, Any]]) -> None:
    """Events to the Automation API: over gRPC to tcp://, else as lines of a file."""
    if not where:
        return
    rows = [json.dumps({"sequence": number, "timestamp": int(time.time()), **event}) for number, event in enumerate(events)]
    if not where.startswith("tcp://"):
        Path(where).write_text("\n".join(rows) + "\n")
        return
    import grpc
    from pulumi.runtime.proto import events_pb2, events_pb2_grpc

    with grpc.insecure_channel(where.removeprefix("tcp://")) as channel:
        events_pb2_grpc.EventsStub(channel).StreamEvents(events_pb2.EventRequest(event=row) for row in rows)


if __name__ == "__main__":
    try:
        run(*parse(sys.argv[1:]))
    except Failed as failed:
        print(f"error: {failed}", file=sys.stderr)
        sys.exit(failed.code)
