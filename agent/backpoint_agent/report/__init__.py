"""What users and monitoring are told: while it goes on (`live.py`), at the end (`summary.py`,
`run_report.py` with its records, metrics and mail), and whenever asked (`status`)."""
