"""Layers: finding the ones a caller names, choosing one when none is named, and reading what they return as grids."""

from .answering import coordinates, reading_of
from .blocks import blocks_of
from .calls import Recorded
from .choosing import Choice, choose_layers
from .grids import Axes, Flat, Function, Grid, Reading, Tokens, checked_grid
from .naming import Layer, layer_names
from .places import at_layers, first_tensor, modules_of, with_first
from .readings import channels_first, layer_activations, readings_of
from .tokens import TokenPlaces, token_places

__all__ = [
    "Axes",
    "Choice",
    "Flat",
    "Function",
    "Grid",
    "Layer",
    "Reading",
    "Recorded",
    "TokenPlaces",
    "Tokens",
    "at_layers",
    "blocks_of",
    "channels_first",
    "checked_grid",
    "choose_layers",
    "coordinates",
    "first_tensor",
    "layer_activations",
    "layer_names",
    "modules_of",
    "reading_of",
    "readings_of",
    "token_places",
    "with_first",
]
