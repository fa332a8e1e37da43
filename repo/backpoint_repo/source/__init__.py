"""Disks that can be backed up: one reader contract and what fulfils it."""
