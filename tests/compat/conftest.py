"""Where the tests of the methods keep their small networks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "methods"))
