"""The command line. Only names and one line of help stand here; a command's module is imported when it is called.

That keeps ``elson --help`` under half a second, and an environment that lacks a stage's packages can still run the others.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
from typing import Any

import click

from runners import __version__, environments, log, processes
from runners.errors import Temporary, UserError, did_you_mean

#: command -> (module, attribute, one line of help)
COMMANDS = {
    "new": ("runners.commands.new", "new", "Write a project of your own: Pulumi program, stacks, images, data."),
    "run": ("runners.commands.run", "run", "Run the whole job on this machine: data, train, merge, quantize, serve, evaluate, report."),
    "sweep": ("runners.commands.sweep", "sweep", "Train a grid of settings on this machine, and list them by held-out loss."),
    "data": ("runners.commands.data", "data", "Build, check and describe datasets."),
    "base": ("runners.commands.base", "base", "Make or publish a base model."),
    "train": ("runners.commands.stages", "train", "Train the adapter that a spec describes, and publish it."),
    "merge": ("runners.commands.stages", "merge", "Merge an adapter into its base model, past the parity gate."),
    "quantize": ("runners.commands.stages", "quantize", "Quantize the merged model to 4 bits, past the quality gate."),
    "job": ("runners.commands.job", "job", "One try of a training task on Cloud Run; the platform starts it."),
    "serve": ("runners.commands.serve", "serve", "Serve a published model with vLLM."),
    "evaluate": ("runners.commands.evaluate", "evaluate", "Measure a served model on the benchmark."),
    "compare": ("runners.commands.compare", "compare", "Hold runs of several models against each other: better, not shown, or worse."),
    "view": ("runners.commands.view", "view", "Look at runs in a browser: side by side, case by case, live."),
    "load": ("runners.commands.load", "load", "Throughput and latency of a running server against concurrency."),
    "models": ("runners.commands.models", "models", "List, show, promote and deprecate published models."),
    "plan": ("runners.commands.plan", "plan", "Memory, time, cost and latency of a stack, before any money is spent."),
    "doctor": ("runners.commands.plan", "doctor", "Check credentials, APIs, quotas, images and the base model."),
    "prices": ("runners.commands.plan", "prices", "Show the price table that plans use, or read it again."),
    "key": ("runners.commands.plan", "key", "Rotate the servers' API key."),
    "status": ("runners.commands.status", "status", "What a stack's machine is doing."),
    "retry": ("runners.commands.status", "retry", "Let a job that failed begin again."),
    "init": ("runners.commands.cloud", "init", "Make a Google Cloud project ready: login, billing, APIs, stacks, your values."),
    "up": ("runners.commands.cloud", "up", "Bring a stack up: check, plan, price, build what is missing, and follow the job."),
    "down": ("runners.commands.cloud", "down", "Destroy a stack, or all; the models stay."),
    "images": ("runners.commands.images", "images", "Resolve, build and bake images."),
}


#: Packages that only the environments of the stages have.
_OF_STAGES = {"torch", "transformers", "peft", "accelerate", "gguf", "awq", "llmcompressor", "vllm", "tokenizers", "safetensors"}
#: Commands that read files of a project (locks, images, stacks) beside the package.
IN_A_PROJECT = {"run", "sweep", "init", "up", "down", "plan", "doctor", "images", "train", "merge", "quantize", "job"}
#: Options of many commands.
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Data for machines.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


class _Interrupted(BaseException):
    """Ctrl-C."""


class CommandGroup(click.Group):
    """A group whose list of commands is not cut, and which suggests the command that was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a call; an unknown one is a usage error with the nearest name."""
        name = click.utils.make_str(args[0])
        if not name.startswith("-") and name not in (known := self.list_commands(ctx)):
            raise click.UsageError(f"no command {name!r} in `{ctx.command_path}`{did_you_mean(name, known)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first sentence of each command, whole."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in found if command])


class Lazy(CommandGroup):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module of one command."""
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a call. Raises UserError for one that needs a project where there is none."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in IN_A_PROJECT and not (environments.ROOT / "images").is_dir() and not {"--help", "-h"} & set(rest):
            raise UserError(
                f"`elson {name}` reads the locks, images and stacks of a project, and this elson is installed without one",
                "a project, with its own .venv",
                f"elson new my-model; cd my-model; make setup; .venv/bin/elson {' '.join(args)}",
            )
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Click writes an empty line for a KeyboardInterrupt, and each stage of a run would too."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="elson")
def cli() -> None:
    """From a finance Q&A corpus to a served, evaluated model, for a few dollars.

    \b
    Examples:
      elson run --profile local          the whole job here, on a small model
      elson plan -s train-h100           what the cloud run needs and costs
      elson models ls                    what is published

    \b
    Completion of names in bash (for zsh: zsh_source, for fish: fish_source):
      eval "$(_ELSON_COMPLETE=bash_source elson)"
    """


def main() -> None:
    """Run a command, as ``runners.__main__`` starts it; a user's mistake becomes one message and its exit code."""
    processes.quiet_threads()
    processes.keep_interrupts()
    log.take_over_libraries()
    if os.getpid() == 1:  # the first process of a container ignores signals it has no handler for
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = cli.main(prog_name="elson", standalone_mode=False)
        sys.stdout.flush()
        if isinstance(code, int) and code:  # click returns what a command passed to ctx.exit()
            sys.exit(code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        _usage(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, _Interrupted, click.Abort):
        if not os.environ.get(processes.CHILD):  # the parent says it once
            if sys.stderr.isatty():  # over the ^C, and over the bar of a stage that had to be killed
                sys.stderr.write("\r\x1b[2K\x1b[?25h")
            log.failure("interrupted: nothing is half-published; the same command goes on where it stopped")
        sys.exit(130)
    except SystemExit:
        # Who reads the output has seen enough (`elson models ls | head`): no error, though click ends with 1.
        if "PacifyFlush" in type(sys.stdout).__name__:
            sys.exit(0)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        sys.exit(0)
    except UserError as error:
        log.failure(str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "runners", "infra"):
            raise
        log.failure(str(_not_installed(package)))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # a bug shows its traceback, and an exit code that a VM tries again, unlike a refusal (1, 2)
        # The tokenizers and safetensors packages report a full disk in their own words, not as an OSError.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            log.failure(str(UserError(f"the disk is full: {error}", "room for the stage's files", "free space or pass another folder, then run it again")))
            sys.exit(Temporary.exit_code)
        log.bug()
        sys.exit(70)


def _usage(error: click.ClickException) -> None:
    """Wrong usage: what is wrong, and where the help is."""
    context = getattr(error, "ctx", None)
    hint = f"\n  fix:      {context.command_path} --help" if context else ""
    said = error.format_message().removesuffix(".")
    log.failure(said[:1].lower() + said[1:] + hint)


def _not_installed(package: str) -> UserError:
    if package in _OF_STAGES:
        fix = "in a project (elson new): python3 -m runners.installation train; then .elson/envs/train/bin/python -m runners …"
        return UserError(f"{package} is not installed in this environment", "the environment of the stage", fix)
    return UserError(f"{package} is not installed", "elson with what this command needs", "pipx install 'elson[data,cloud]', or make setup in a project")


def print_json(value: Any) -> None:
    """Data for machines, on stdout."""
    click.echo(json.dumps(value, indent=1, sort_keys=True, default=str))
