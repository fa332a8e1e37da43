"""The subcommands of `backpoint agent`, one module each; `agent.py` gathers them."""
