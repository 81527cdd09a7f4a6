"""lime, as in a course homework: own network, raw logits, SLIC of 100 segments, true label, eleven features."""

from __future__ import annotations

import numpy as np
import torch
from lime.lime_image import LimeImageExplainer
from matplotlib import pyplot as plt
from skimage.segmentation import slic
from subject import OWN_CLASSES, draws, options, own_network, own_picture

NAMES = ("cat", "coffee", "astronaut", "motorcycle")

model = own_network()


def predict(images: np.ndarray) -> np.ndarray:
    """Raw logits of pictures in [0, 1]."""
    with torch.no_grad():
        return model((torch.from_numpy(images).permute(0, 3, 1, 2).float() - 0.5) / 0.25).numpy()


def segments(image: np.ndarray) -> np.ndarray:
    return slic(image, n_segments=100, compactness=1, sigma=1)


figure, axes = plt.subplots(2, len(NAMES), figsize=(10, 5.4), layout="constrained")
for at, name in enumerate(NAMES):
    label = OWN_CLASSES.index(name)
    image = np.asarray(own_picture(name), dtype=np.float64) / 255
    explainer = LimeImageExplainer(random_state=0)
    explanation = explainer.explain_instance(
        image,
        predict,
        labels=(label,),
        top_labels=None,
        segmentation_fn=segments,
        num_samples=draws(1000, 60),
        random_seed=0,
    )
    shown, _mask = explanation.get_image_and_mask(
        label, positive_only=False, hide_rest=False, num_features=11, min_weight=0.05
    )
    axes[0, at].imshow(image)
    axes[0, at].set_title(name)
    axes[1, at].imshow(shown)
for place in axes.ravel():
    place.axis("off")
figure.savefig(options().out, dpi=80)
