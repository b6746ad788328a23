"""`elson init`: an empty project made ready, again and again, and one clear error for whatever is missing."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from runners.cloud import deploy
from runners.planning import stacks

from .conftest import BILLING, PROJECT, ROOT, Machine, tracked

INIT = ("init", "--project", PROJECT, "--yes")


def test_an_empty_project_is_made_ready_and_tracked_files_stay(machine: Machine) -> None:
    before = tracked(machine)
    machine.ok(*INIT, "--budget", "80", "--operator", "user:a@example.org", "--operator", "group:b@example.org")
    state = machine.gcloud()
    assert {"compute.googleapis.com", "billingbudgets.googleapis.com"} <= set(state["projects"][PROJECT]["services"])
    assert state["quota_project"] == PROJECT and state["buckets"] == [f"{PROJECT}-elson-state"]
    assert [call[-2] for call in machine.calls("storage", "buckets", "update")] == ["--versioning"]
    own = yaml.safe_load(machine.mine("foundation"))
    assert own["encryptionsalt"] and own["config"]["gcp:project"] == PROJECT
    foundation = stacks.load("foundation").spec.foundation
    assert foundation and (foundation.billing_account, foundation.budget_per_month) == (BILLING, 80)
    assert foundation.operators == ("user:a@example.org", "group:b@example.org") and foundation.alert_emails == ("me@example.org",)
    assert all(stacks.load(name).project == PROJECT and machine.state(name)["resources"] == [] for name in stacks.names())
    assert tracked(machine) == before


def test_running_it_again_changes_only_what_is_said_anew(machine: Machine) -> None:
    machine.ok(*INIT)
    first = machine.mine("foundation")
    machine.ok(*INIT)
    assert machine.mine("foundation") == first and len(machine.calls("storage", "buckets", "create")) == 1
    machine.ok(*INIT, "--budget", "20")
    assert machine.mine("foundation") == first.replace("50.0", "20.0")


def test_an_existing_login_to_pulumi_is_kept(machine: Machine) -> None:
    subprocess.run(["pulumi", "login", "file:///somewhere"], check=True, capture_output=True)
    machine.ok(*INIT)
    assert machine.gcloud()["buckets"] == [] and list(machine.standin.glob("backends/*somewhere/train-h100.json"))


def test_a_dry_run_does_nothing(machine: Machine) -> None:
    done = machine.ok(*INIT, "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert said["wanted"]["billing_account"] == BILLING and len(said["tasks"]) == 5
    assert not machine.calls("services") and not (machine.folder / "infra" / "stacks" / "mine").exists()


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"account": ""}, (), "gcloud auth login --update-adc"),
        ({"projects": {}}, (), "gcloud projects list"),
        ({"projects": {PROJECT: {"lifecycle": "DELETE_REQUESTED", "billing": BILLING, "services": []}}}, (), "DELETE_REQUESTED"),
        ({"projects": {PROJECT: {"lifecycle": "ACTIVE", "billing": "", "services": []}}, "billing_accounts": []}, (), "roles/billing.user"),
        ({"projects": {PROJECT: {"lifecycle": "ACTIVE", "billing": "", "services": []}}}, ("--billing-account", "NOT-MINE"), "roles/billing.user"),
        ({"billing_accounts": []}, (), "elson init --no-budget"),
        ({"taken": [f"{PROJECT}-elson-state"]}, (), "--backend gs://ANOTHER-NAME"),
        ({"refused": {"services enable": "PERMISSION_DENIED: Permission denied to enable service"}}, (), "roles/owner"),
        ({}, ("--region", "moon-north1"), "pass another --region"),
        ({}, ("--operator", "me@example.org"), "user:me@example.org"),
        ({}, ("--project", "X"), "gcloud projects list"),
    ],
)
def test_what_is_missing_is_one_error_with_its_fix(changes: dict[str, object], options: tuple[str, ...], words: str, machine: Machine) -> None:
    machine.gcloud(**changes)
    assert words in machine.fails(*INIT, *options)


def test_without_rights_on_billing_there_is_no_budget_and_everything_else(machine: Machine) -> None:
    machine.gcloud(billing_accounts=[])
    machine.ok(*INIT, "--no-budget")
    foundation = stacks.load("foundation").spec.foundation
    assert foundation and foundation.billing_account is None


def test_missing_tools_are_named_together(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    deploy.command.cache_clear()
    said = machine.fails(*INIT)
    assert "gcloud is not installed; the Pulumi command is not installed" in said and "get.pulumi.com" in said


def test_without_a_terminal_nothing_is_asked(machine: Machine) -> None:
    assert "--project" in machine.fails("init")
    assert "--yes" in machine.fails("init", "--project", PROJECT)
    assert not machine.calls("services")


def test_a_person_answers_on_a_terminal(machine: Machine, tmp_path: Path) -> None:
    """On a real terminal: the questions, their defaults, and no."""
    code = f"import runners.planning.stacks as s, runners.cloud.deploy as d, pathlib; s.FOLDER = pathlib.Path({str(machine.folder / 'infra/stacks')!r}); "
    code += f"d.ROOT = pathlib.Path({str(machine.folder)!r}); from runners.commands.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code, "init"], stdin=slave, stdout=slave, stderr=slave, cwd=machine.folder, env=environment) as person:
        os.close(slave)
        said = ""
        for question, answer in (("Google Cloud project", PROJECT), ("region [us-central1]", ""), ("Do this?", "n")):
            end = time.monotonic() + 60
            while question not in said and time.monotonic() < end:
                if select.select([master], [], [], 1)[0]:
                    said += os.read(master, 4096).decode()
            assert question in said, said
            os.write(master, f"{answer}\n".encode())
        assert person.wait(timeout=30) == 0
    os.close(master)
    assert f"50 a month, in the currency of {BILLING}" in said and not machine.calls("services")
