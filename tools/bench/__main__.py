"""Entry for `python tools/bench` and `python -m tools.bench`; decides only where imports come from.

Run as a folder, Python puts the folder itself first on the path, where the modules have no
package; the checkout takes that place.
"""

import sys
from pathlib import Path

if not __package__:
    root = Path(__file__).resolve().parents[2]
    # Of the tests the benchmarks use the maker of many points.
    sys.path[0:1] = [str(root), str(root / "tests")]

from tools.bench.cli import main

sys.exit(main())
