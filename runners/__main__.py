"""``python -m runners``: the same as the console script ``elson``."""

from runners.cli import main

main()
