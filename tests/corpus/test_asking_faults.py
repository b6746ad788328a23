"""A model's server that misbehaves, a run that is interrupted, and pairs that lean on what is beside their text: nothing is lost, nothing gets through."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runners.commands.data import extract as command
from runners.corpus import asking, endpoint
from runners.errors import UserError
from tests.corpus.model_server import MODEL, Failure, serving
from tests.corpus.test_asking import FUNDED, GUIDE, LIMIT, SOUND, is_judging, pair, play, run, verdicts, written


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    (tmp_path / "roth.md").write_text(GUIDE)
    return tmp_path / "roth.md"


def test_a_request_that_is_always_refused_costs_its_piece_alone(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(GUIDE.replace("# Roth IRA\n", f"# Roth IRA {number}\n"))
    refuses = Failure(400, message="the content filter was triggered")
    with (
        serving(
            lambda messages, _: refuses if "Roth IRA 1" in messages[1]["content"] else verdicts("good") if is_judging(messages) else written(SOUND)
        ) as server,
        endpoint.opened(server.url, MODEL, "", tmp_path / "answers") as model,
    ):
        found = list(asking.rows(asking.plan(sorted(tmp_path.glob("*.md")), model), model, 2))
    assert [raw.error is None for raw in found] == [True, False, True] and "HTTP 400" in str(found[1].error) and "content filter" in str(found[1].error)


@pytest.mark.parametrize(
    "body", ["<html>busy</html>", [], '{"choices": [{"mess', {"choices": []}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": [{}]}}]}]
)
def test_what_is_no_completion_is_one_error(guide: Path, body: Any) -> None:
    with serving(lambda *_: Failure(body=body)) as server, pytest.raises(UserError, match="is no chat completion"):
        run(server, guide)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "The model is overloaded", "code": 503}}, "the server says: The model is overloaded"),
        ({"error": "no capacity", "choices": []}, "the server says: no capacity"),
        ({"error": {"code": 1}, "choices": [{"finish_reason": "stop", "message": {"content": '{"pairs": []}'}}]}, 'the server says: {"code": 1}'),
        ({"choices": [{"finish_reason": "error", "message": {"content": '{"pairs": []}'}}]}, "the server ended its reply with an error"),
    ],
)
def test_an_error_with_the_status_of_an_answer_is_none_and_is_not_kept(guide: Path, body: Any, said: str) -> None:
    with serving(lambda *_: Failure(body=body)) as server:
        with pytest.raises(UserError, match="requests were not answered") as error:
            run(server, guide)
        assert said in str(error.value)
        server.play = play(written(SOUND), verdicts("good"))
        assert [raw.error for raw in run(server, guide)] == [None]


def test_a_server_that_counts_no_tokens_is_no_failure(guide: Path) -> None:
    choice = {"finish_reason": "stop", "message": {"content": '{"pairs": []}'}}
    with serving(lambda *_: Failure(body={"choices": [choice], "usage": {"prompt_tokens": None}})) as server:
        assert run(server, guide) == []


def test_another_model_of_the_same_name_is_asked_again(guide: Path) -> None:
    with serving(play(written(SOUND), verdicts("good"))) as server:
        assert len(run(server, guide)) == 1
        server.root = "/models/two"
        server.play = play(written(), verdicts())
        assert run(server, guide) == []


def test_a_context_without_room_is_refused_before_anything_is_asked(guide: Path) -> None:
    with serving(play(written(), verdicts()), context=512) as server, pytest.raises(UserError, match="a context of 512 tokens"):
        run(server, guide)


@pytest.mark.parametrize(("url", "key"), [("http://[::1", "k"), ("http://127.0.0.1:9/v1", "kéy")])
def test_an_address_or_a_key_that_cannot_be_sent_is_one_error(tmp_path: Path, url: str, key: str) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        endpoint.opened(url, MODEL, key, tmp_path / "answers").__enter__()


def test_an_interrupted_run_asks_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        (tmp_path / f"{number}.md").write_text(GUIDE.replace("# Roth IRA\n", f"# Roth IRA {number}\n"))

    def slowly(messages: list[dict[str, str]], attempt: int) -> str:
        time.sleep(0.3)
        return written(SOUND)

    def interrupted(futures: list[Any]) -> Any:
        # Where the main thread waits when Ctrl-C comes.
        futures[0].result()
        raise KeyboardInterrupt

    monkeypatch.setattr(endpoint, "as_completed", interrupted)
    with serving(slowly) as server, endpoint.opened(server.url, MODEL, "", tmp_path / "answers") as model, pytest.raises(KeyboardInterrupt):
        list(asking.rows(asking.plan(sorted(tmp_path.glob("*.md")), model), model, 1))
    assert len(server.seen) < 8


def test_two_documents_of_one_name_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "roth.md").write_text(GUIDE)
    with serving(play(written(SOUND), verdicts("good"))) as server, endpoint.opened(server.url, MODEL, "", tmp_path / "answers") as model:
        assert [raw.error for raw in asking.rows(asking.plan(sorted(tmp_path.glob("*/*.md")), model), model, 1)] == [None, None]


IRAS = """# Accounts

## Traditional IRA

The account is funded with money before tax, and the owner has to take distributions from age 73 on.

## Roth IRA

The account is funded with money that was taxed already, and no distributions are required while the owner lives.
"""


def test_a_name_comes_from_the_heading_above_the_quote_and_the_judge_sees_it(tmp_path: Path) -> None:
    (tmp_path / "accounts.md").write_text(IRAS)
    before = "The account is funded with money before tax, and the owner has to take distributions from age 73 on."
    right = pair("How is a traditional IRA funded?", ("A traditional IRA is funded with money before tax.", before))
    wrong = pair("How is a Roth IRA funded?", ("A Roth IRA is funded with money before tax.", before))
    with serving(play(written(right, wrong), verdicts("good"))) as server:
        found = run(server, tmp_path / "accounts.md")
        shown = next(body["messages"][1]["content"] for body in server.seen if is_judging(body["messages"]))
    assert [raw.error for raw in found] == [None, "the name Roth is not in its quote"]
    assert "Headings above: Accounts > Traditional IRA" in shown


def test_the_judge_sees_the_whole_sentence_of_a_quote(guide: Path) -> None:
    part = pair(
        "When is the limit of a Roth IRA $7,000?", ("The limit of a Roth IRA is $7,000 under an age of 50 years.", "the limit is $7,000 for people under 50")
    )
    with serving(play(written(part), verdicts("good"))) as server:
        assert [raw.error for raw in run(server, guide)] == [None]
        assert json.dumps(LIMIT) in next(body["messages"][1]["content"] for body in server.seen if is_judging(body["messages"]))


def test_characters_that_nobody_sees_are_refused(guide: Path) -> None:
    hidden = pair("How is a Roth IRA funded\u202e?", (FUNDED, FUNDED))
    with serving(play(written(hidden), verdicts("good"))) as server:
        assert [raw.error for raw in run(server, guide)] == ["the text has characters that nobody sees"]


@pytest.mark.parametrize("name", ["rejects.jsonl", "roth.md", ""])
def test_an_output_that_would_be_lost_or_overwrites_an_input_is_refused_before_anything_is_asked(guide: Path, name: str) -> None:
    with serving(play(written(SOUND), verdicts("good"))) as server, pytest.raises(UserError, match="is a folder, an input, or the file of what is refused"):
        options = [str(guide), "--endpoint", server.url, "--model", MODEL, "--answers", str(guide.parent / "answers"), "--out", str(guide.parent / name)]
        CliRunner().invoke(command, options, catch_exceptions=False)
    assert not server.seen and guide.read_text() == GUIDE
