"""Live sessions: a restore point's folder that can be written to, on disk a folder of its own."""
