"""One photograph explained once by captum's Saliency and LayerGradCam."""

import torch
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from subject import keep, network, photograph

model, image = network(), photograph()
with torch.no_grad():
    predicted = model(image).argmax(1)

gradient = Saliency(model).attribute(image, target=predicted)
cam = LayerGradCam(model, model.layer4).attribute(image, target=predicted)
upsampled = LayerAttribution.interpolate(cam, image.shape[2:], "bilinear")
keep(torch.cat([gradient / gradient.abs().max(), upsampled / upsampled.abs().max()], 1))
