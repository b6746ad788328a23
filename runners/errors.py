"""The one error a user sees: what was found, what was expected, how to fix it. A traceback is for our own bugs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, a refused request or a failed gate, explained.

    Args:
        found: what is wrong, with the value found.
        expected: what should have been there.
        fix: the command or the edit that fixes it.
    """

    exit_code = 1

    def __init__(self, found: str, expected: str = "", fix: str = "") -> None:
        self.found, self.expected, self.fix = found, expected, fix
        lines = [found, *([f"  expected: {expected}"] if expected else []), *([f"  fix:      {fix}"] if fix else [])]
        super().__init__("\n".join(lines))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` for a name that is close to a known one, else empty."""
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is closest to a wrong one; empty where none is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), "")


class Refused(UserError):
    """A model in the bucket that cannot be trained, or served: no plan that leaves the bucket out takes its place."""


class CannotMeasure(UserError):
    """A benchmark could not be measured at all (exit code 2): neither passed nor failed."""

    exit_code = 2


class Temporary(UserError):
    """Trouble that passes: a bucket that does not answer, a full disk (exit code 75, EX_TEMPFAIL). A VM tries again within its deadline."""

    exit_code = 75
