"""elson: from a finance Q&A corpus to a served, evaluated model, which stops spending by itself."""

__version__ = "0.2.0"
