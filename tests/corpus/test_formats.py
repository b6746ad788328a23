"""Files as people have them: every format gives the same pairs, large ones as a stream, bad ones a reason."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from runners.corpus import formats, sources
from runners.corpus.pairs import Pair, pair_of
from runners.corpus.sources import Source
from runners.corpus.turns import Rejected
from runners.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"question": "What is an IRA?", "answer": "An account, with “rules”.", "category": "retirement"},
    {"question": "And a 401(k)?", "answer": "A plan.\nTwo lines.", "category": None},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = 'question;answer;category\nWhat is an IRA?;"An account, with “rules”.";retirement\nAnd a 401(k)?;"A plan.\nTwo lines.";\n'
#: Written by datasets 5.2.0: DatasetDict.save_to_disk.
HUGGING_FACE = Path(__file__).parent / "hf_dataset"


def made(raw: Any, **options: Any) -> Pair:
    return pair_of(raw, **({"source": "s", "category": None, "categories": {}, "fields": {}} | options))


def pairs(path: Path, encoding: str | None = None) -> list[tuple[str, str, str]]:
    read = list(formats.rows(path, path.name, encoding))
    assert [raw.error for raw in read] == [None] * len(read)
    return [
        (pair.question, pair.answer, pair.category) for pair in (made(json.loads(raw.value) if isinstance(raw.value, bytes) else raw.value) for raw in read)
    ]


def arrow(path: Path, opened: Callable[..., Any]) -> None:
    table = pa.Table.from_pylist(ROWS)
    with opened(str(path), table.schema) as writer:
        writer.write_table(table)


def zst(path: Path, data: bytes) -> None:
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(data)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "b.arrow": lambda path: arrow(path, pa.ipc.new_stream),
    "c.arrow": lambda path: arrow(path, pa.ipc.new_file),
    "d.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "e.jsonl.zst": lambda path: zst(path, LINES.encode()),
    "f.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps({"pairs": ROWS}).encode())),
    "g.JSON.zst": lambda path: zst(path, json.dumps(ROWS).encode()),
    "h.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "i.csv": lambda path: path.write_text(CSV, encoding="utf-16"),
    "j.tsv": lambda path: path.write_text(CSV.replace(";", "\t")),
    "k.json": lambda path: path.write_text(LINES),
    "l.ndjson": lambda path: path.write_text(LINES, encoding="utf-16"),
    "m.yaml.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "n.json": lambda path: path.write_text(json.dumps(ROWS), encoding="utf-8-sig"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert pairs(tmp_path / name) == [
        ("What is an IRA?", "An account, with “rules”.", "retirement"),
        ("And a 401(k)?", "A plan.\nTwo lines.", "uncategorized"),
    ]
    assert sources.files(Source(name="a", kind="qa", path=".", licence="MIT"), tmp_path) == [tmp_path / name]


def test_another_encoding_is_named_or_suggested(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV.replace("IRA", "café à la crème, déjà vu,").encode("cp1252"))
    read = list(formats.rows(tmp_path / "a.csv", "a.csv"))
    assert "not utf-8 at byte" in (read[-1].error or "") and "`encoding`" in (read[-1].error or "")
    assert pairs(tmp_path / "a.csv", "cp1252")[0][:2] == ("What is an café à la crème, déjà vu,?", "An account, with “rules”.")
    with pytest.raises(ValueError, match="'cp99' is no encoding"):
        Source(name="a", kind="qa", path="x", licence="MIT", encoding="cp99")


def test_a_hugging_face_folder_gives_its_rows_and_nothing_else(tmp_path: Path) -> None:
    for split, questions in ((None, 3), ("train", 2), ("test", 1)):
        found = sources.files(Source(name="hf", kind="qa", path=str(HUGGING_FACE), licence="MIT", split=split), tmp_path)
        assert {path.suffix for path in found} == {".arrow"}
        assert sum(len(pairs(path)) for path in found) == questions
    # What a hub's snapshot looks like, with the cache that its client leaves.
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "data/training.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.json").write_text("{}")
    (tmp_path / "dataset_infos.json").write_text("{}")
    shown = [path.name for path in sources.files(Source(name="hub", kind="qa", path=".", licence="MIT", split="train"), tmp_path)]
    assert shown == ["train-00000-of-00001.parquet"]
    with pytest.raises(UserError, match="belongs to split 'dev'"):
        sources.files(Source(name="hub", kind="qa", path=".", licence="MIT", split="dev"), tmp_path)


def test_a_cache_beside_the_data_of_a_dataset_is_left_alone(tmp_path: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "cache-1f.arrow"):
        arrow(tmp_path / name, pa.ipc.new_stream)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    assert [path.name for path in sources.files(Source(name="a", kind="qa", path=".", licence="MIT"), tmp_path)] == ["data-00000-of-00001.arrow"]
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match="does not list the data files"):
        sources.files(Source(name="a", kind="qa", path=".", licence="MIT"), tmp_path)


TURNS = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
TOOL = {"id": "c1", "type": "function", "function": {"name": "rate", "arguments": '{"year": 2025}'}}


@pytest.mark.parametrize(
    "raw",
    [
        {"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}]},
        {"prompt": [TURNS[0]], "completion": [TURNS[1]]},
        {"prompt": "Q?", "completion": "A."},
        {"messages": [{"role": "developer", "content": "S"}, *TURNS]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Q?"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "A."}]},
            ]
        },
    ],
)
def test_every_conversation_is_one(raw: dict[str, Any]) -> None:
    assert (made(raw).question, made(raw).answer) == ("Q?", "A.")


@pytest.mark.parametrize(
    "middle",
    [
        [{"role": "assistant", "content": None, "tool_calls": [TOOL]}, {"role": "tool", "tool_call_id": "c1", "content": "4.5 %"}],
        [{"role": "assistant", "function_call": TOOL["function"]}, {"role": "function", "name": "rate", "content": "4.5 %"}],
    ],
)
def test_what_a_tool_returned_stands_below_the_question(middle: list[dict[str, Any]]) -> None:
    pair = made({"messages": [TURNS[0], *middle, TURNS[1]]})
    assert pair.question.startswith("Q?\n\nrate") and pair.question.endswith("returned:\n4.5 %")
    assert (pair.answer, pair.history) == ("A.", ())


def test_tool_turns_of_share_gpt() -> None:
    call = {"from": "function_call", "value": '{"name": "rate", "arguments": {"year": 2025}}'}
    chat = [{"from": "human", "value": "Q?"}, call, {"from": "observation", "value": "4.5 %"}, {"from": "gpt", "value": "A."}]
    assert made({"conversations": chat}).question == 'Q?\n\nrate({"year": 2025}) returned:\n4.5 %'


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"messages": [TURNS[0], {"role": "assistant", "tool_calls": [TOOL]}]}, "ends with a call of a tool"),
        ({"messages": [{"role": "tool", "content": "x"}, *TURNS]}, "follows no user turn"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, TURNS[1]]}, "a part of type 'image_url'"),
        ({"messages": [{"role": "narrator", "content": "x"}, *TURNS]}, "the role 'narrator'"),
        ({"conversations": [{"from": "gpt", "value": "A."}, {"from": "human", "value": "Q?"}]}, "must go user, assistant"),
        ({"prompt": [TURNS[0]], "completion": []}, "prompt and completion must end with a user turn and an assistant turn"),
        ({"question": "Q?", "answer": float("nan")}, "the answer is nan, no text"),
        ({"question": "Q?", "answer": "NaN"}, "the answer is 'NaN', what a program writes for a missing value"),
        ({"question": "None", "answer": "A."}, "the question is 'None'"),
        ({"question": "Q?", "answer": float("inf")}, "the answer is inf"),
        ({"question": "Q?", "answer": None}, "there is no answer"),
    ],
)
def test_what_is_no_pair_says_why(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected, match=reason.replace("(", r"\(")):
        made(raw)


def test_a_missing_category_input_or_source_is_not_called_nan() -> None:
    pair = made({"question": "Q?", "answer": "A.", "category": float("nan"), "input": float("nan"), "source": float("nan")})
    assert (pair.question, pair.category, pair.source) == ("Q?", "uncategorized", "s")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.parquet", b"PAR1 no", "ArrowInvalid"),
        ("b.arrow", b"no", "ArrowInvalid"),
        ("c.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "the file cannot be read after row 2: EOFError"),
        ("d.jsonl.zst", b"no zstd at all", "the file cannot be read"),
        ("e.json.gz", b"no gzip", "the file cannot be read: BadGzipFile"),
        ("f.json.gz", gzip.compress(b'{"a": [1], "b": [2]}', mtime=0), "an object with one list of rows is wanted, found 2 lists"),
        ("g.json.gz", gzip.compress(b"3", mtime=0), "a list of rows is wanted, found int"),
        ("h.json.gz", gzip.compress(b'[{"question": "Q?", "answer": "A."}, {"question', mtime=0), "the file cannot be read after row 1: IncompleteJSONError"),
    ],
)
def test_a_damaged_file_ends_with_its_reason(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert reason in (list(formats.rows(tmp_path / name, name))[-1].error or "")


def test_a_json_file_of_200_mb_is_read_as_a_stream(tmp_path: Path) -> None:
    """In a process of its own: reading raises its peak memory by less than a tenth of the file."""
    line = json.dumps({"question": "What is the number of this row?", "answer": "word " * 380})
    with (tmp_path / "big.json").open("w") as file:
        file.write('{"version": 1, "pairs": [' + line)
        file.writelines(f",\n{line}" for _ in range(104_999))
        file.write("]}")
    assert (tmp_path / "big.json").stat().st_size > 200e6
    program = (
        "import resource, sys; from pathlib import Path; from runners.corpus import formats;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; path = Path(sys.argv[1]);"
        "count = sum(raw.error is None for raw in formats.rows(path, 'big.json'));"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "big.json")], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    count, grown_kib = map(int, done.stdout.split())
    assert count == 105_000
    assert grown_kib < 20 * 1024
