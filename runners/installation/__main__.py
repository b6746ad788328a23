"""Install the environments of this machine from their locks.

python3 -m runners.installation tools train
"""

from __future__ import annotations

import argparse
import errno
import sys


def main() -> int:
    """Install the named environments, one after another; returns the exit code."""
    from runners.environments import ROOT, STAGES
    from runners.installation import install
    from runners.installation.failure import InstallationError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    stages = parser.parse_args().stages
    try:
        took = install.install(stages)
    except InstallationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except OSError as error:
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run it as the owner of this folder"
        print(f"error: {error}\n  expected: to write below {ROOT}\n  fix: {fix}; then run the same command again", file=sys.stderr)
        return 1
    if took:
        install.say("all", f"ready in {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
