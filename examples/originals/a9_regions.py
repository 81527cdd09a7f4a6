"""lime: which superpixels of a photograph speak for its class, and which against it."""

from __future__ import annotations

import numpy as np
import torch
from lime.lime_image import LimeImageExplainer
from matplotlib import pyplot as plt
from skimage.segmentation import mark_boundaries
from subject import CLASSES, draws, network, options, picture

model = network()


def predict(images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25).softmax(1).numpy()


names = ("cat", "coffee")
figure, axes = plt.subplots(1, 2 * len(names), figsize=(12, 3.3), layout="constrained")
for name, (left, right) in zip(names, axes.reshape(-1, 2), strict=True):
    pixels = np.asarray(picture(name))
    explainer = LimeImageExplainer(random_state=0)
    explanation = explainer.explain_instance(
        pixels, predict, top_labels=2, hide_color=None, num_samples=draws(1000, 60), random_seed=0
    )
    label = explanation.top_labels[0]
    shown, mask = explanation.get_image_and_mask(label, positive_only=False, num_features=10, hide_rest=False)
    left.imshow(pixels)
    left.set_title(CLASSES[label])
    right.imshow(mark_boundaries(shown / 255, mask))
    right.set_title(f"for and against, R² {explanation.score:.2f}")
for place in axes:
    place.axis("off")
figure.savefig(options().out, dpi=80)
