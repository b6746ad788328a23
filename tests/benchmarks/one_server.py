"""The server of one model as ``elson run`` starts it: fetch, then vLLM. A process of its own, so that it can be killed like one.

.venv/bin/python -m tests.benchmarks.one_server SPEC KEY PORT WORK
"""

from __future__ import annotations

import sys
from pathlib import Path

from runners import environments
from runners.serving import group, serve
from runners.spec import load


def main() -> None:
    """Serve until killed."""
    spec, key, port, work = load(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    work.mkdir(parents=True, exist_ok=True)
    folder, _ = serve.fetch_model(spec, None, work)
    arguments = serve.vllm_arguments(spec.serve, folder, device="cpu", quantized=serve.is_quantized(folder), port=port, draft=None)
    command = [str(environments.python("serve")), str(environments.python("serve").parent / "vllm"), *arguments]
    with group.running(command, serve.vllm_environment(key, device="cpu", work=work), work / "vllm.log") as server:
        server.wait()


if __name__ == "__main__":
    main()
