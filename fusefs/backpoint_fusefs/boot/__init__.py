"""Booting a session's disks by QEMU: hardware as the .vmx tells, signs of life, groups."""
