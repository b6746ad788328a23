"""Every command of the cloud's README exists, with the options it is written with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from runners.commands.cli import cli

TEXT = (Path(__file__).resolve().parents[2] / "infra" / "README.md").read_text()
COMMANDS = sorted(
    {
        line.split("#")[0].strip().rstrip(";")
        for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("elson ")
    }
)
INLINE = sorted(set(re.findall(r"`(elson [^`]*)`", TEXT)))


@pytest.mark.parametrize("line", [*COMMANDS, *INLINE])
def test_a_command_of_the_readme_exists(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    known = {name for option in command.params for name in option.opts}
    assert {word for word in words if word.startswith("-")} <= known, line


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 8
