"""torchcam: nine class activation maps of a cat, laid over the photograph."""

from __future__ import annotations

import torch
from matplotlib import pyplot as plt
from subject import CLASSES, draws, network, options, photograph, picture, predicted
from torchcam import methods
from torchcam.utils import overlay_mask
from torchvision.transforms.functional import to_pil_image

EXTRACTORS = {
    "CAM": {"fc_layer": "head"},
    "GradCAM": {},
    "GradCAMpp": {},
    "ISCAM": {"num_samples": 10},
    "LayerCAM": {},
    "SSCAM": {"num_samples": 10},
    "ScoreCAM": {},
    "SmoothGradCAMpp": {"num_samples": 20},
    "XGradCAM": {},
}
ROWS = 2

model, inputs, view = network(), photograph("cat"), picture("cat")
target = predicted(model, inputs)
figure, axes = plt.subplots(ROWS, 5, figsize=(11, 5), layout="constrained")
places = axes.ravel()
places[0].imshow(view)
places[0].set_title(CLASSES[target])
for place, (name, settings) in zip(places[1:], EXTRACTORS.items(), strict=True):
    if "num_samples" in settings:
        settings["num_samples"] = draws(settings["num_samples"], 1)
    torch.manual_seed(0)
    with getattr(methods, name)(model, "layer4", input_shape=(3, 224, 224), **settings) as extractor:
        logits = model(inputs)
        (activation,) = extractor(target, logits)
    mask = to_pil_image(activation.detach().reshape(activation.shape[-2:]), mode="F")
    place.imshow(overlay_mask(view, mask, alpha=0.7))
    place.set_title(name)
for place in places:
    place.axis("off")
figure.savefig(options().out, dpi=80)
