"""Runs a Pulumi program the way the language host does: configure the runtime, run ``__main__.py`` inside the stack, report the program's own errors."""

import asyncio
import os
import runpy
import sys
from pathlib import Path

import pulumi
import pulumi.runtime as runtime


def main(monitor: str, engine: str, project: str, stack: str, preview: str) -> None:
    runtime.set_all_config(runtime.get_config_env(), runtime.get_config_secret_keys_env())
    where = {"organization": "organization", "project": project, "stack": stack, "root_directory": str(Path.cwd())}
    settings = runtime.Settings(monitor=monitor, engine=engine, parallel=16, dry_run=preview == "true", **where)
    runtime.configure(settings)
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    sys.argv, sys.path[0] = ["__main__.py"], os.getcwd()  # noqa: PTH109 - what the host does
    try:
        loop.run_until_complete(runtime.run_in_stack(lambda: runpy.run_path("__main__.py", run_name="__main__") and None))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        sys.exit(1)
    finally:
        sys.stdout.flush()


main(*sys.argv[1:])
