"""``python -m runners``: the same as the console script ``elson``."""

from runners.commands.cli import main

main()
