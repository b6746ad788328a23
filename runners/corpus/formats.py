"""Rows of question-and-answer files: JSON, JSON lines, CSV, YAML, Parquet and Arrow; the text formats also as ``.gz`` and ``.zst``.

Every format but YAML is read as a stream: a JSON file of 200 MB takes the memory of one row. A row that cannot be read is a :class:`Raw` with the reason
in ``error``; a file that cannot be read, or stops in the middle, ends with one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import yaml

_TEXT = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml")
_PACKED = (".gz", ".zst")
ENDINGS = (*_TEXT, *(kind + packing for kind in _TEXT for packing in _PACKED), ".parquet", ".arrow")
#: A smaller JSON file is parsed in one piece, which is faster.
_WHOLE_BYTES = 8 << 20
_BATCH_ROWS = 1_000
#: Longest field of a CSV file, in characters; the library's own bound (131,072) is less than a long answer with its history.
csv.field_size_limit(10_000_000)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Raw:
    """A row as read. ``value`` is bytes for a line of JSONL (parsed later, on any core) or the parsed row; ``error`` says why there is none."""

    file: str
    line: int
    value: Any = None
    error: str | None = None


class _Form(ValueError):
    """A file whose form is another than expected; the text is for the reader as it stands."""


def kind_of(path: Path) -> str:
    """The ending that says how a file is read: ``.jsonl`` of ``pairs.JSONL.gz``."""
    plain = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    return plain.suffix.lower()


def rows(path: Path, name: str, encoding: str | None = None) -> Iterator[Raw]:
    """Rows of one file. ``encoding`` is that of a text file; left out, a byte order mark decides, and without one it is UTF-8."""
    number, kind = 0, kind_of(path)
    try:
        if kind in (".parquet", ".arrow"):
            found = _table(path, name, kind)
        elif kind in (".jsonl", ".ndjson"):
            found = _json_lines(path, name, encoding)
        elif kind in (".csv", ".tsv"):
            found = csv_rows(path, name, encoding)
        else:
            found = _json(path, name, encoding) if kind == ".json" else _yaml(path, name, encoding)
        for raw in found:
            number = raw.line
            yield raw
    except _Form as error:
        yield Raw(name, 0, error=f"the file cannot be read: {error}")
    except UnicodeDecodeError as error:
        yield Raw(name, number, error=f"the file cannot be read{_after(number)}: UnicodeDecodeError: {_as_encoded(path, error)}")
    except Exception as error:  # noqa: BLE001  # pyarrow, ijson and the decompressors raise whatever a damaged file leads them to
        line = getattr(error, "lineno", number)
        yield Raw(name, line, error=f"the file cannot be read{_after(number)}: {type(error).__name__}: {str(error)[:200]}")


def _after(number: int) -> str:
    return f" after row {number}" if number else ""


def _as_encoded(path: Path, error: UnicodeDecodeError) -> str:
    """What is wrong with the bytes, and the encoding they look like."""
    from charset_normalizer import from_bytes

    with suppress(Exception), _bytes(path) as file:
        guess = from_bytes(file.read(1 << 16)).best()
        if guess and guess.encoding not in ("ascii", "utf_8"):
            return f"not {error.encoding} at byte {error.start}; it may be {guess.encoding}: name it as `encoding` of the source"
    return f"not {error.encoding} at byte {error.start}: name the file's `encoding` in its source"


def _bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix.lower() == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), 1 << 20)  # type: ignore[arg-type,unused-ignore]  # pyarrow has no types where it is missing
    return path.open("rb")


def _encoding(path: Path, given: str | None) -> str:
    if given:
        return given
    with _bytes(path) as file:
        head = file.read(3)
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def _text(path: Path, encoding: str | None) -> IO[str]:
    return io.TextIOWrapper(_bytes(path), encoding=_encoding(path, encoding), newline="")


def _json_lines(path: Path, name: str, encoding: str | None) -> Iterator[Raw]:
    chosen = _encoding(path, encoding)
    if codecs.lookup(chosen).name == "utf-8":
        with _bytes(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield Raw(name, number, line)
        return
    with _text(path, chosen) as text:
        for number, read in enumerate(text, 1):
            if read.strip():
                yield Raw(name, number, read.encode("utf-8", "surrogatepass"))


def csv_rows(path: Path, name: str, encoding: str | None = None) -> Iterator[Raw]:
    """Rows of a CSV file with a header; the line is the one a row ends on. A row with more or fewer fields than the header is a reject.

    The header says what separates fields: a comma, a semicolon, a tab or a bar, whichever it has most of.
    """
    with _text(path, encoding) as file:
        header = file.readline()
        file.seek(0)
        separator = max(",;\t|", key=header.count)
        reader = csv.DictReader(file, strict=True, delimiter=separator)
        for row in reader:
            if None in row:
                yield Raw(name, reader.line_num, error=f"the row has more fields than the header's {len(reader.fieldnames or ())}")
            elif None in row.values():
                yield Raw(name, reader.line_num, error=f"the row has fewer fields than the header's {len(reader.fieldnames or ())}")
            else:
                yield Raw(name, reader.line_num, {key: value for key, value in row.items() if value != ""})


def _json(path: Path, name: str, encoding: str | None) -> Iterator[Raw]:
    """Rows of a list, or of the one list in an object. The line is the row's number."""
    if _is_lines(path, encoding):
        yield from _json_lines(path, name, encoding)
        return
    if path.suffix.lower() == ".json" and path.stat().st_size <= _WHOLE_BYTES:
        yield from _numbered(name, _list_in(json.loads(path.read_text(encoding=_encoding(path, encoding)))))
        return
    import ijson

    with _utf8(path, encoding) as file:
        place = _place_of_the_list(ijson.parse(file))
    with _utf8(path, encoding) as file:
        yield from _numbered(name, ijson.items(file, place, use_float=True))


def _is_lines(path: Path, encoding: str | None) -> bool:
    """Whether a file named ``.json`` holds one object a line, as many programs write it."""
    with _text(path, encoding) as file:
        first = file.readline(_WHOLE_BYTES)
        if not first.lstrip().startswith("{") or not file.read(1):
            return False
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(first), dict)
    return False


def _utf8(path: Path, encoding: str | None) -> Any:
    """The file's bytes as UTF-8 without a byte order mark."""
    chosen = _encoding(path, encoding)
    file = _bytes(path)
    if chosen == "utf-8-sig":
        file.read(3)
    return file if chosen in ("utf-8", "utf-8-sig") else codecs.EncodedFile(file, "utf-8", chosen)


def _place_of_the_list(events: Iterable[tuple[str, str, Any]]) -> str:
    """ijson's name for the rows of a file: ``item`` of a list, ``pairs.item`` of an object with one list. A list needs one event only."""
    lists = []
    for prefix, event, value in events:
        if prefix == "" and event == "start_array":
            return "item"
        if prefix == "" and event not in ("start_map", "map_key", "end_map"):
            raise _Form(f"a list of rows is wanted, found {type(value).__name__}")
        if event == "start_array" and "." not in prefix:
            lists.append(prefix)
    if len(lists) != 1:
        raise _Form(f"an object with one list of rows is wanted, found {len(lists)} lists")
    return f"{lists[0]}.item"


def _list_in(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) != 1:
            raise _Form(f"an object with one list of rows is wanted, found {len(lists)} lists")
        return lists[0]
    if not isinstance(value, list):
        raise _Form(f"a list of rows is wanted, found {type(value).__name__}")
    return value


def _numbered(name: str, values: Iterable[Any]) -> Iterator[Raw]:
    for number, row in enumerate(values, 1):
        yield Raw(name, number, row)


def _table(path: Path, name: str, kind: str) -> Iterator[Raw]:
    """Rows of Parquet, or of an Arrow file or stream (what `save_to_disk` of Hugging Face datasets writes)."""
    import pyarrow
    from pyarrow import parquet

    if kind == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from _numbered(name, (row for batch in file.iter_batches(_BATCH_ROWS) for row in batch.to_pylist()))
        return
    with pyarrow.memory_map(str(path)) as source:
        try:
            opened = pyarrow.ipc.open_file(source)
            batches: Iterable[Any] = (opened.get_batch(number) for number in range(opened.num_record_batches))
        except pyarrow.ArrowInvalid:
            source.seek(0)
            batches = pyarrow.ipc.open_stream(source)
        yield from _numbered(name, (row for batch in batches for row in _pieces(batch)))


def _pieces(batch: Any) -> Iterator[Any]:
    for begin in range(0, batch.num_rows, _BATCH_ROWS):
        yield from batch.slice(begin, _BATCH_ROWS).to_pylist()


def _yaml(path: Path, name: str, encoding: str | None) -> Iterator[Raw]:
    """Rows of a YAML file, which know their line."""
    with _text(path, encoding) as file:
        listed = _list_in(yaml.load(file.read(), Loader=_Lined))  # noqa: S506  # _Lined is a SafeLoader
    for number, row in enumerate(listed, 1):
        yield Raw(name, row.pop(_LINE, number) if isinstance(row, dict) else number, row)


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
