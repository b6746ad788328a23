"""The stack of a command, as a word or as ``-s``, whichever somebody is used to: ``elson up train-h100``, ``elson up -s train-h100``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from runners.commands import completion


def stack_name(text: str, *, default: str = "", required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``[STACK]`` and ``-s``; the command receives ``stack``, None where neither is given and none is required."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.argument("stack", required=False, shell_complete=completion.stacks)
        @click.option("-s", "--stack", "by_option", shell_complete=completion.stacks, help=f"{text}{f'  [default: {default}]' if default else ''}")
        @functools.wraps(command)
        def wrapped(*arguments: Any, stack: str | None, by_option: str | None, **keywords: Any) -> Any:
            if stack and by_option and stack != by_option:
                raise click.UsageError(f"two stacks are named: {stack} and {by_option}")
            if required and not (stack or by_option or default):
                raise click.UsageError("no stack is named: pass STACK or -s STACK")
            return command(*arguments, stack=stack or by_option or default or None, **keywords)

        return wrapped

    return decorated
