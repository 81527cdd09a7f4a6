"""grad-cam's FullGrad of a photograph's predicted class."""

import torch
from pytorch_grad_cam import FullGrad
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from subject import keep, network, photograph

model, image = network(), photograph()
with torch.no_grad():
    predicted = int(model(image).argmax())

with FullGrad(model=model, target_layers=[]) as cam:
    grayscale_cam = cam(input_tensor=image, targets=[ClassifierOutputTarget(predicted)])
keep(grayscale_cam)
