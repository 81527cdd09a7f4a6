"""The reference libraries, each called as its documentation does: objects are made once, an explanation is one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Explain = Callable[[Tensor, Tensor], Tensor]
"""(inputs, targets) to maps (N, 1, H, W) or attributions (N, C, H, W): what is timed."""

Peer = Callable[[nn.Module, int], Explain]
"""(model, setting) to a call: what a user does once. The model is the peer's own, since some leave hooks on it."""


def captum_occlusion(window: int, stride: int) -> Peer:
    def peer(model: nn.Module, per_eval: int) -> Explain:
        from captum.attr import Occlusion

        occlusion = Occlusion(model)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            values = occlusion.attribute(
                x, (3, window, window), (3, stride, stride), target=target, perturbations_per_eval=per_eval
            )
            return values[:, :1]  # all channels of a window that spans them are equal

        return explain

    return peer


def captum_saliency(model: nn.Module, _setting: int) -> Explain:
    from captum.attr import Saliency

    saliency = Saliency(model)
    return lambda x, target: saliency.attribute(x.clone().requires_grad_(), target=target)


def captum_input_x_gradient(model: nn.Module, _setting: int) -> Explain:
    from captum.attr import InputXGradient

    product = InputXGradient(model)
    return lambda x, target: product.attribute(x.clone().requires_grad_(), target=target).detach()


def captum_gradcam(layer: str) -> Peer:
    def peer(model: nn.Module, _setting: int) -> Explain:
        from captum.attr import LayerGradCam

        cam = LayerGradCam(model, model.get_submodule(layer))

        def explain(x: Tensor, target: Tensor) -> Tensor:
            return _upsampled(cam.attribute(x, target=target, relu_attributions=True).detach(), x)

        return explain

    return peer


def torchcam_gradcam(layer: str) -> Peer:
    """Its own scaling to [0, 1], which is on by default, and the upsampling that it leaves to its user."""

    def peer(model: nn.Module, _setting: int) -> Explain:
        from torchcam.methods import GradCAM

        extractor = GradCAM(model, layer)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            scores = model(x)
            (grid,) = extractor(target.tolist(), scores)
            return _upsampled(grid[:, None], x)

        return explain

    return peer


def gradcam_gradcam(layer: str) -> Peer:
    def peer(model: nn.Module, _setting: int) -> Explain:
        from pytorch_grad_cam import GradCAM

        cam = GradCAM(model, [model.get_submodule(layer)])
        return lambda x, target: torch.from_numpy(cam(x, _outputs(target)))[:, None]

    return peer


def gradcam_ablation(layer: str) -> Peer:
    """AblationCAM with `setting` rows per forward."""
    return lambda model, batch_size: _GradCamAblation(model, layer, batch_size)


class _GradCamAblation:
    """grad-cam's AblationCAM, whole or, for timing, with the first `channels` channels ablated and no other.

    A part runs the library's own loop, with the same batches, over fewer channels: the choice of channels is a method
    of its ablation layer, which callers may replace. (`ratio_channels_to_ablate` is no such part: below 1 it adds a
    singular value decomposition of the activations and ablates twice the channels that it names.)
    """

    def __init__(self, model: nn.Module, layer: str, batch_size: int) -> None:
        from pytorch_grad_cam import AblationCAM
        from pytorch_grad_cam.ablation_layer import AblationLayer

        class First(AblationLayer):
            channels: int | None = None

            # The library's own signature, which has no types.
            def activations_to_be_ablated(self, activations, ratio_channels_to_ablate=1.0):  # noqa: ANN001, ANN202
                chosen = super().activations_to_be_ablated(activations, ratio_channels_to_ablate)
                self.indices = chosen[: self.channels]
                return self.indices

        self.choice = First()
        self.cam = AblationCAM(
            model, [model.get_submodule(layer)], ablation_layer=self.choice, batch_size=batch_size
        )  # fmt: skip

    def __call__(self, x: Tensor, target: Tensor, channels: int | None = None) -> Tensor:
        self.choice.channels = channels
        return torch.from_numpy(self.cam(x, _outputs(target)))[:, None]


def _outputs(target: Tensor) -> list[Callable[[Tensor], Tensor]]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(index) for index in target.tolist()]


def _upsampled(grid: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=False)
