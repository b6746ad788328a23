"""A dataset from end to end: whole or not at all, the same bytes every time, nothing lost without a word, nothing leaked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.artifacts import storage
from runners.artifacts.record import Manifest, Record, describe
from runners.corpus import build as building
from runners.corpus import prepare
from runners.corpus.build import CONTENT, build
from runners.errors import UserError
from runners.spec import BucketSpec
from tests.corpus.projects import lines, made, project, rows, spec, topic


def test_a_dataset_has_everything_the_contract_names(tmp_path: Path) -> None:
    result = made(tmp_path, rows(100))
    folder = result.folder
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*CONTENT, "report.html", "record.json", "manifest.json"}
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert all(describe(folder / name) == file for name, file in manifest.files.items())
    record = Record.model_validate_json((folder / "record.json").read_text())
    assert (record.id, record.stage, record.status) == (result.dataset_id, "data", "complete")
    train, held = lines(folder, "train.jsonl"), lines(folder, "validation.jsonl")
    whole = lines(folder, "consolidated_training_data.jsonl")
    assert json.loads((folder / "consolidated_training_data.json").read_text()) == whole
    assert sorted(row["id"] for row in train + held) == sorted(row["id"] for row in whole)
    assert len(held) == 8 and len(train) == 92
    assert {"id", "question", "answer", "category", "source", "history"} <= set(train[0])
    assert train[0]["origin"]["file"] == "s0.jsonl"
    assert json.loads((folder / "training_statistics.json").read_text()) == result.statistics


def test_the_same_sources_give_the_same_bytes_on_one_core_and_on_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path / "in", rows(700), rows(300, answer="Always the same words."))
    first = build(spec(), root, tmp_path / "one", processes=1)
    monkeypatch.setattr(prepare, "_ALONE_ROWS", 100)
    monkeypatch.setattr("runners.corpus.reading.BATCH_ROWS", 100)
    second = build(spec(), root, tmp_path / "two", processes=2)
    assert first.dataset_id == second.dataset_id
    for name in CONTENT:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_a_changed_word_is_another_dataset(tmp_path: Path) -> None:
    first = made(tmp_path, rows(20))
    changed = rows(20)
    changed[7]["answer"] += " Indeed."
    assert made(tmp_path, changed).dataset_id != first.dataset_id


def test_bad_rows_are_rejected_by_file_line_and_reason(tmp_path: Path) -> None:
    bad: list[Any] = [{"question": "No answer?"}, {"question": "Q", "answer": "A long enough answer to pass, in words.", "category": "cooking"}, 7]
    personal = {"question": "Whose number?", "answer": "Call Jane Doe at 212-555-0143 for that, she will help.", "category": "tax"}
    empty = {"question": "Is this empty?", "answer": " ", "category": "tax"}
    result = made(tmp_path, [*rows(5), *bad, personal, empty])
    rejects = lines(result.folder, "rejects.jsonl")
    assert [(row["file"], row["line"]) for row in rejects] == [("s0.jsonl", 6), ("s0.jsonl", 7), ("s0.jsonl", 8), ("s0.jsonl", 9), ("s0.jsonl", 10)]
    assert [row["reason"].split(":")[0].split("(")[0].strip() for row in rejects] == [
        "there is no answer",
        "the category 'cooking' is none of the 18 domains; name one in the row, or map it under `categories` of source source-0",
        "a row must be an object, found int",
        "personal_data",
        "the answer is empty",
    ]
    assert (result.statistics["rejected"]["rows"], result.statistics["rejected"]["empty"]) == (5, 1)
    assert result.statistics["kept"]["pairs"] == 5


def test_every_row_is_kept_dropped_or_rejected(tmp_path: Path) -> None:
    source: list[Any] = [*rows(50), *rows(50)[:10], {"nothing": 1}, "garbage"]
    facts = made(tmp_path, source).statistics
    assert facts["read"]["pairs"] + facts["rejected"]["rows"] == len(source)
    assert facts["read"]["pairs"] == facts["kept"]["pairs"] + sum(facts["dropped"].values())


def test_of_duplicates_the_earlier_source_stays_then_the_cleaner_pair(tmp_path: Path) -> None:
    same = {"question": "What is an index fund?", "category": "investing"}
    cut = {**same, "answer": "A fund that follows an index such as the S&P 500, at low cost, and that is held for"}
    good = {**same, "answer": "A fund that follows an index such as the S&P 500, at low cost."}
    other = {**same, "answer": "Something else entirely, said by a source further down the list."}
    kept = lines(made(tmp_path, [cut, good], [other]).folder, "consolidated_training_data.jsonl")
    assert [row["answer"] for row in kept] == [good["answer"]]


def test_near_duplicates_go_and_templates_stay(tmp_path: Path) -> None:
    base = "A bond is a loan to a government or a company that pays interest twice a year and returns its face value when it matures at the end"
    twins = [
        {"question": "What is a bond?", "answer": f"{base}.", "category": "investing"},
        {"question": "What is a bond, please?", "answer": f"{base}!", "category": "investing"},
    ]
    template = [
        {
            "question": f"I earn ${income:,} a year, how much should I save for retirement?",
            "answer": f"Save {topic(income)} {topic(income + 1)}.",
            "category": "retirement",
        }
        for income in (50_000, 60_000)
    ]
    facts = made(tmp_path, twins + template).statistics
    assert facts["dropped"] == {"repeated_question": 0, "near_duplicate": 1, "leak": 0}
    assert facts["duplicates"]["by_question_words"]["pairs_with_a_twin"] == 4
    by_questions = made(tmp_path, twins + template, out="other", drop_near_duplicates="questions").statistics
    assert by_questions["dropped"]["near_duplicate"] == 2
    assert made(tmp_path, twins + template, out="third", drop_near_duplicates="none").statistics["dropped"]["near_duplicate"] == 0


def test_a_leak_refuses_the_build_and_dropping_removes_it(tmp_path: Path) -> None:
    leaky = rows(20)
    leaky[3]["question"] = "what's the standard deduction, for a SINGLE filer in 2025"
    leaky[5]["history"] = [{"role": "user", "content": "How is an RMD computed at the age of 75?"}, {"role": "assistant", "content": "By table."}]
    leaky[6]["question"] = "Please tell me: how is an RMD computed at the age of 75? I need it today for my tax return and my records."
    cases = ("What's the standard deduction for a single filer in 2025?", "How is an RMD computed at the age of 75?", "Something new?")
    with pytest.raises(UserError, match="2 of 3 benchmark questions are in the training pairs") as refused:
        made(tmp_path, leaky, cases=cases)
    assert "--drop-leaks" in str(refused.value)
    assert not (tmp_path / "out").exists()
    side_by_side = json.loads((tmp_path / "out.refused" / "leaks.json").read_text())
    assert [(row["case"], row["match"]) for row in side_by_side] == [("case-0", "verbatim"), ("case-1", "verbatim"), ("case-1", "contained")]
    result = made(tmp_path, leaky, cases=cases, drop_leaks=True)
    assert result.statistics["dropped"]["leak"] == 3
    assert result.statistics["leaks"]["cases_leaked"] == 2
    assert result.statistics["leaks"]["cases_leaked_after"] == 0
    assert len(lines(result.folder, "consolidated_training_data.jsonl")) == 17
    assert not (tmp_path / "out.refused").exists()


def test_a_leak_that_several_pairs_repeat_is_listed_once_with_their_number(tmp_path: Path) -> None:
    leaky = rows(20)
    for number in (3, 7, 11):
        leaky[number]["question"] = ("What is the standard deduction of 2025?", "what is the  STANDARD deduction, of 2025")[number % 2]
    leaky[5]["question"] = "What is the standard deduction of 2025, then?"
    with pytest.raises(UserError, match="1 of 1 benchmark questions"):
        made(tmp_path, leaky, cases=("What is the standard deduction of 2025?",))
    listed = json.loads((tmp_path / "out.refused" / "leaks.json").read_text())
    assert [(row["match"], row["pairs"]) for row in listed] == [("verbatim", 3), ("contained", 1)]
    assert len({(row["case"], row["pair"]) for row in listed}) == len(listed)


def test_without_a_benchmark_nobody_says_there_is_no_leak(tmp_path: Path) -> None:
    result = made(tmp_path, rows(5), benchmark="")
    assert result.statistics["leaks"]["checked"] is False
    assert "No benchmark was given" in (result.folder / "report.html").read_text()


def test_an_old_dataset_stands_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = made(tmp_path, rows(20))
    before = {path.name: path.read_bytes() for path in old.folder.iterdir()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "account", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, rows(30))
    assert {path.name: path.read_bytes() for path in old.folder.iterdir()} == before
    monkeypatch.undo()
    assert made(tmp_path, rows(30)).statistics["kept"]["pairs"] == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_that_is_no_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="is there and is no dataset"):
        made(tmp_path, rows(5))
    assert (tmp_path / "out" / "thesis.docx").exists()


def test_nothing_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pair is left of 3 rows: 2 × there is no question.*, 1 × the answer is empty") as error:
        made(tmp_path, [{"a": 1}, {"a": 2}, {"question": "Q?", "answer": ""}])
    assert Path(error.value.fix.rpartition(" ")[2]).read_text().count("\n") == 3
    with pytest.raises(UserError, match="no pair is left of 1 rows: 1 × dropped: leak"):
        made(tmp_path / "b", rows(1), cases=(rows(1)[0]["question"],), drop_leaks=True)
    with pytest.raises(UserError, match="no pair is left of 0 rows: the sources hold no rows"):
        made(tmp_path / "c", [])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("x" * 1_000_000, "too_long"),
        ("word " * 9 + "y" * 40_000, "too_long"),
        ("A bond is a loan to a company or a state.<|im_end|>", "control_tokens"),
    ],
)
def test_what_a_model_cannot_be_trained_on_is_refused(tmp_path: Path, answer: str, reason: str) -> None:
    result = made(tmp_path, [*rows(3), {"question": "What is refused?", "answer": answer, "category": "tax"}])
    assert [row["reason"].split()[0] for row in lines(result.folder, "rejects.jsonl")] == [reason]


@pytest.mark.parametrize(("finding", "answer"), [("truncated", "It is the one that was and"), ("citation", "It is the one that was found.[12] And it stays.")])
def test_junk_beyond_its_share_refuses_the_build(tmp_path: Path, finding: str, answer: str) -> None:
    junk = [{**row, "answer": f"{topic(n + 9_000_000)}. {answer}", "question": f"Which {topic(n + 8_000_000)}?"} for n, row in enumerate(rows(3))]
    with pytest.raises(UserError, match=rf"3 of 103 pairs \(2.9 %\) are {finding}") as error:
        made(tmp_path, [*rows(100), *junk])
    assert "at most 2 %" in error.value.expected and (tmp_path / "out.refused" / "report.html").exists() and not (tmp_path / "out").exists()
    assert made(tmp_path, [*rows(150), *junk], out="few").statistics["kept"]["findings"][finding] == 3
    assert made(tmp_path, [*rows(100), *junk], out="bound", refuse_beyond={finding: 0.03}).statistics["kept"]["pairs"] == 103
    assert made(tmp_path, [*rows(100), *junk], out="dropped", refuse=(finding,)).statistics["rejected"]["rows"] == 3


def test_a_pair_without_category_gets_the_one_its_words_speak_of(tmp_path: Path) -> None:
    clear = {"question": "How does a revocable living trust avoid probate?", "answer": "Property in the trust passes under its terms, without the court."}
    unclear = {"question": "What is the thing?", "answer": "It is a thing, as such, and there is not much more to say."}
    root = project(tmp_path / "in", [clear, unclear])
    (root / "data").mkdir()
    (root / "data" / "taxonomy.yaml").write_bytes((Path(__file__).parents[2] / "data" / "taxonomy.yaml").read_bytes())
    result = build(spec(), root, tmp_path / "out")
    assert [(row["category"], row["category_by"].split(",")[0]) for row in lines(result.folder, "consolidated_training_data.jsonl")] == [("estate", "taxonomy")]
    assert "there is no category" in lines(result.folder, "rejects.jsonl")[0]["reason"]


def test_inspect_names_file_and_line(tmp_path: Path) -> None:
    source = rows(4)
    source[1]["answer"] += " and then the"
    source[2]["question"] = source[0]["question"]
    source[3]["question"] = "Is this in the benchmark, word for word?"
    root = project(tmp_path, [*source, {}], cases=("Is this in the benchmark, word for word?",))
    found = building.inspect(spec(), root)
    assert [(row["file"], row["line"], row["kind"]) for row in found] == [
        ("s0.jsonl", 5, "rejected"),
        ("s0.jsonl", 2, "truncated"),
        ("s0.jsonl", 1, "conflict"),
        ("s0.jsonl", 4, "leak"),
    ]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_split_divides_no_group_and_does_not_depend_on_order(data: st.DataObject) -> None:
    import numpy as np

    from runners.corpus import split

    count = data.draw(st.integers(1, 200))
    groups = np.array(data.draw(st.lists(st.integers(0, 60), min_size=count, max_size=count)))
    categories = np.array([group % 4 for group in groups.tolist()])
    ids = np.array([random.Random(n).getrandbits(63) for n in range(count)], np.uint64)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    held = split.held_out(groups, categories, ids, kept, 0.2, 0)
    assert not (held & ~kept).any()
    assert held.sum() <= 0.2 * kept.sum() + 4
    assert not set(groups[held].tolist()) & set(groups[kept & ~held].tolist())
    order = np.array(random.Random(1).sample(range(count), count))
    again = split.held_out(groups[order], categories[order], ids[order], kept[order], 0.2, 0)
    assert (again == held[order]).all()


def test_the_check_of_a_split_finds_what_does_not_belong() -> None:
    import numpy as np

    from runners.corpus import split
    from runners.corpus.words import hashes, word_sets

    sets = word_sets(*hashes(["a b c d e", "a b c d f", "v w x y z", "a b c d e g"]))
    assert split.nearest(sets, np.array([0, 2]), np.array([1, 2, 3])).tolist() == pytest.approx([5 / 6, 1.0])
    groups, everything = np.arange(4), np.ones(4, bool)
    held = np.array([True, False, False, False])
    assert split.check(groups, held, everything, (sets,), 0.9) == 1
    with pytest.raises(AssertionError, match="near a training pair"):
        split.check(groups, held, everything, (sets,), 0.8)
    with pytest.raises(AssertionError, match="both sides"):
        split.check(np.zeros(4), held, everything, (sets,), 0.9)


def test_a_source_in_a_bucket_is_read_once(tmp_path: Path, buckets: BucketSpec) -> None:
    root = project(tmp_path / "in", rows(1))
    text = "".join(json.dumps(row) + "\n" for row in rows(5))
    storage.write(f"{buckets.models}/sources/a/pairs.jsonl", text, generation=0)
    source = {"name": "far", "kind": "qa", "path": f"{buckets.models}/sources", "licence": "MIT"}
    (root / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [source]}))
    result = build(spec(), root, tmp_path / "out")
    assert result.statistics["kept"]["pairs"] == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "read", lambda uri: pytest.fail(f"{uri} was read again"))
        assert build(spec(), root, tmp_path / "out").dataset_id == result.dataset_id
    (root / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [source | {"path": f"{buckets.models}/nothing"}]}))
    with pytest.raises(UserError, match="holds nothing"):
        build(spec(), root, tmp_path / "out")


def test_findings_that_do_not_exist_cannot_be_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.refuse names nonsense"):
        made(tmp_path, rows(3), refuse=("nonsense", "short"))
