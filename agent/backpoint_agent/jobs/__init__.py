"""Jobs: which VMs are started when and beside which (`pace.py`), the run of a job (`job_run.py`),
and the scheduler (`scheduler.py`). Trio is used here and in nothing below."""
