"""Places a stored disk is restored to."""
