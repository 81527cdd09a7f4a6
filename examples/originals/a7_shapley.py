"""shap: Shapley values of several classes of a network, of one's own network, and expected gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import shap
import torch
from matplotlib import pyplot as plt
from PIL import Image
from subject import (
    CLASSES,
    OWN_CLASSES,
    draws,
    network,
    options,
    own_inputs,
    own_network,
    own_picture,
    photograph,
    picture,
)
from torch import nn

SHOWN = 3


def partition(
    model: nn.Module, to_inputs: Callable[[np.ndarray], torch.Tensor], view: Image.Image, classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Owen values of the highest classes by halves of the picture: (H, W, classes), and their names."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(to_inputs(images)).softmax(1).numpy()

    pixels = np.asarray(view)
    explainer = shap.Explainer(predict, shap.maskers.Image("blur(32,32)", pixels.shape), output_names=list(classes))
    found = explainer(
        pixels[None],
        max_evals=draws(500, 60),
        batch_size=50,
        outputs=shap.Explanation.argsort.flip[:SHOWN],
        silent=True,
    )
    return found.values[0].sum(2), list(np.ravel(found.output_names))


def gradients(
    model: nn.Module, inputs: torch.Tensor, background: torch.Tensor, classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Expected gradients of the highest classes: (H, W, classes), and their names."""
    explainer = shap.GradientExplainer(model, background)
    values, ranks = explainer.shap_values(inputs, nsamples=draws(100, 10), ranked_outputs=SHOWN, rseed=0)
    return values[0].sum(0), [classes[at] for at in ranks[0].tolist()]


def normalised(images: np.ndarray) -> torch.Tensor:
    return (torch.as_tensor(np.array(images)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


np.random.seed(0)
shared, own = network(), own_network()
background = torch.cat([photograph(name) for name in ("coffee", "rocket", "grass", "page")])
own_view = own_picture("coffee")
own_background = own_inputs([own_picture(name) for name in ("cat", "rocket", "brick", "coins")])
rows = [
    (picture("cat"), "halves", partition(shared, normalised, picture("cat"), CLASSES)),
    (picture("cat"), "expected gradients", gradients(shared, photograph("cat"), background, CLASSES)),
    (own_view, "own network, halves", partition(own, normalised, own_view, OWN_CLASSES)),
    (own_view, "own network, expected gradients", gradients(own, own_inputs([own_view]), own_background, OWN_CLASSES)),
]
figure, axes = plt.subplots(len(rows), SHOWN + 1, figsize=(9, 9), layout="constrained")
for (view, name, (values, names)), places in zip(rows, axes, strict=True):
    places[0].imshow(view)
    places[0].set_title(name, fontsize=9)
    # A few pixels of expected gradients are far above all others.
    limit = np.percentile(np.abs(values), 99.5)
    for at, place in enumerate(places[1:]):
        place.imshow(view.convert("L"), cmap="gray", alpha=0.35)
        place.imshow(values[..., at], cmap=shap.plots.colors.red_transparent_blue, vmin=-limit, vmax=limit)
        place.set_title(names[at], fontsize=9)
    for place in places:
        place.axis("off")
figure.savefig(options().out, dpi=80)
