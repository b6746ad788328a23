"""``data/sources.yaml``: which files are read, in which order, under which licence. Formats are explained in data/README.md."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from runners.corpus import formats
from runners.corpus.pairs import DOMAINS
from runners.errors import UserError
from runners.fields import Strict

DOCUMENT_ENDINGS = (".md", ".markdown", ".txt", ".html", ".htm", ".pdf", ".docx")
#: What Hugging Face datasets write beside the rows.
_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


class Source(Strict):
    """One source of pairs."""

    name: str = Field(min_length=1, max_length=80)
    kind: Literal["qa", "documents", "catalogue", "problems"]
    path: str = Field(min_length=1, description="file or folder, relative to the project, or gs://bucket/folder")
    licence: str = Field(min_length=1)
    category: str | None = None
    categories: dict[str, str] = Field(default_factory=dict)
    fields: dict[str, str] = Field(default_factory=dict)
    encoding: str | None = Field(None, description="of text files; left out, a byte order mark or UTF-8")
    split: str | None = Field(None, description="of a Hugging Face datasets folder: only the files of this split")

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str | None) -> str | None:
        try:
            return value and codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"{value!r} is no encoding; examples: utf-8, cp1252, latin-1, utf-16") from None


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


def load(file: Path) -> Sources:
    """Read a sources file. Raises UserError with the bad key."""
    return Sources.from_yaml(file, "the keys in data/README.md")


def given(paths: Iterable[str], **options: Any) -> Sources:
    """Sources of files or folders named on the command line: documents and question-and-answer files, told apart by their endings.

    Raises UserError when an option is wrong.
    """
    listed, categories = list[dict[str, Any]](), options.pop("categories", "domains")
    for number, path in enumerate(map(PurePosixPath, named := list(paths))):
        kind = "documents" if path.suffix.lower() in DOCUMENT_ENDINGS else "qa"
        name = path.name if all(path.name != one["name"] for one in listed) else f"{path.name} {number + 1}"
        extra = options if kind == "qa" else {key: value for key, value in options.items() if key in ("licence", "category")}
        listed.append({"name": name[:80], "kind": kind, "path": named[number]} | extra)
    try:
        return Sources.model_validate({"version": 1, "categories": categories, "sources": listed})
    except ValidationError as error:
        raise UserError("; ".join(str(one["msg"]) for one in error.errors()), "options that fit the files", "see elson data build --help") from None


def files(source: Source, root: Path) -> list[Path]:
    """The files of a source, sorted. Raises UserError when the path is not there or holds no file of a known ending."""
    place = _local(source.path, root)
    if not place.exists():
        raise UserError(f"source {source.name}: {place} is not there", "a file or a folder", "correct the path")
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if _is_wanted(path.relative_to(place), source))
    if source.kind == "qa" and place.is_dir():
        found = _without_leftovers(found)
    if not found or not _is_read_as(found[0], source.kind):
        split = f" and belongs to split {source.split!r}" if source.split else ""
        raise UserError(
            f"source {source.name}: no file in {place} ends in {', '.join(_endings(source.kind))}{split}",
            f"files of kind {source.kind}",
            "fix the path, the kind or the split",
        )
    return found


def _endings(kind: str) -> tuple[str, ...]:
    return {"documents": DOCUMENT_ENDINGS, "catalogue": (".csv",), "problems": (".yaml",)}.get(kind, formats.ENDINGS)


def _is_read_as(path: Path, kind: str) -> bool:
    return path.name.lower().endswith(_endings(kind))


def _is_wanted(path: Path, source: Source) -> bool:
    """Whether a file below a source's folder holds rows: of the right ending and split, and not hidden (a hub's cache is)."""
    if any(part.startswith(".") for part in path.parts) or path.name.lower() == "readme.md" or not _is_read_as(path, source.kind):
        return False
    return source.split is None or source.split in path.parts[:-1] or re.match(rf"{re.escape(source.split)}(?![^\W_])", path.name) is not None


def _without_leftovers(found: list[Path]) -> list[Path]:
    """Without the files that Hugging Face datasets keep beside the rows: descriptions, and caches of transformations."""
    kept = []
    for path in found:
        state = path.parent / "state.json"
        if path.name in _NO_ROWS:
            continue
        if path.suffix == ".arrow" and state.exists() and path.name not in _data_files(state):
            continue
        kept.append(path)
    return kept


def _data_files(state: Path) -> set[str]:
    try:
        return {str(one["filename"]) for one in json.loads(state.read_text())["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{state} does not list the data files", "a folder as `save_to_disk` of datasets writes it", "save the dataset again") from None


def shown(path: Path, root: Path, *, whole: bool = False) -> str:
    """A file's name in rejects and provenance: relative where it can be, so that no machine's folders enter the dataset. ``whole``: else the path."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) if whole else path.name


def _local(path: str, root: Path) -> Path:
    """The path on this machine; a gs:// folder is downloaded once per content."""
    if not path.startswith("gs://"):
        return root / path
    from runners.artifacts import storage
    from runners.artifacts.record import describe
    from runners.outside import digest

    target = root / ".elson" / "sources" / digest(path)
    stored = storage.listing(path)
    if not stored:
        raise UserError(f"{path} holds nothing", "a folder with source files", "correct the path")
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
