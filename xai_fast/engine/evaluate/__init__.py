"""What the model is asked about a batch of variants: a score, a gradient, a layer's response, multipliers."""

from .answers import Answers, Evaluate, Response, Score, ScoreOf, Tails
from .gradient import InputGradient, Summed, refuse_flat
from .layer import BiasResponse, Both, LayerActivation, LayerCurvature, LayerResponse
from .path import LayerBetween, LayerPath
from .rescaled import Multipliers
from .watch import by_own_forward

__all__ = [
    "Answers",
    "BiasResponse",
    "Both",
    "Evaluate",
    "InputGradient",
    "LayerActivation",
    "LayerBetween",
    "LayerCurvature",
    "LayerPath",
    "LayerResponse",
    "Multipliers",
    "Response",
    "Score",
    "ScoreOf",
    "Summed",
    "Tails",
    "by_own_forward",
    "refuse_flat",
]
