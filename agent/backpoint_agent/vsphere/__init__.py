"""All that speaks to a vCenter. Managed objects (pyvmomi) do not leave this package, `transport`
and `restoring`; facts leave it as dataclasses of `machine.py`."""
