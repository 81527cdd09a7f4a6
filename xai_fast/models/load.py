"""`load`: one line from a model's name to the model, its preprocessing and the names of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from xai_fast.images.known import register
from xai_fast.images.preprocess import Preprocess

FORMS = '"demo", "torchvision:NAME" or "FILE.py:FUNCTION"'


class Loaded(NamedTuple):
    """What `load` returns, in this order.

    Args:
        model: in eval mode.
        preprocess: how a photo becomes its input; None where that is not known.
        classes: the names of its outputs, in order; None where they are not known.
    """

    model: nn.Module
    preprocess: Preprocess | None
    classes: tuple[str, ...] | None


def load(spec: str, *, weights: str | Path | None = None, allow_pickle: bool = False) -> Loaded:
    """Load a model by name.

    Args:
        spec: `"demo"`, the bundled network; `"torchvision:NAME"`, such as `"torchvision:resnet50"`; or
            `"FILE.py:FUNCTION"`, a function without arguments that returns a model, or a tuple (model, preprocess) or
            (model, preprocess, classes), or a dict with these keys. The file is executed.
        weights: a file to load into the model (safetensors, or as `torch.save` writes it). None: the model's own, for
            torchvision the default weights through torchvision's own download. `"none"`: random initialisation.
        allow_pickle: read a `weights` file that holds Python objects beside tensors. That runs code of its author.

    Returns:
        (model, preprocess, classes). They are also remembered for the model, as long as it lives, so that
        `xf.explain` and pictures need only the model.

    Raises:
        ValueError: an unknown model, a `weights` file that cannot be read or does not fit, a failed download.
        TypeError: what FUNCTION returns is no model.
    """
    if not isinstance(spec, str):
        raise TypeError(f"`model` is a {type(spec).__name__}; name one as {FORMS}, or use your model as it is")
    loaded = _load(spec, weights, allow_pickle)
    register(loaded.model, preprocess=loaded.preprocess, classes=loaded.classes)
    return loaded


def _load(spec: str, weights: str | Path | None, allow_pickle: bool) -> Loaded:
    kind, _, name = spec.partition(":")
    if spec == "demo":
        return _demo(weights, allow_pickle)
    if kind == "torchvision":
        from xai_fast.models.torchvision_zoo import load_torchvision

        return Loaded(*load_torchvision(name, weights, allow_pickle))
    if kind in ("timm", "hf"):
        raise ValueError(
            f"`model` is {spec!r}; {kind}: models cannot be loaded by name yet. Write a function that returns the "
            "model and its preprocessing in a file, and name it as FILE.py:FUNCTION"
        )
    file, _, function = spec.rpartition(":")
    if file.endswith(".py"):
        from xai_fast.models.python_file import load_python_file

        return Loaded(*load_python_file(file, function, weights, allow_pickle))
    hint = f"; did you mean {spec + ':FUNCTION'!r}?" if spec.endswith(".py") else f"; use {FORMS}"
    raise ValueError(f"`model` is {spec!r}, which names no model{hint}")


def _demo(weights: str | Path | None, allow_pickle: bool) -> Loaded:
    from xai_fast.models.demo import CLASSES, PREPROCESS, DemoNetwork, demo_model
    from xai_fast.models.weights import load_weights, read_state_dict

    if weights is None:
        model = demo_model()
    else:
        model = DemoNetwork(len(CLASSES)).eval()
        if weights != "none":
            load_weights(model, read_state_dict(weights, allow_pickle), weights)
    return Loaded(model, PREPROCESS, CLASSES)
