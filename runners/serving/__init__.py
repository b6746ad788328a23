"""The server: vLLM, weights that are loaded while they arrive, the phases of its start, its compiled code."""
