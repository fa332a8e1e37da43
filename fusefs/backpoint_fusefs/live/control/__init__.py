"""How one process asks another for what it has open: a session is cut, moved, frozen, let go of."""
