"""Builds the Python environments of this machine from the locks under ``images/``, with the standard library alone."""
