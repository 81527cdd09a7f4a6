"""Captum's IntegratedGradients of a photograph's predicted class, 50 steps, with its convergence delta."""

import torch
from captum.attr import IntegratedGradients
from subject import keep, network, photograph

model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

integrated_gradients = IntegratedGradients(model)
attributions, delta = integrated_gradients.attribute(
    image, baselines=torch.zeros_like(image), target=predicted, return_convergence_delta=True
)
keep(attributions)
