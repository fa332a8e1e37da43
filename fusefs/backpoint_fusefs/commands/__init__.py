"""Subcommands of `backpoint` that this package adds."""
