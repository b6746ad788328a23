"""What others wrote (a file, an object, a name) is checked before it is used: one sentence for what cannot be read, content that is what its digest says, names
that stay below their folder.

Standard library only, YAML aside: a VM's agent uses this file too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from runners.errors import UserError

T = TypeVar("T")
#: Larger files of settings or small results are not what they claim to be.
MOST_BYTES = 256 << 20
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
#: What a parser raises for input of the wrong shape: a missing key, another type, a number out of range, nesting too deep.
WRONG_SHAPE = (ValueError, TypeError, KeyError, AttributeError, IndexError, LookupError, RecursionError, ArithmeticError)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Content id: 16 hex digits of SHA-256 over the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_named_by_digest(uri: str, value: Any) -> None:
    """Raise UserError when an object named ``…/<digest>.json`` holds something else: whoever may write there must not choose what runs."""
    name = uri.rpartition("/")[2].removesuffix(".json")
    if (found := digest(value)) != name:
        raise UserError(f"{uri} is not what its name says: its content has the digest {found}", name, "run `pulumi up` on this stack again")


def is_below(name: str) -> bool:
    """Whether a relative path with ``/`` names a file below the folder it is joined to, on every system."""
    parts = name.split("/")
    return (
        bool(name)
        and len(name) <= 1024
        and not re.search(r"[\x00-\x1f\x7f\\:]", name)
        and not any(part in ("", ".", "..") or len(part) > 255 for part in parts)
    )


def printable(text: Any) -> str:
    """One line that a terminal may show: control characters, line breaks and marks of direction as escapes. What a machine wrote moves no cursor."""
    return "".join(mark if mark.isprintable() or mark == "\t" else mark.encode("unicode_escape", "backslashreplace").decode() for mark in str(text))


def cell(value: Any) -> Any:
    """A value of a CSV file. A spreadsheet would run a text that begins like a formula, and a model or an error can hold one."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def is_host_name(text: str) -> bool:
    """Whether a text is a DNS name with at least two labels, in lower case, and nothing else."""
    return bool(_HOST.fullmatch(text))


def text(file: Path, what: str = "a text file") -> str:
    """A file's text. Raises UserError when it is missing, a folder, unreadable, too large or not UTF-8."""
    fix = f"pass another file, or edit {file}"
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UserError(f"{file} has {size / 1e6:.0f} MB", f"{what} of at most {MOST_BYTES >> 20} MiB", fix)
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file} is not there", what, fix) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}", what, f"save it as UTF-8: {file}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", what, fix) from None


def parsed_json(content: str | bytes, source: str) -> Any:
    """A JSON value; NaN and Infinity are no JSON. Raises UserError."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except WRONG_SHAPE as error:
        raise UserError(f"{source} is not JSON: {_reason(error)}", "a JSON value", f"edit {source}, or make it again") from None


def read_json(file: Path) -> Any:
    """The value in a JSON file. Raises UserError."""
    return parsed_json(text(file, "a JSON file"), str(file))


def parsed_yaml(content: str, source: str, *, text_keys: bool = True) -> Any:
    """A YAML value, its keys all text unless years may be keys; NaN and infinity are let through. Raises UserError naming the line."""
    import yaml

    try:
        value = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
        if text_keys:
            _need_text_keys(value, source, set())
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {_reason(error)}", "YAML", f"edit {source}") from None
    except WRONG_SHAPE as error:
        raise UserError(f"{source} is not YAML that can be used: {_reason(error)}", "YAML", f"edit {source}") from None
    return value


def read_yaml(file: Path, *, text_keys: bool = True) -> dict[str, Any]:
    """The mapping in a YAML (or JSON) file; an empty file is an empty mapping. Raises UserError."""
    value = parsed_yaml(text(file, "a YAML file"), str(file), text_keys=text_keys)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{file} holds {_kind(value)}", "a mapping of settings", f"edit {file}")
    return value


def shaped(parse: Callable[[], T], source: str, expected: str, fix: str = "") -> T:
    """``parse()``; whatever it raises for a value of another shape becomes one sentence."""
    try:
        return parse()
    except UserError:
        raise
    except WRONG_SHAPE as error:
        raise UserError(f"{source} has another shape than expected: {_reason(error)}", expected, fix or f"edit {source}, or make it again") from None


def write_durably(file: Path, content: str | bytes) -> None:
    """Replace a file in one step that survives a loss of power: whoever finds it finds all of it."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as handle:
        handle.write(content.encode() if isinstance(content, str) else content)
        handle.flush()
        os.fsync(handle.fileno())
    partial.rename(file)
    sync_folder(file.parent)


def sync(folder: Path) -> None:
    """Have every file of a folder on the disk, so that a record written after it speaks of bytes that are there."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(inner)


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _need_text_keys(value: Any, source: str, seen: set[int]) -> None:
    if id(value) in seen:  # an alias: looked at already
        return
    if isinstance(value, (dict, list)):
        seen.add(id(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{source} has the key {key!r}, which is {_kind(key)}", "keys that are text", f'write "{key}": in quotes')
            _need_text_keys(inner, source, seen)
    elif isinstance(value, list):
        for inner in value:
            _need_text_keys(inner, source, seen)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")
