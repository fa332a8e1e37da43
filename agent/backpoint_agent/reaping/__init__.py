"""Clearing up after agents that died: what they left outside is found by the ledger and undone.

`look` sees, `plan` decides (pure), `apply` does; `strays` is about what no ledger knows.
"""
