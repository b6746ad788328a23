"""Chat templates of eleven families (shortened, in our words, the structure kept): what a model is trained on, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from runners.errors import UserError
from runners.evaluation import cases
from runners.spec import ChatSpec
from runners.training import examples

SYSTEM = "You are Elson."
ROW = {
    "id": "r1",
    "question": "What is a bond?",
    "answer": " A loan. ",
    "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
}
ALTERNATE = "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Template, the tokens it needs, and what is trained on; a system prompt is sent where the family has that role.
FAMILIES: dict[str, tuple[str, list[str], str]] = {
    "qwen2.5": (CHATML, [], " A loan. <|im_end|>"),
    "qwen3": (
        CHATML.replace("{{ m['content'] }}", "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}"),
        ["<think>", "</think>"],
        "<think>\n\n</think>\n\n A loan. <|im_end|>",
    ),
    "llama-2": (
        "{% set s = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}{% set rest = messages[1:] if s else messages %}"
        "{% for message in rest %}"
        + ALTERNATE
        + "{% if message['role'] == 'user' %}<s>[INST] {% if loop.first and s %}<<SYS>>\n{{ s }}\n<</SYS>>\n\n{% endif %}"
        "{{ message['content'].strip() }} [/INST]{% else %} {{ message['content'].strip() }} </s>{% endif %}{% endfor %}",
        ["<s>", "</s>"],
        " A loan. </s>",
    ),
    "llama-3": (
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "A loan.<|eot_id|>",
    ),
    "mistral v0.3": (
        "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}{% set rest = messages[1:] %}"
        "{% else %}{% set rest = messages %}{% endif %}<s>"
        "{% set last = (rest | selectattr('role', 'equalto', 'user') | list)[-1] %}"
        "{% for message in rest %}"
        + ALTERNATE
        + "{% if message['role'] == 'user' %}[INST]{% if message == last and s %} {{ s }}\n\n{% endif %} {{ message['content'] }}[/INST]"
        "{% else %} {{ message['content'] | trim }}</s>{% endif %}{% endfor %}",
        ["<s>", "</s>", "[INST]", "[/INST]"],
        " A loan.</s>",
    ),
    "gemma-3": (
        "<bos>{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
        "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
        "{% for message in rest %}" + ALTERNATE + "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
        "{{ s if loop.first }}{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        "A loan.<end_of_turn>",
    ),
    "phi-3": (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}",
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        " A loan. <|end|>\n<|endoftext|>",
    ),
    "phi-4": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
        ["<|im_sep|>"],
        " A loan. <|im_end|>",
    ),
    "zephyr": (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        ["</s>"],
        " A loan. </s>",
    ),
    "gemma-2": (
        "<bos>" + NO_SYSTEM + "{% for message in messages %}" + ALTERNATE + "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
        "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ["<bos>", "<start_of_turn>", "<end_of_turn>"],
        "A loan.<end_of_turn>",
    ),
    "mistral v0.2": (
        "<s>{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
        "{% else %}{{ message['content'] }}</s> {% endif %}{% endfor %}",
        ["<s>", "</s>"],
        " A loan. </s>",
    ),
}
WITHOUT_SYSTEM = ("gemma-2", "mistral v0.2")


def tokenizer(base: Path, template: str, special: list[str]) -> Any:
    found = copy.deepcopy(AutoTokenizer.from_pretrained(base))
    found.add_special_tokens({"additional_special_tokens": special})
    found.chat_template = template
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_on_the_answer_and_its_end(family: str, base: Path) -> None:
    template, special, trained = FAMILIES[family]
    words, system = tokenizer(base, template, special), "" if family in WITHOUT_SYSTEM else SYSTEM
    for row in (ROW, {**ROW, "history": []}):
        (example,) = examples.tokenize([row], words, system, 512, "training")
        assert words.decode(example.token_ids[example.answer_start :]) == trained
        asked = words.decode(example.token_ids[: example.answer_start])
        assert asked == words.apply_chat_template(examples.messages(row, system), add_generation_prompt=True, tokenize=False)
        assert system in asked and ROW["question"] in asked


@pytest.mark.parametrize("family", WITHOUT_SYSTEM)
def test_a_family_without_a_system_role_is_said(family: str, base: Path) -> None:
    template, special, _ = FAMILIES[family]
    with pytest.raises(UserError, match=r"refuses r1 \(system, user.*(System role not supported|roles must alternate)") as refused:
        examples.tokenize([ROW], tokenizer(base, template, special), SYSTEM, 512, "training")
    assert 'chat.system_prompt: ""' in str(refused.value)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"), "differently with and without its answer"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'system' }}"), "leaves out the system prompt"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'].split('loan')[0] }}"), "leaves out or changes the answer"),
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}", "special token"),
        ("{% for m in messages %}{{ m.role.nothing.at.all }}{% endfor %}", "refuses r1"),
    ],
    ids=["opens a thought (DeepSeek-R1)", "drops the system prompt", "drops words", "no end", "broken"],
)
def test_templates_that_are_refused(template: str, said: str, base: Path) -> None:
    with pytest.raises(UserError, match=said):
        examples.tokenize([ROW], tokenizer(base, template, []), SYSTEM, 512, "training")


@pytest.mark.parametrize(
    "changes", [{"answer": None}, {"answer": ""}, {"answer": " \n"}, {"question": None}, {"answer": 7}, {"history": [{"role": "user", "content": None}]}]
)
def test_a_row_that_says_nothing_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **changes}) + "\n")
    with pytest.raises(UserError, match=r"train\.jsonl:2 is not a row of a dataset: ValueError\(.(answer|question|content) is"):
        examples.read_rows(tmp_path, "train")


def test_evaluation_sends_what_training_saw() -> None:
    case = cases.load(Path("data/benchmark")).cases[0]
    for system in ("", SYSTEM):
        row = {"question": case.prompt, "history": [turn if isinstance(turn, dict) else turn.model_dump() for turn in case.history]}
        assert cases.messages(case, ChatSpec(system_prompt=system)) == examples.messages(row, system)
