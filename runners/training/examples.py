"""Rows of a dataset as token ids, with a mask over the answer: the one place where a question becomes model input.

Training, the merge's probes, AWQ's calibration and both gates read examples through here, and serving and evaluation
send the same messages, so the text around a question is the same everywhere. (The first version of this system trained
on Alpaca text and served through a chat template; the loss in quality was silent.)

It does not build datasets (``elson data build``) and never cuts an example: one that is too long is an error.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError
from runners.spec import Spec


@dataclass(frozen=True)
class Example:
    """One tokenized pair. The loss is taken on ``token_ids[answer_start:]``: the answer and the token that ends it."""

    id: str
    token_ids: tuple[int, ...]
    answer_start: int

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def answer_tokens(self) -> int:
        """How many tokens the loss is taken on."""
        return len(self.token_ids) - self.answer_start


def messages(row: dict[str, Any], system_prompt: str) -> list[dict[str, str]]:
    """The conversation up to and including the question, as evaluation sends it. An empty system prompt is no message: some models have no such role."""
    history = [{"role": turn["role"], "content": turn["content"]} for turn in row.get("history") or []]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, *history, {"role": "user", "content": row["question"]}]


def read_rows(dataset: Path, split: str) -> list[dict[str, Any]]:
    """Rows of ``<dataset>/<split>.jsonl``. Raises UserError when the file is missing, broken or empty."""
    file = dataset / f"{split}.jsonl"
    if not file.exists():
        raise UserError(f"{file} is not there", "a dataset folder made by `elson data build`", "elson data build --out DIR")
    rows = []
    for number, line in enumerate(outside.text(file, "a dataset's rows").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "id": str(row["id"]), **{name: _text(row, name) for name in ("question", "answer")}})
            for turn in row.get("history") or []:
                _text(turn, "content")
        except outside.WRONG_SHAPE as error:
            expected = "id, question and answer, and texts that are not empty"
            raise UserError(f"{file}:{number} is not a row of a dataset: {error!r}", expected, "elson data build --out DIR") from None
    if not rows:
        raise UserError(f"{file} has no rows", "at least one question with an answer", "check the sources with `elson data build`")
    return rows


def _text(values: dict[str, Any], name: str) -> str:
    """A text that says something: null would train on the word None, and an empty answer on the token that ends it."""
    text = values[name]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}")
    return text


def choose(rows: Sequence[dict[str, Any]], limit: int | None, seed: int) -> list[dict[str, Any]]:
    """All rows, or the first ``limit`` of them after a shuffle that depends on ``seed`` only."""
    if limit is None or limit >= len(rows):
        return list(rows)
    order = list(range(len(rows)))
    random.Random(f"rows {seed}").shuffle(order)
    return [rows[index] for index in sorted(order[:limit])]


def load_tokenizer(model: Path) -> Any:
    """The tokenizer of a model folder. Raises UserError when it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    if not tokenizer.chat_template:
        raise UserError(
            f"{model} has a tokenizer without a chat template",
            "a model whose tokenizer_config.json or chat_template.jinja has one",
            "add the model's chat template",
        )
    return tokenizer


def tokenize(rows: Sequence[dict[str, Any]], tokenizer: Any, system_prompt: str, max_tokens: int, what: str) -> list[Example]:
    """Tokenize rows through the chat template.

    Args:
        rows: rows of a dataset.
        tokenizer: a transformers tokenizer with a chat template.
        system_prompt: the text before the first question.
        max_tokens: the longest example allowed.
        what: the split, for the error.

    Raises:
        UserError: examples longer than ``max_tokens`` (with their ids and lengths), or a template that does not end an
            answer with a special token (the model would never learn to stop).
    """
    examples = [_tokenize(row, tokenizer, system_prompt) for row in rows]
    if too_long := sorted((example for example in examples if len(example) > max_tokens), key=len, reverse=True):
        shown = ", ".join(f"{example.id} ({len(example)} tokens)" for example in too_long[:5])
        more = f" and {len(too_long) - 5} more" if len(too_long) > 5 else ""
        raise UserError(
            f"{len(too_long)} of {len(examples)} {what} examples are longer than train.max_tokens: {shown}{more}",
            f"at most {max_tokens} tokens, system prompt and template included; nothing is cut silently",
            f"shorten those answers, or set train.max_tokens to {len(too_long[0])} or more",
        )
    return examples


def _tokenize(row: dict[str, Any], tokenizer: Any, system_prompt: str) -> Example:
    asked = messages(row, system_prompt)
    prompt = _written(tokenizer, asked, row["id"], add_generation_prompt=True)
    whole = _written(tokenizer, [*asked, {"role": "assistant", "content": row["answer"]}], row["id"])
    if not whole.startswith(prompt):
        found = f"the chat template writes {row['id']} differently with and without its answer: it does not begin with {prompt[-60:]!r}"
        raise UserError(
            found, "a template that only appends the answer", "fix the template; one that opens a thought before each answer needs it in the answers"
        )
    if row["answer"].strip() not in whole[len(prompt) :]:
        raise UserError(f"the chat template leaves out or changes the answer of {row['id']}", "the answer as it is in the dataset", "fix the template")
    # Tokenized apart, as a server does: it sees the prompt alone, and no token may straddle the border.
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(whole[len(prompt) :].rstrip(), add_special_tokens=False)["input_ids"]
    if not answer_ids or answer_ids[-1] not in tokenizer.all_special_ids:
        raise UserError(f"the chat template ends the answer of {row['id']} without a special token", "an end token such as <|im_end|>", "fix the template")
    return Example(row["id"], (*prompt_ids, *answer_ids), len(prompt_ids))


def _written(tokenizer: Any, conversation: list[dict[str, str]], id: str, **more: Any) -> str:
    """A conversation as the template writes it. Raises UserError with what the template says: no system role, turns that must alternate."""
    from jinja2.exceptions import TemplateError

    try:
        text = str(tokenizer.apply_chat_template(conversation, tokenize=False, **more))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in conversation)
        fix = 'without a system role: set chat.system_prompt: "" (serving and evaluation then send none either); else make the turns alternate'
        raise UserError(f"the chat template of this model refuses {id} ({roles}): {error}", "roles that the template knows", fix) from None
    for message in conversation[:1]:
        if message["role"] == "system" and message["content"].strip() not in text:
            raise UserError(f"the chat template leaves out the system prompt of {id}", "a template that writes it", 'set chat.system_prompt: ""')
    return text


def training_split(spec: Spec, dataset: Path, tokenizer: Any) -> list[Example]:
    """The examples a training of this spec sees."""
    rows = choose(read_rows(dataset, "train"), spec.train.max_train_examples, spec.train.seed)
    return tokenize(rows, tokenizer, spec.chat.system_prompt, spec.train.max_tokens, "training")


def validation_split(spec: Spec, dataset: Path, tokenizer: Any, limit: int | None = None) -> list[Example]:
    """The held-out examples (at most ``limit``): validation loss, merge probes and the quantization gate."""
    wanted = [size for size in (spec.train.max_validation_examples, limit) if size is not None]
    rows = choose(read_rows(dataset, "validation"), min(wanted) if wanted else None, spec.train.seed)
    return tokenize(rows, tokenizer, spec.chat.system_prompt, spec.train.max_tokens, "validation")
