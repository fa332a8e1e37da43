"""Entry for `python -m tools.scale`; decides only where imports come from."""

import sys
from pathlib import Path

# Of the tests the makers of small repositories and disks are used.
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tests"))

from tools.scale.cli import main

sys.exit(main())
