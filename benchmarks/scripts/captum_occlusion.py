"""Captum's Occlusion of a photograph's predicted class: windows of 15 pixels, 8 apart."""

import torch
from captum.attr import Occlusion
from subject import keep, network, photograph

model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

occlusion = Occlusion(model)
attributions = occlusion.attribute(
    image, target=predicted, sliding_window_shapes=(3, 15, 15), strides=(3, 8, 8), baselines=0
)
keep(attributions)
