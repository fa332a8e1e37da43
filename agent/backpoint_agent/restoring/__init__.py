"""From a point back to a VM: a new one, or over one that exists. vCenter's managed objects stay in
here; what a VM consists of is kept as `machine.json` in each point (`description.py`)."""
