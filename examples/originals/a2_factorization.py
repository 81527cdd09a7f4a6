"""grad-cam: deep feature factorization of a coffee cup into concepts, with the two classes that each speaks for."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import pyplot as plt
from pytorch_grad_cam import DeepFeatureFactorization
from pytorch_grad_cam.utils.image import show_factorization_on_image
from subject import CLASSES, network, options, photograph, picture

CONCEPTS, TOP = 4, 2

model, inputs = network(), photograph("coffee")
factorization = DeepFeatureFactorization(model, model.layer4, computation_on_concepts=model.head)
_concepts, maps, scores = factorization(inputs, CONCEPTS)

probabilities = torch.softmax(torch.from_numpy(scores), -1)
labels = []
for of_concept in probabilities:
    best = of_concept.argsort(descending=True)[:TOP].tolist()
    labels.append(", ".join(f"{CLASSES[at]} {float(of_concept[at]):.2f}" for at in best))

colours = [np.array(plt.get_cmap("gist_rainbow")(at / CONCEPTS)) for at in range(CONCEPTS)]
pixels = np.float32(picture("coffee")) / 255
shown = show_factorization_on_image(pixels, maps[0], colors=colours, image_weight=0.3)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
left.imshow(pixels)
right.imshow(shown)
for colour, label in zip(colours, labels, strict=True):
    right.plot([], [], "s", color=colour, label=label)
right.legend(loc="upper left", bbox_to_anchor=(1, 1), title="concepts")
for place in (left, right):
    place.axis("off")
figure.savefig(options().out, dpi=80)
