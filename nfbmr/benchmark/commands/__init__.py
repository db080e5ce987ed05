"""The kinds of ``jobs/benchmark.py``, a file for each: its arguments, its run, what it prints."""
