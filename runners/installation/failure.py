"""An installation that cannot go on, as one message. (``runners.errors`` is the same for commands; this runs on any Python.)"""

from __future__ import annotations


class InstallationError(Exception):
    """What was found, what was expected, and the fix."""

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(f"{found}\n  expected: {expected}\n  fix: {fix}")
