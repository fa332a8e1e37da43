"""Ways to the bytes of a VM's disks: one module each, behind `contract.py`; `choose.py` picks."""
