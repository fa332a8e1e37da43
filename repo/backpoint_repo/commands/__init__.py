"""The subcommands of `backpoint` that need nothing but the repository; one module each."""
