"""Pictures and a page from arrays and plain records: colour maps, overlays, figures. Knows no model."""

from xai_fast.report.colours import ColourMap
from xai_fast.report.figure import Bar, Panel, Row, figure
from xai_fast.report.files import save_png, write_atomically
from xai_fast.report.naming import occupied_in, stems_for
from xai_fast.report.overlay import Style, as_photo, overlay
from xai_fast.report.page import Failure, Item, Map, write_page
from xai_fast.report.printing import printable, reason
from xai_fast.report.scale import Scale

__all__ = [
    "Bar",
    "ColourMap",
    "Failure",
    "Item",
    "Map",
    "Panel",
    "Row",
    "Scale",
    "Style",
    "as_photo",
    "figure",
    "occupied_in",
    "overlay",
    "printable",
    "reason",
    "save_png",
    "stems_for",
    "write_atomically",
    "write_page",
]
