"""Lets the scripts run as `python -m benchmarks.NAME`, too: they import each other by their plain names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
