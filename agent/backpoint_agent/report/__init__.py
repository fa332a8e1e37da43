"""What users and monitoring are told: while a run goes on (`live.py`), at its end (`summary.py`,
`run_report.py` with its records, metrics and mail), and whenever asked (`status.py`). What the
records say together is in `history.py`, `rpo.py` and `standing.py`, for metrics and status."""
