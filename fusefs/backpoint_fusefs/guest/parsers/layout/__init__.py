"""Which volumes a VM's disks hold: partition tables, software RAID, LVM2, and what is on each.

Only where the bytes lie and what they are; the files in them are other parsers' business.
"""
