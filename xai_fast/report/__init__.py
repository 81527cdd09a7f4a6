"""Pictures and a page from arrays and plain records: colour maps, overlays, figures. Knows no model."""

from xai_fast.report.boxes import boxed
from xai_fast.report.colours import ColourMap
from xai_fast.report.figure import Bar, Panel, Row, figure
from xai_fast.report.files import png, save_jpeg, save_png, write_atomically
from xai_fast.report.naming import occupied_in, stems_for
from xai_fast.report.overlay import Overlay, Style, draw, overlay
from xai_fast.report.page import Failure, Item, Map, write_page
from xai_fast.report.photo import as_photo
from xai_fast.report.scale import EMPTY, Scale

__all__ = [
    "EMPTY",
    "Bar",
    "ColourMap",
    "Failure",
    "Item",
    "Map",
    "Overlay",
    "Panel",
    "Row",
    "Scale",
    "Style",
    "as_photo",
    "boxed",
    "draw",
    "figure",
    "occupied_in",
    "overlay",
    "png",
    "save_jpeg",
    "save_png",
    "stems_for",
    "write_atomically",
    "write_page",
]
