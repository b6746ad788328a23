"""The words and wordings of ``lists.yaml``, by the name of their list."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_LISTS = yaml.safe_load(Path(__file__).with_name("lists.yaml").read_text(encoding="utf-8"))


def words(name: str) -> frozenset[str]:
    """A list of single words."""
    return frozenset(_LISTS[name].split())


def wordings(name: str) -> tuple[str, ...]:
    """A list of wordings, as they are written."""
    return tuple(_LISTS[name])


def any_of(name: str) -> str:
    """A pattern that is any one of a list's wordings."""
    return f"(?:{'|'.join(_LISTS[name])})"


def marks(name: str) -> re.Pattern[str]:
    """The wordings of a list wherever they stand as whole words, without regard to case."""
    return re.compile(rf"\b{any_of(name)}\b", re.IGNORECASE)
