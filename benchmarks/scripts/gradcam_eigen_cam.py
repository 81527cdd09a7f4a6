"""grad-cam's EigenCAM of a photograph's predicted class, at the last block."""

import torch
from pytorch_grad_cam import EigenCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from subject import keep, network, photograph

model, image = network(), photograph()
with torch.no_grad():
    predicted = int(model(image).argmax())

with EigenCAM(model=model, target_layers=[model.layer4[-1]]) as cam:
    grayscale_cam = cam(input_tensor=image, targets=[ClassifierOutputTarget(predicted)])
keep(grayscale_cam)
