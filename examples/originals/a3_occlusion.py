"""Captum: occlusion of a cat by blocks of two sizes at two strides, and of one colour channel at a time."""

from __future__ import annotations

import numpy as np
from captum.attr import Occlusion
from captum.attr import visualization as viz
from matplotlib import pyplot as plt
from subject import CLASSES, draws, network, options, photograph, picture, predicted

SETTINGS = {  # (window, stride), each (channels, height, width)
    "15 x 15, every 8": ((3, 15, 15), (3, 8, 8)),
    "45 x 45, every 15": ((3, 45, 45), (3, 15, 15)),
    "red alone": ((1, 30, 30), (1, 15, 15)),
}

model, inputs = network(), photograph("cat")
target = predicted(model, inputs)
pixels = np.asarray(picture("cat"))
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
axes[0].imshow(pixels)
axes[0].set_title(CLASSES[target])
occlusion = Occlusion(model)
for place, (name, (window, stride)) in zip(axes[1:], SETTINGS.items(), strict=True):
    coarse = draws(1, 2)
    step = (stride[0], *(min(coarse * one, extent) for one, extent in zip(stride[1:], window[1:], strict=True)))
    attributions = occlusion.attribute(inputs, target=target, sliding_window_shapes=window, strides=step, baselines=0)
    values = attributions[0].permute(1, 2, 0).numpy()
    values = values[..., :1] if window[0] == 1 else values
    viz.visualize_image_attr(
        values,
        pixels,
        method="blended_heat_map",
        sign="all",
        outlier_perc=2,
        show_colorbar=True,
        title=name,
        plt_fig_axis=(figure, place),
        use_pyplot=False,
    )
axes[0].axis("off")
figure.savefig(options().out, dpi=80)
