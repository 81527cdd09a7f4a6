"""Captum's NoiseTunnel around IntegratedGradients of a photograph's predicted class, squares averaged."""

import torch
from captum.attr import IntegratedGradients, NoiseTunnel
from subject import keep, network, photograph

torch.manual_seed(0)
model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

tunnel = NoiseTunnel(IntegratedGradients(model))
attributions = tunnel.attribute(
    image, nt_type="smoothgrad_sq", nt_samples=5, nt_samples_batch_size=1, stdevs=0.2, target=predicted
)
keep(attributions)
