"""One photograph explained once by grad-cam's GradCAM, laid over it."""

import numpy as np
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from subject import keep, network, photograph, pixels

model, image = network(), photograph()
with GradCAM(model=model, target_layers=[model.layer4[-1]]) as cam:
    grayscale_cam = cam(input_tensor=image, targets=None)
overlay = show_cam_on_image(pixels().astype(np.float32) / 255, grayscale_cam[0], use_rgb=True)
keep(grayscale_cam)
