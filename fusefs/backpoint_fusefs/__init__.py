"""The mount: every restore point of a repository as a FUSE filesystem (pyfuse3 and trio)."""
