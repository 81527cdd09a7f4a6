"""A run for other tools: rows as CSV, maps over the photographs, projects of ViRelAy, data sets of FiftyOne."""

from .fiftyone import write_fiftyone
from .overlays import write_overlays
from .rows import write_csv
from .virelay import write_virelay

__all__ = ["write_csv", "write_fiftyone", "write_overlays", "write_virelay"]
