"""The run of one VM: `machine_run.py` is the sequence, the others are its steps."""
