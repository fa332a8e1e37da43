"""Sessions as a mount shows them: which are open, what their files are to the kernel."""
