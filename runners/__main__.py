"""The console script ``elson``, and ``python -m runners``: Ctrl-C ends them without a traceback from their first line on."""

import os
import signal

from runners.processes import CHILD


def main() -> None:
    """Load the command line and run it. Until it is there, Ctrl-C just ends the process.

    A stage of `elson run` stays so: libraries that are interrupted while they load or compile report something else, or go on. What a stage leaves
    behind is what a kill leaves behind, and its parent tidies the terminal and says what happened.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores Ctrl-C, and goes on doing so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from runners.commands import cli

    if CHILD not in os.environ:
        signal.signal(signal.SIGINT, before)
    cli.main()


if __name__ == "__main__":
    main()
