"""Giving back the space of what no point needs."""
