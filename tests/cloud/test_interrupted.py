"""An `elson up` after one that was cut off: what is in the cloud and not in Pulumi's state is taken over, or named with the command."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest
from pulumi.automation import CommandError, CommandResult
from pulumi.automation.events import EngineEvent

from runners.cloud import deploy
from runners.errors import UserError
from tests.cloud import provided

from .conftest import PROJECT, Machine


@pytest.fixture
def begun(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine.ok("init", "--project", PROJECT, "--yes")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    return machine


def pulumi(*words: str) -> str:
    done = subprocess.run(["pulumi", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cut_off(machine: Machine, *at: str) -> None:
    """An `elson up foundation` that is killed while it makes ``at``."""
    (machine.standin / "cut.json").write_text(json.dumps(at))
    machine.fails("up", "foundation", "--yes")
    assert "pulumi cancel -s foundation" in machine.fails("up", "foundation", "--yes")
    pulumi("cancel", "--yes", "-s", "foundation")


CUT = ("Bucket models", "Network network", "Account train")


def test_what_an_update_that_was_cut_off_has_made_is_taken_over(begun: Machine) -> None:
    cut_off(begun, *CUT)
    assert {row["name"] for row in begun.state("foundation")["pending"]} == {"models", "network", "train"}
    done = begun.ok("up", "foundation", "--yes")
    assert done.stderr.count("was made by an update that was cut off: taken over") == len(CUT)
    state = begun.state("foundation")
    keys = [f"{row['type'].split(':')[-1]} {row['name']}" for row in state["resources"]]
    assert state["pending"] == [] and all(keys.count(key) == 1 for key in CUT) and state["outputs"]["modelsBucket"]
    assert "taken over" not in begun.ok("up", "foundation", "--yes").stderr


def test_what_google_names_itself_leaves_no_pending_operation(begun: Machine) -> None:
    cut_off(begun, "AlertPolicy alert-failed")
    begun.ok("up", "foundation", "--yes")
    assert begun.state("foundation")["pending"] == []


def test_what_no_update_of_this_state_was_making_is_named_with_the_commands(begun: Machine) -> None:
    begun.ok("up", "foundation", "--yes")
    (file,) = begun.standin.glob("backends/*/foundation.json")
    kept = json.loads(file.read_text())
    lost = [row for row in kept["resources"] if row["name"] in ("network", "scratch") and provided.cloud_id(row["type"], row["inputs"])]
    file.write_text(json.dumps({**kept, "resources": [row for row in kept["resources"] if row not in lost]}))
    said = begun.fails("up", "foundation", "--yes")
    assert said.startswith(f"{len(lost)} resources are in the cloud and not in Pulumi's state of foundation: ") and "pulumi login" in said
    commands = re.findall(r"pulumi import -s foundation .*?(?=; )", said)
    assert len(commands) == len(lost)
    for command in commands:
        pulumi(*shlex.split(command)[1:])
    begun.ok("up", "foundation", "--yes")
    assert sorted(row["urn"] for row in begun.state("foundation")["resources"]) == sorted(row["urn"] for row in kept["resources"])


def test_a_second_fault_is_not_hidden_by_what_is_there(begun: Machine) -> None:
    quota = "Error 403: Quota 'NETWORKS' exceeded. Limit: 5.0 globally., quotaExceeded"
    there = "googleapi: Error 409: The resource 'projects/a-project/global/networks/elson' already exists, alreadyExists"
    kinds = {"net": (there, "gcp:compute/network:Network"), "role": (quota, "gcp:projects/iAMCustomRole:IAMCustomRole")}

    def failed(*names: str) -> Exception:
        with pytest.raises(UserError) as error, deploy._watched("up", "foundation") as watch:
            for name in names:
                text, kind = kinds[name]
                urn = f"urn:pulumi:foundation::elson::{kind}::{name}"
                step = {"op": "create", "urn": urn, "type": kind, "new": {"urn": urn, "type": kind, "inputs": {"name": "elson"}}}
                watch(EngineEvent.from_json({"diagnosticEvent": {"urn": urn, "message": text, "color": "raw", "severity": "error"}}))
                watch(EngineEvent.from_json({"resOpFailedEvent": {"metadata": step, "status": 0, "steps": 1}}))
            raise CommandError(CommandResult("", "failed", 4))
        return error.value

    assert isinstance(failed("net"), deploy.AlreadyThere)
    both = failed("net", "role")
    assert not isinstance(both, deploy.AlreadyThere) and "ask for the quota" in str(both)


def test_a_bucket_name_that_somebody_else_has_is_no_interrupted_update(begun: Machine) -> None:
    (begun.standin / "fail.json").write_text(json.dumps("googleapi: Error 409: The requested bucket name is not available., conflict"))
    assert "set another under buckets" in begun.fails("up", "foundation", "--yes")
