"""How many drafted tokens a server with speculative decoding accepted, by category.

vLLM tells it of each answer (``--per-request-spec-decode-metrics summary``, which ``runners/serving/serve.py`` sets), in the event that holds the usage. So it
comes through the gateway, and neither other clients nor a restart of the server change it. Where a server tells nothing, nothing was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from runners.fields import Strict

if TYPE_CHECKING:
    from runners.evaluation.results import CaseResult


class Drafts(Strict):
    """What was drafted for one answer. ``checks`` counts the steps that had a draft to check; a step without one yields one token."""

    most: int = Field(ge=1, description="tokens that the server drafts in a step")
    checks: int = Field(ge=0)
    drafted: int = Field(ge=0)
    accepted: int = Field(ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> Drafts:
        if not self.accepted <= self.drafted <= self.checks * self.most:
            raise ValueError(f"{self.accepted} accepted of {self.drafted} drafted tokens in {self.checks} checks of {self.most} do not add up")
        return self


class Accepted(Strict):
    """The answers of a group. ``tokens_a_step`` is what the planner needs; ``share`` is the part of the drafted tokens that was right."""

    answers: int = Field(ge=1)
    tokens: int = Field(ge=1)
    steps: int = Field(ge=1)
    drafted: int = Field(ge=0)
    accepted: int = Field(ge=0)
    tokens_a_step: float = Field(ge=1, allow_inf_nan=False)
    share: float | None = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Accepted:
        if abs(self.tokens_a_step - self.tokens / self.steps) > 1e-6:
            raise ValueError(f"{self.tokens} tokens in {self.steps} steps are not {self.tokens_a_step} a step")
        return self


class Acceptance(Strict):
    """Over all answers and by category."""

    method: str | None = Field(description="as the spec of the run says; None when it says nothing")
    draft_tokens: int = Field(ge=1)
    overall: Accepted
    categories: dict[str, Accepted] = Field(min_length=1)


@dataclass(frozen=True)
class _Answer:
    tokens: int
    drafts: Drafts

    @property
    def steps(self) -> int:
        # A step yields one token and what it accepts. The last one may accept more than the answer's end lets through.
        return min(self.tokens, max(self.tokens - self.drafts.accepted, self.drafts.checks, 1))


def read(event: Any) -> Drafts | None:
    """What an event of a stream says of its answer's drafts; None when it says nothing, or nothing that adds up."""
    metrics = event.get("metrics") if isinstance(event, dict) else None
    said = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
    if not isinstance(said, dict):
        return None
    names = {"most": "num_spec_tokens", "checks": "num_spec_steps", "drafted": "num_draft_tokens", "accepted": "num_accepted_draft_tokens"}
    try:
        return Drafts.model_validate({ours: said.get(theirs) for ours, theirs in names.items()})
    except ValueError:
        return None


def acceptance(cases: Sequence[CaseResult], method: str | None) -> Acceptance | None:
    """Of the answers that came with their drafts; None when none did, or when they came from servers that draft differently."""
    told = [(case.category, _Answer(case.completion_tokens, case.drafts)) for case in cases if case.drafts and case.completion_tokens]
    drafting = {answer.drafts.most for _, answer in told}
    if len(drafting) != 1:
        return None
    groups: dict[str, list[_Answer]] = {}
    for category, answer in told:
        groups.setdefault(category, []).append(answer)
    by_category = {name: _together(answers) for name, answers in groups.items()}
    return Acceptance(method=method, draft_tokens=drafting.pop(), overall=_together(answer for _, answer in told), categories=by_category)


def _together(answers: Iterable[_Answer]) -> Accepted:
    every = tuple(answers)
    tokens, steps = sum(answer.tokens for answer in every), sum(answer.steps for answer in every)
    drafted, right = sum(answer.drafts.drafted for answer in every), sum(answer.drafts.accepted for answer in every)
    share = right / drafted if drafted else None
    return Accepted(answers=len(every), tokens=tokens, steps=steps, drafted=drafted, accepted=right, tokens_a_step=tokens / steps, share=share)
