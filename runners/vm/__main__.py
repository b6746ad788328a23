"""``python3 -m runners.vm STEP``: what the units call."""

from __future__ import annotations

import argparse
import sys

from runners import log
from runners.errors import UserError
from runners.vm import logs, steps, watch
from runners.vm.state import Context

STEPS = {"check": steps.check, "train": steps.train, "deadline": steps.deadline, "preemption": steps.preemption, "watch": watch.watch}
STEPS_WITH_A_NAME = {"pull": steps.pull, "container": steps.container, "failed": steps.failed}


def main() -> int:
    """Run one step and return its exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m runners.vm", description=__doc__)
    parser.add_argument("step", choices=[*STEPS, *STEPS_WITH_A_NAME, "logs"])
    parser.add_argument("name", nargs="?", help="the stage of pull and container, the unit of failed")
    options = parser.parse_args()
    log.configure("vm")
    try:
        if options.step == "logs":
            context = Context.load()
            logs.forward(context.cloud, context.folder, context.facts)
            return 0
        if options.step in STEPS:
            return STEPS[options.step]()
        if not options.name:
            parser.error(f"{options.step} needs a name")
        return STEPS_WITH_A_NAME[options.step](options.name)
    except UserError as error:
        log.error(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
