"""Captum's KernelShap of a photograph's predicted class, 200 samples over its superpixels."""

import torch
from captum.attr import KernelShap
from skimage.segmentation import slic
from subject import keep, network, photograph, pixels

torch.manual_seed(0)
model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

superpixels = torch.from_numpy(slic(pixels(), n_segments=50, start_label=0))
kernel_shap = KernelShap(model)
attributions = kernel_shap.attribute(image, target=predicted, feature_mask=superpixels[None, None], n_samples=200)
keep(attributions)
