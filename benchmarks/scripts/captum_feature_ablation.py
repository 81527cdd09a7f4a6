"""Captum's FeatureAblation of a photograph's predicted class, over its superpixels."""

import torch
from captum.attr import FeatureAblation
from skimage.segmentation import slic
from subject import keep, network, photograph, pixels

model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

superpixels = torch.from_numpy(slic(pixels(), n_segments=100, start_label=0))
ablator = FeatureAblation(model)
attributions = ablator.attribute(image, target=predicted, feature_mask=superpixels[None, None])
keep(attributions)
