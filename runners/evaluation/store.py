"""Answers as they come, one JSON object a line in ``answers.jsonl``, so that nothing a server said is ever lost.

``request.json`` beside it holds what every request shares. A run goes on in the same folder only with the same request.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError
from runners.evaluation.acceptance import Drafts
from runners.evaluation.cases import Case
from runners.evaluation.client import Attempt, Reply

REQUEST, ANSWERS, RESULTS, REPORT = "request.json", "answers.jsonl", "results.json", "report.html"


@dataclass(frozen=True)
class Answer:
    """A reply to a case, in which session of the run it came, and when in it (seconds)."""

    case: str
    digest: str
    session: int
    began_s: float
    ended_s: float
    reply: Reply


class Store:
    """The folder of one run."""

    def __init__(self, folder: Path, request: dict[str, Any], cases: tuple[Case, ...]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._agree(request)
        wanted = {case.id: case.digest for case in cases}
        self.answers = {a.case: a for a in self._read() if wanted.get(a.case) == a.digest}
        self.session = 1 + max((answer.session for answer in self.answers.values()), default=0)
        if len(self.answers) < len(wanted):
            # Nobody was there: not an answer. Such cases are asked again, unless the run was finished with them in it.
            self.answers = {name: a for name, a in self.answers.items() if not (a.reply.status == "error" and all(t.status is None for t in a.reply.attempts))}

    def add(self, answer: Answer) -> None:
        """Keep an answer, on disk before this returns."""
        self.answers[answer.case] = answer
        row = asdict(answer)
        row["reply"]["drafts"] = answer.reply.drafts and answer.reply.drafts.model_dump()
        line = json.dumps(row, ensure_ascii=False)
        with (self.folder / ANSWERS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def wall_s(self) -> float:
        """Seconds spent asking, without the time between sessions."""
        sessions: dict[int, list[Answer]] = {}
        for answer in self.answers.values():
            sessions.setdefault(answer.session, []).append(answer)
        return sum(max(a.ended_s for a in group) - min(a.began_s for a in group) for group in sessions.values())

    def _agree(self, request: dict[str, Any]) -> None:
        file = self.folder / REQUEST
        if not file.exists():
            outside.write_durably(file, json.dumps(request, indent=1, sort_keys=True))
            return
        try:
            found = outside.read_json(file)
        except UserError:
            found = {}
        if not isinstance(found, dict):
            found = {}
        # A model known by its registry id may have come back at another address; without an id, the address is all that tells it apart.
        same_model = request.get("model_id") is not None and found.get("model_id") == request.get("model_id")
        compared = (found.keys() | request.keys()) - ({"api_url"} if same_model else set())
        differing = sorted(key for key in compared if found.get(key) != request.get(key))
        if differing:
            shown = "; ".join(f"{key}: {found.get(key)!r} there, {request.get(key)!r} now" for key in differing)[:600]
            raise UserError(
                f"{self.folder} holds another run ({shown})", "the same request, to go on with it", "pass another --out, or --fresh to throw that run away"
            )

    def _read(self) -> list[Answer]:
        file = self.folder / ANSWERS
        if not file.exists():
            return []
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            # The process was killed while it wrote: that answer is asked again.
            os.truncate(file, len(whole))
        rows = enumerate(whole.splitlines(), 1)
        return [outside.shaped(functools.partial(_read_answer, line), f"line {at} of {file}", "an answer") for at, line in rows if line.strip()]


def _read_answer(line: bytes) -> Answer:
    row = json.loads(line)
    attempts = tuple(Attempt(**attempt) for attempt in row["reply"]["attempts"])
    drafts = Drafts.model_validate(row["reply"]["drafts"]) if row["reply"].get("drafts") else None
    return Answer(**{**row, "reply": Reply(**{**row["reply"], "attempts": attempts, "drafts": drafts})})
