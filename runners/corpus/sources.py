"""``data/sources.yaml`` and the readers: every source becomes a stream of (file, line, raw row), or of rejects with file, line and reason.

A reader never holds a large file in memory where the format lets it stream (JSONL, CSV). Formats are explained in data/README.md.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from runners.corpus.pairs import DOMAINS
from runners.errors import UserError
from runners.spec import Strict

QA_ENDINGS = (".json", ".jsonl", ".csv", ".yaml", ".yml")
DOCUMENT_ENDINGS = (".md", ".markdown", ".txt", ".html", ".htm", ".pdf", ".docx")
#: Longest field of a CSV file, in characters; the library's own bound (131,072) is less than a long answer with its history.
csv.field_size_limit(10_000_000)


class Source(Strict):
    """One source of pairs."""

    name: str = Field(min_length=1, max_length=80)
    kind: Literal["qa", "documents", "catalogue", "problems"]
    path: str = Field(min_length=1, description="file or folder, relative to the project, or gs://bucket/folder")
    licence: str = Field(min_length=1)
    category: str | None = None
    categories: dict[str, str] = Field(default_factory=dict)
    fields: dict[str, str] = Field(default_factory=dict)


class Sources(Strict):
    """The whole file; the order of the sources is their rank."""

    version: Literal[1]
    categories: Literal["domains", "any"] = "domains"
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Sources:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have one name")
        if self.categories == "domains":
            targets = {value for source in self.sources for value in [*source.categories.values(), *([source.category] if source.category else [])]}
            if wrong := sorted(targets - set(DOMAINS)):
                raise ValueError(f"{', '.join(wrong)}: not one of the 18 domains")
        return self


@dataclass(frozen=True)
class Raw:
    """A row as read. ``value`` is bytes for a line of JSONL (parsed later, on any core) or the parsed row; ``error`` says why there is none."""

    file: str
    line: int
    value: Any = None
    error: str | None = None


def load(file: Path) -> Sources:
    """Read a sources file. Raises UserError with the bad key."""
    try:
        values = yaml.safe_load(file.read_text())
        return Sources.model_validate(values)
    except FileNotFoundError:
        raise UserError(f"{file} is not there", "a sources file", "see data/README.md for its form") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {error}", "a sources file", "see data/README.md for its form") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{file}: {problems}", "the keys in data/README.md", f"edit {file}") from None


def files(source: Source, root: Path) -> list[Path]:
    """The files of a source, sorted. Raises UserError when the path is not there or holds no file of a known ending."""
    place = _local(source.path, root)
    endings: tuple[str, ...] = {"documents": DOCUMENT_ENDINGS, "catalogue": (".csv",), "problems": (".yaml",)}.get(source.kind, QA_ENDINGS)
    if not place.exists():
        raise UserError(f"source {source.name}: {place} is not there", "a file or a folder", "fix the path in the sources file")
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.suffix.lower() in endings and path.name.lower() != "readme.md")
    if not found or found[0].suffix.lower() not in endings:
        raise UserError(f"source {source.name}: no file in {place} ends in {', '.join(endings)}", f"files of kind {source.kind}", "fix the path or the kind")
    return found


def shown(path: Path, root: Path) -> str:
    """A file's name in rejects and provenance: relative where it can be, so that no machine's folders enter the dataset."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def qa_rows(path: Path, name: str) -> Iterator[Raw]:
    """Rows of one question-and-answer file; a file that cannot be read at all is one reject."""
    ending = path.suffix.lower()
    try:
        if ending == ".jsonl":
            yield from _jsonl(path, name)
        elif ending == ".csv":
            yield from csv_rows(path, name)
        else:
            yield from _structured(path, name)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, csv.Error, yaml.YAMLError) as error:
        yield Raw(name, getattr(error, "lineno", 0), error=f"the file cannot be read: {type(error).__name__}: {str(error)[:200]}")


def _jsonl(path: Path, name: str) -> Iterator[Raw]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Raw(name, number, line)


def csv_rows(path: Path, name: str) -> Iterator[Raw]:
    """Rows of a CSV file with a header; the line is the one a row ends on. A row with more or fewer fields than the header is a reject."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            if None in row:
                yield Raw(name, reader.line_num, error=f"the row has more fields than the header's {len(reader.fieldnames or ())}")
            elif None in row.values():
                yield Raw(name, reader.line_num, error=f"the row has fewer fields than the header's {len(reader.fieldnames or ())}")
            else:
                yield Raw(name, reader.line_num, {key: value for key, value in row.items() if value != ""})


def _structured(path: Path, name: str) -> Iterator[Raw]:
    """Rows of a JSON or YAML file: a list, or an object with exactly one list of rows. The line is the row's number in the list for JSON."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        value, lines = json.loads(text), None
    else:
        value, lines = yaml.load(text, Loader=_Lined), True  # noqa: S506  # _Lined is a SafeLoader
    if isinstance(value, Mapping):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) != 1:
            raise ValueError(f"an object with one list of rows is wanted, found {len(lists)} lists")
        value = lists[0]
    if not isinstance(value, list):
        raise ValueError(f"a list of rows is wanted, found {type(value).__name__}")
    for number, row in enumerate(value, 1):
        line = row.pop(_LINE, number) if lines and isinstance(row, dict) else number
        yield Raw(name, line, row)


_LINE = "__line__"


class _Lined(yaml.CSafeLoader):
    """YAML whose top rows know their line; timestamps stay text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=True)
        if any(key in mapping for key in ("question", "instruction", "messages", "prompt")):
            mapping[_LINE] = node.start_mark.line + 1
        return mapping


_Lined.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _local(path: str, root: Path) -> Path:
    """The path on this machine; a gs:// folder is downloaded once per content."""
    if not path.startswith("gs://"):
        return root / path
    from runners.artifacts import storage
    from runners.artifacts.record import describe
    from runners.spec import digest

    target = root / ".elson" / "sources" / digest(path)
    stored = storage.listing(path)
    if not stored:
        raise UserError(f"{path} holds nothing", "a folder with source files", "fix the path in the sources file")
    for item in stored:
        file = target / item.path
        if not file.resolve().is_relative_to(target.resolve()):
            raise UserError(f"{path} holds {item.path!r}", "names that stay inside their folder", "rename the object")
        if file.exists() and describe(file).crc32c == item.crc32c:
            continue
        content = storage.read(f"{path.rstrip('/')}/{item.path}")
        if content is None:
            raise UserError(f"{path}/{item.path} went away while it was read", "a folder that does not change", "run the same command again")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content[0])
    return target
