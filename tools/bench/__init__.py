"""Benchmarks against borg, restic and qemu-storage-daemon, on the same data in one run."""
