"""Lets these tests import the helpers that lie one folder up, such as `networks`."""

import sys
from pathlib import Path

helpers = str(Path(__file__).parents[1])
if helpers not in sys.path:
    sys.path.insert(0, helpers)
