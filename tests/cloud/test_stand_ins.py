"""The stand-ins are as strict as what they stand for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, Machine

TABLE = Path("/usr/lib/google-cloud-sdk/data/cli/gcloud_completions.py")


def pulumi(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["pulumi", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("up", "--yes", "--unheard-of", "-s", "x"), 2, "unknown flag: --unheard-of"),
        (("deploy",), 2, 'unknown command "deploy"'),
        (("whoami", "--json"), 3, "PULUMI_ACCESS_TOKEN must be set"),
        (("login", "gs://not-there"), 1, "bucket doesn't exist"),
    ],
)
def test_pulumi_refuses(words: tuple[str, ...], code: int, said: str, machine: Machine) -> None:
    done = pulumi(*words)
    assert (done.returncode, done.stdout) == (code, "") and said in done.stderr


def test_pulumi_wants_a_stack_a_passphrase_and_a_yes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pulumi("login", "file:///x")
    assert pulumi("stack", "select", "-s", "train-h100").returncode == 6
    assert "passphrase must be set" in pulumi("stack", "init", "train-h100").stderr
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    assert pulumi("stack", "init", "train-h100").returncode == 0
    assert "already exists" in pulumi("stack", "init", "train-h100").stderr
    assert "--yes or --skip-preview must be passed" in pulumi("up", "-s", "train-h100").stderr


@pytest.mark.skipif(not TABLE.exists(), reason="gcloud is not installed: its own table of flags cannot be read")
def test_gclouds_calls_exist_in_the_real_command() -> None:
    spec = importlib.util.spec_from_file_location("table", TABLE)
    assert spec and spec.loader
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    root = table.STATIC_COMPLETION_CLI_TREE
    text = (ROOT / "tests" / "cloud" / "gcloud_command.py").read_text()
    commands = re.findall(r'^    "([a-z -]+)": (set\(\)|\{[^}]*\}),', text, re.MULTILINE)
    assert len(commands) > 10
    for command, flags in commands:
        node = root
        for word in command.split():
            node = node["commands"][word]
        known = set(node["flags"]) | set(root["flags"])
        assert set(re.findall(r"--[a-z-]+", flags)) <= known, command
