"""The runs in a bucket as pages: a table, one run, several side by side, cases, pairs, jobs, and what is under way."""
