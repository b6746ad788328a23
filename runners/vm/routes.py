"""What the gateway is told of the models behind it, on a VM and on Cloud Run alike. Pure.

Each model has a vLLM of its own, on loopback. Of two, the gateway chooses by the ``model`` of the request's body, as OpenAI's clients set it: what names
the second one goes there, everything else to the first, whose vLLM refuses a name that is not its own (404). So a wrong choice is an error and never
another model's answer.
"""

from __future__ import annotations

import json
import re
from typing import Any

from runners.errors import UserError

#: vLLM's ports, on loopback; the gateway's is the spec's. Cloud Run's platform is answered on 8002.
VLLM_PORT, SECOND_PORT = 8001, 8003
#: Requests that the gateway lets in for each that vLLM runs; the rest wait in vLLM's queue. A place that is free is taken in the next step, without a client's
#: round trip; the queue is what a group's autoscaler goes by, and would always be empty at 1; and what waits has at most about one answer before it.
REQUESTS_A_SEQUENCE = 2
#: How deep the parts of a body may be nested before its ``model`` for that to be found: the schemas of tools have about a dozen levels.
DEPTH = 24
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,120}")
#: Quotes and brackets by their numbers: the pattern goes through a shell's variable, the Caddyfile and an expression in it.
_TEXT, _PLAIN = r"\x22(?:[^\x22\x5c]|\x5c.)*\x22", r"[^\x22\x5b\x5d\x7b\x7d]"


def engines(serve: dict[str, Any]) -> tuple[tuple[int, str], ...]:
    """(port, served name) of each vLLM, from the spec's part about serving."""
    second = serve.get("second")
    first = (VLLM_PORT, str(serve["served_model_name"]))
    return (first, (SECOND_PORT, str(second["served_model_name"]))) if second else (first,)


def serve_ports(serve: dict[str, Any]) -> list[str]:
    """The options of `elson serve` for them."""
    options = ("--port", "--second-port")
    return [part for option, (port, _) in zip(options, engines(serve), strict=False) for part in (option, str(port))]


def gateway(serve: dict[str, Any]) -> dict[str, str]:
    """The gateway's variables about its models. Raises UserError for a name that could say something else in its configuration."""
    most, second = requests(serve), serve.get("second")
    found = {"ELSON_UPSTREAM": f"127.0.0.1:{VLLM_PORT}", "ELSON_MAX_IN_FLIGHT": str(most[0])}
    if not second:
        return found
    models = [_listed(serve, serve["max_model_tokens"]), _listed(second, second["max_model_tokens"] or serve["max_model_tokens"])]
    return found | {
        "ELSON_MODELS": "two_models",
        "ELSON_SECOND_UPSTREAM": f"127.0.0.1:{SECOND_PORT}",
        "ELSON_SECOND_MAX_IN_FLIGHT": str(most[1]),
        "ELSON_SECOND_MODEL": body_of(second["served_model_name"]),
        "ELSON_MODEL_LIST": json.dumps({"object": "list", "data": models}),
    }


def requests(serve: dict[str, Any]) -> tuple[int, ...]:
    """How many requests the gateway lets in for each model."""
    second = serve.get("second")
    sequences = (serve["max_sequences"], *((second["max_sequences"] or serve["max_sequences"],) if second else ()))
    return tuple(REQUESTS_A_SEQUENCE * int(one) for one in sequences)


def body_of(name: str) -> str:
    """RE2 pattern of a JSON object whose own ``model``, and not that of a part of it or of a text in it, is the name. Raises UserError for no name.

    Caddy has no JSON in its matchers. A regular expression cannot count brackets, so each level is written out. A name spelled with \\u is not found.
    """
    spelled = re.sub("[^A-Za-z0-9]", lambda found: (r"\x5c?" if found[0] == "/" else "") + rf"\x{ord(found[0]):02x}", _checked(name))
    part = _TEXT
    for _ in range(DEPTH):
        part = rf"{_TEXT}|[\x5b\x7b](?:{_PLAIN}|{part})*[\x5d\x7d]"
    return rf"^(?s:\s*\x7b(?:{_PLAIN}|{part})*\x22model\x22\s*:\s*\x22{spelled}\x22)"


def _listed(model: dict[str, Any], tokens: int) -> dict[str, Any]:
    """An entry of ``/v1/models``, as vLLM writes it; ``root`` is the id in the registry."""
    name, root = _checked(model["served_model_name"]), _checked(model["model_id"] or model["model"])
    return {"id": name, "object": "model", "created": 0, "owned_by": "elson", "root": root, "parent": None, "max_model_len": int(tokens)}


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"a model of serve is named {name[:100]!r}", "letters, digits and . _ / -", "run `pulumi up` on this stack again")
    return name
