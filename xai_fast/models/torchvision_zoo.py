"""torchvision's models by name, with the preprocessing and the class names that its weights document."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.images.preprocess import Preprocess
from xai_fast.models.weights import fit_keys, load_weights, read_state_dict

AUXILIARY = {"aux_logits": ("aux1.", "AuxLogits."), "aux_loss": ("aux_classifier.",)}
"""Builder options that add an auxiliary head, and the prefixes of its keys: the checkpoint says whether it is there."""


def load_torchvision(
    name: str, weights: str | Path | None, allow_pickle: bool
) -> tuple[nn.Module, Preprocess | None, tuple[str, ...] | None]:
    """A model of `torchvision.models` with its default weights, random ones (`"none"`) or those of a file.

    A file whose head has another number of outputs than the default weights makes a model with that number; its
    classes are unknown then.

    Returns:
        (model in eval mode, preprocess, classes).

    Raises:
        ValueError: an unknown name, a failed download, a file that cannot be read or does not fit.
    """
    from torchvision import models

    _check_name(name, models.list_models())
    default: Any = models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue] every enum has it
    preprocess = preprocess_of(default.transforms())
    classes = tuple(default.meta["categories"]) if "categories" in default.meta else None
    if weights is None:
        model = _pretrained(name, default)
    elif weights == "none":
        model = _build(name)
    else:
        state = read_state_dict(weights, allow_pickle)
        # The initial weights are overwritten, so the draws for them leave the caller's generator where it was.
        with torch.random.fork_rng(devices=[]):
            model, same_head = _shaped(name, state, n_outputs=len(classes or ()))
        load_weights(model, state, weights)
        classes = classes if same_head else None
    return model.eval(), preprocess, classes


def preprocess_of(transforms: Any) -> Preprocess | None:
    """Our `Preprocess` for the transforms of torchvision's image weights; None for those of videos and flow."""
    from torchvision.transforms import _presets as presets

    if isinstance(transforms, presets.ObjectDetection):  # scales to [0, 1]; the detector normalises and resizes
        return Preprocess(resize=None, crop=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if not isinstance(transforms, (presets.ImageClassification, presets.SemanticSegmentation)):
        return None
    resize = transforms.resize_size
    crop = getattr(transforms, "crop_size", None)
    return Preprocess(
        resize=resize[0] if resize else None,
        crop=None if not crop else crop[0] if len(crop) == 1 else (crop[0], crop[1]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _check_name(name: str, available: list[str]) -> None:
    if name in available:
        return
    close = get_close_matches(name.lower(), available, n=4, cutoff=0.5)
    near = f"close to it: {', '.join(close)}" if close else "nothing is close to it"
    raise ValueError(
        f"`model`: torchvision has no {name!r}; {near}. All of them: "
        "python -c 'import torchvision; print(*torchvision.models.list_models())'"
    )


def _pretrained(name: str, default: Any) -> nn.Module:
    from torchvision import models

    try:
        # torchvision draws initial weights before it overwrites them.
        with torch.random.fork_rng(devices=[]):
            return models.get_model(name, weights=default)
    except (OSError, RuntimeError) as error:  # no network, a full disk; a file whose checksum is wrong
        raise ValueError(
            f"`weights`: the download of {default.url} failed ({type(error).__name__}: {error}). Try again with a "
            'network, give a file that you have (weights="FILE"), or take random weights (weights="none")'
        ) from error


def _build(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    accepted = inspect.signature(models.get_model_builder(name)).parameters
    if "weights_backbone" in accepted:
        options["weights_backbone"] = None  # it defaults to a download
    return models.get_model(name, weights=None, **options)


def _shaped(name: str, state: Mapping[str, Tensor], n_outputs: int) -> tuple[nn.Module, bool]:
    """A model with the heads that the state dict has, and whether their size is the default one."""
    model = _build(name, **_heads(name, state))
    expected = model.state_dict()
    fitted = fit_keys(state, expected)
    sizes = {
        fitted[key].shape[0]
        for key, value in expected.items()
        if key in fitted and value.ndim and value.shape[0] == n_outputs and fitted[key].ndim == value.ndim
    }
    if len(sizes) != 1 or sizes == {n_outputs}:  # the same head, or nothing that a head's size would explain
        return model, True
    return _build(name, num_classes=sizes.pop(), **_heads(name, state)), False


def _heads(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Builder options of the networks with auxiliary heads."""
    from torchvision import models

    model = models.get_model_builder(name)
    takes = set(inspect.signature(model).parameters)
    options: dict[str, Any] = {}
    if name.removeprefix("quantized_") in ("googlenet", "inception_v3"):
        # Pretrained ones re-normalise their input, and so do those fine-tuned from them; no tensor says it.
        options |= {"transform_input": True, "init_weights": False}
        takes.add("aux_logits")
    for option, prefixes in AUXILIARY.items():
        if option in takes:
            options[option] = any(prefix in key for key in state for prefix in prefixes)
    return options
