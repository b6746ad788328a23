"""A stand-in for `gcloud`: the calls that elson makes, with an account, projects, billing and APIs that can be missing or refused.

Its flags are held against the real command's own table where gcloud is installed (test_stand_ins.py). State: STANDIN/gcloud.json.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from baked_disk import brought, copied

FILE = Path(os.environ["STANDIN"]) / "gcloud.json"
DISKS = FILE.with_name("disks")
DIGEST = "sha256:" + "ab" * 32
GLOBAL = {"--project", "--format", "--quiet", "--filter"}
#: command -> its own flags
COMMANDS: dict[str, set[str]] = {
    "auth list": set(),
    "auth login": {"--update-adc"},
    "auth application-default set-quota-project": set(),
    "projects describe": set(),
    "billing accounts list": set(),
    "billing projects describe": set(),
    "billing projects link": {"--billing-account"},
    "services enable": set(),
    "storage buckets list": set(),
    "storage buckets create": {"--location", "--uniform-bucket-level-access", "--public-access-prevention"},
    "storage buckets update": {"--versioning"},
    "builds submit": {
        "--config",
        "--substitutions",
        "--region",
        "--service-account",
        "--gcs-source-staging-dir",
        "--gcs-log-dir",
        "--default-buckets-behavior",
    },
    "artifacts docker images describe": set(),
    "compute instances create": {
        *("--zone", "--machine-type", "--boot-disk-size", "--boot-disk-type", "--image", "--image-project", "--image-family", "--subnet", "--no-address"),
        *("--service-account", "--scopes", "--max-run-duration", "--instance-termination-action", "--metadata", "--metadata-from-file", "--no-service-account"),
        "--labels",
    },
    "compute instances describe": {"--zone"},
    "compute instances get-guest-attributes": {"--zone", "--query-path"},
    "compute instances stop": {"--zone"},
    "compute instances delete": {"--zone"},
    "compute images create": {"--source-disk", "--source-disk-zone", "--family", "--labels"},
    "compute images describe": set(),
    "compute images delete": set(),
}


class Failed(Exception):
    """Exit 1 and a text."""


def main(arguments: list[str]) -> str:
    state = json.loads(FILE.read_text())
    state["calls"].append(arguments)
    FILE.write_text(json.dumps(state))
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(word.partition("=")[::2] for word in arguments if word.startswith("--"))
    command = next((known for known in sorted(COMMANDS, key=len, reverse=True) if " ".join(words).startswith(known)), None)
    if command is None:
        sys.exit(f"ERROR: (gcloud) Invalid choice: '{' '.join(words)}'.")
    if unknown := set(flags) - COMMANDS[command] - GLOBAL:
        print(f"ERROR: (gcloud.{command.replace(' ', '.')}) unrecognized arguments: {' '.join(sorted(unknown))}", file=sys.stderr)
        sys.exit(2)
    if command in state["refused"]:
        raise Failed(state["refused"][command])
    if not state["account"] and not command.startswith("auth"):
        raise Failed("You do not currently have an active account selected.\nPlease run:\n\n  $ gcloud auth login")
    answer = answered(command, words[len(command.split()) :], flags, state)
    FILE.write_text(json.dumps(state))
    if state.get("kills_after") == command:  # the command goes on; who called it does not
        os.kill(os.getppid(), signal.SIGKILL)
    return answer


def answered(command: str, words: list[str], flags: dict[str, str], state: dict[str, Any]) -> str:
    if command == "auth list":
        return state["account"]
    if command == "auth login":
        state["account"] = "me@example.org"
        adc = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
        (Path(os.environ["CLOUDSDK_CONFIG"]) / "application_default_credentials.json").write_text(json.dumps(adc))
        return ""
    if command == "auth application-default set-quota-project":
        state["quota_project"] = words[0]
        return ""
    if command == "billing accounts list":
        return json.dumps([{"name": f"billingAccounts/{name}", "open": True} for name in state["billing_accounts"]])
    if command == "storage buckets update":
        if words[0].removeprefix("gs://") not in state["buckets"]:
            raise Failed(f"{words[0]} not found: 404.")
        return ""
    name = flags.get("--project") or (words[0] if words else "")
    if name not in state["projects"]:
        raise Failed(
            f"(gcloud.{command.replace(' ', '.')}) [me@example.org] does not have permission to access projects instance [{name}] (or it may not exist)"
        )
    project = state["projects"][name]
    vms, boot_images = state.setdefault("vms", {}), state.setdefault("boot_images", {})
    if command == "projects describe":
        return json.dumps({"projectId": name, "lifecycleState": project["lifecycle"], "projectNumber": "123456789"})
    if command == "billing projects describe":
        return json.dumps(
            {"billingAccountName": f"billingAccounts/{project['billing']}" if project["billing"] else "", "billingEnabled": bool(project["billing"])}
        )
    if command == "billing projects link":
        if flags["--billing-account"] not in state["billing_accounts"]:
            raise Failed("PERMISSION_DENIED: The caller does not have permission on the billing account")
        project["billing"] = flags["--billing-account"]
    elif command == "services enable":
        if not project["billing"]:
            raise Failed(f"FAILED_PRECONDITION: Billing account for project '{name}' is not found. Billing must be enabled for activation of service(s) …")
        project["services"] = sorted({*project["services"], *words})
    elif command == "storage buckets list":
        wanted = flags["--filter"].removeprefix("name=")
        return wanted if wanted in state["buckets"] else ""
    elif command == "storage buckets create":
        bucket = words[0].removeprefix("gs://")
        if bucket in state["taken"]:
            raise Failed("HTTPError 409: The requested bucket name is not available.")
        body = json.dumps({"name": bucket}).encode()
        url = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b?project={name}"
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}), timeout=30).close()
        state["buckets"].append(bucket)
    elif command == "compute instances create":
        given = {key: Path(file).read_text() for key, file in (pair.split("=", 1) for pair in flags["--metadata-from-file"].split(","))}
        asked = set(re.findall(r"instance/attributes/([a-z-]+)", given["startup-script"]))
        assert asked <= given.keys(), f"404 for {asked - given.keys()}"
        if words[0] in vms:
            raise Failed(f"Could not fetch resource: The resource '{words[0]}' already exists")
        vms[words[0]] = "RUNNING"
        said = brought(DISKS / words[0], given["elson-bring"], list(json.loads(given["elson-images"]).values()))
        if said != "done":
            state["baked"] = said
    elif command.startswith("compute instances"):
        if words[0] not in vms:
            raise Failed(f"Could not fetch resource: The resource '{words[0]}' was not found")
        if command.endswith("describe"):
            return str(vms[words[0]])
        if command.endswith("get-guest-attributes"):
            return state.get("baked", "done")
        if command.endswith("stop"):
            vms[words[0]] = "TERMINATED"
        else:
            del vms[words[0]]
            shutil.rmtree(DISKS / words[0], ignore_errors=True)
    elif command == "compute images create":
        if words[0] in boot_images:
            raise Failed(f"Could not fetch resource: The resource '{words[0]}' already exists")
        if vms.get(flags["--source-disk"]) != "TERMINATED":
            raise Failed("The disk resource is already being used by a running instance, or not there")
        for label in filter(None, flags.get("--labels", "").split(",")):
            key, _, value = label.partition("=")
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
                raise Failed(f"Invalid value for field 'resource.labels': '{label}'")
        copied(DISKS / flags["--source-disk"], DISKS / "images" / words[0])
        boot_images[words[0]] = state.get("image_status", "READY")
        if boot_images[words[0]] != "READY":
            FILE.write_text(json.dumps(state))
            raise Failed("Could not create the image: an internal error occurred")
    elif command.startswith("compute images"):
        if words[0] not in boot_images:
            raise Failed(f"Could not fetch resource: The resource '{words[0]}' was not found")
        if command.endswith("describe"):
            return str(boot_images[words[0]])
        del boot_images[words[0]]
    elif command == "builds submit":
        given = dict(pair.split("=", 1) for pair in flags["--substitutions"].split(","))
        state["images"].append(given["_IMAGE"])
    elif command == "artifacts docker images describe":
        if words[0] not in state["images"]:
            raise Failed(f"Image not found: {words[0]}")
        return DIGEST
    return ""


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except Failed as failed:
        print(f"ERROR: {failed}", file=sys.stderr)
        sys.exit(1)
