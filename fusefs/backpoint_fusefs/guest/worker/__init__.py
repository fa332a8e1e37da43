"""Processes that parse guest bytes: how one is started and confined, and what is said between it
and the process that holds the keys."""
