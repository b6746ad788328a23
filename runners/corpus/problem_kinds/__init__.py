"""Kinds of computed problems, a file for each domain or two; ``kind.py`` says what a kind is."""
