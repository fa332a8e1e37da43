"""The configuration file: what it may say (`model.py`), where each key stands (`lines.py`), and
reading it with every mistake named (`read.py`)."""
