"""A session becomes a restore point: cut, stored, and stood on it."""
