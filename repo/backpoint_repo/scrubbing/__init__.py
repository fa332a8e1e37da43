"""Reading everything again over time."""
