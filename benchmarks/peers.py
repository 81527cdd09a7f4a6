"""The reference libraries, each called as its documentation does: objects are made once, an explanation is one call.

Models are as their users have them: NCHW, in eval mode, with weights that require gradients.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_fast.engine.samplers.path import RandomPoints

Explain = Callable[[Tensor, Tensor], Tensor]
"""(inputs, targets) to maps (N, 1, H, W) or attributions (N, C, H, W): what is timed."""

Peer = Callable[[nn.Module, int], Explain]
"""(model, setting) to a call: what a user does once. The model is the peer's own, since some leave hooks on it."""

Gradients = Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]
"""Model to a call: points (rows, C, H, W) and K classes to a library's gradients there (rows, K, C, H, W)."""

PACKAGES = {
    "captum": "captum.attr",
    "grad-cam": "pytorch_grad_cam",
    "lime": "lime.lime_image",
    "shap": "shap",
    "torch": "torch",
    "torchcam": "torchcam.methods",
}
"""What each library is imported as."""

ROWS_AT_OURS = 8  # of ours that a library's gradients are asked for at once


def load(library: str) -> None:
    """Imports a library, which is no part of an explanation."""
    importlib.import_module(PACKAGES[library])


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


def captum_integrated_gradients(n_steps: int) -> Peer:
    """Its own quadrature, Gauss-Legendre, with `setting` points per batch."""

    def peer(model: nn.Module, rows: int) -> Explain:
        from captum.attr import IntegratedGradients

        method = IntegratedGradients(model)
        options = {"n_steps": n_steps, "internal_batch_size": _fewer(rows, n_steps)}
        return lambda x, target: method.attribute(x, target=target, **options).detach()

    return peer


def captum_smooth_grad(n_samples: int, noise: float) -> Peer:
    """With `setting` noisy copies per batch; captum takes the noise itself, not a share of the range."""

    def peer(model: nn.Module, rows: int) -> Explain:
        from captum.attr import NoiseTunnel, Saliency

        tunnel = NoiseTunnel(Saliency(model))
        options = {"nt_samples": n_samples, "nt_samples_batch_size": _fewer(rows, n_samples), "abs": False}

        def explain(x: Tensor, target: Tensor) -> Tensor:
            sigma = noise * (x.max() - x.min()).item()
            return tunnel.attribute(x, nt_type="smoothgrad", stdevs=sigma, target=target, **options)

        return explain

    return peer


def captum_gradient_shap(n_samples: int, references: Callable[[], Tensor]) -> Peer:
    """In calls of `setting` samples each, the last of fewer, averaged: within one, all samples are one batch."""

    def peer(model: nn.Module, rows: int) -> Explain:
        from captum.attr import GradientShap

        method, baselines = GradientShap(model), references()
        counts = [min(rows, n_samples - done) for done in range(0, n_samples, rows)]

        def explain(x: Tensor, target: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for count in counts:
                values = method.attribute(x, baselines, n_samples=count, target=target)
                total += values.detach() * (count / n_samples)
            return total

        return explain

    return peer


def shap_gradient_explainer(n_samples: int, references: Callable[[], Tensor]) -> Peer:
    """GradientExplainer with `setting` samples per batch; a part of a call explains fewer outputs."""

    def peer(model: nn.Module, rows: int) -> Explain:
        from shap import GradientExplainer

        explainer = GradientExplainer(model, references(), batch_size=rows)

        def explain(x: Tensor, target: Tensor, outputs: int | None = None) -> Tensor:
            if outputs == 0:  # which it refuses; what remains is the forward that ranks the outputs
                with torch.no_grad():
                    return model(x)
            values, ranks = explainer.shap_values(
                x, nsamples=n_samples, ranked_outputs=outputs or target.shape[1], rseed=0
            )
            assert torch.equal(ranks, target[:, : ranks.shape[1]]), "the two sides explain different outputs"
            return torch.from_numpy(values).movedim(-1, 1)

        return explain

    return peer


def captum_gradients(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """What its NoiseTunnel and its GradientShap average, at points that others choose."""
    from captum.attr import Saliency

    saliency = Saliency(model)
    return lambda points, target: saliency.attribute(points.requires_grad_(), target=target, abs=False)[:, None]


def shap_gradients(references: Callable[[], Tensor]) -> Gradients:
    """What its GradientExplainer averages, likewise."""

    def gradients(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        from shap import GradientExplainer

        explainer = GradientExplainer(model, references()).explainer

        def at(points: Tensor, target: Tensor) -> Tensor:
            each = [torch.from_numpy(explainer.gradient(index, [points])[0]) for index in target[0].tolist()]
            return torch.stack(each, 1)

        return at

    return gradients


def on_our_draws(method: Callable[[nn.Module], Any], gradients: Gradients) -> Peer:
    """A library's gradients of one input at the rows that our method draws, added up in float64 by the formula.

    On draws of its own a library's map differs from ours by chance, which says nothing about either; on the same draws
    all that is left is how its gradients are computed.
    """

    def peer(model: nn.Module, _setting: int) -> Explain:
        at = gradients(model)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            assert len(x) == 1, "rows are taken to be of one input"
            variants = method(model).recipe(x).variants
            total = torch.zeros(target.numel(), *x.shape[1:], dtype=torch.float64)
            for rows in torch.arange(len(variants)).split(ROWS_AT_OURS):
                points = torch.empty(len(rows), *x.shape[1:])
                variants.write(rows, points)
                found = at(points, target).detach().double()
                if isinstance(variants, RandomPoints):
                    ends = torch.empty_like(points)
                    variants.write_ends(rows, ends)
                    found = found * (ends - variants.references.of(variants.number_of(rows)))[:, None]
                total += found.sum(0)
            return total.view(*target.shape, *x.shape[1:]) / len(variants)

        return explain

    return peer


def captum_gradcam(layer: str) -> Peer:
    def peer(model: nn.Module, _setting: int) -> Explain:
        from captum.attr import LayerGradCam

        cam = LayerGradCam(model, model.get_submodule(layer))

        def explain(x: Tensor, target: Tensor) -> Tensor:
            return _upsampled(cam.attribute(x, target=target, relu_attributions=True).detach(), x)

        return explain

    return peer


def torchcam_gradcam(layer: str) -> Peer:
    return torchcam_method("GradCAM")(layer)


def torchcam_method(name: str) -> Callable[[str], Peer]:
    """A CAM of torchcam that reads gradients, scaled to [0, 1] by it, with the upsampling that it leaves to users."""

    def of(layer: str) -> Peer:
        def peer(model: nn.Module, _setting: int) -> Explain:
            from torchcam import methods

            extractor = getattr(methods, name)(model, layer)

            def explain(x: Tensor, target: Tensor) -> Tensor:
                scores = model(x)
                (grid,) = extractor(target.tolist(), scores)
                return _upsampled(grid[:, None], x)

            return explain

        return peer

    return of


def torchcam_score(layer: str) -> Peer:
    """Its Score-CAM with `setting` masked inputs per forward."""

    def peer(model: nn.Module, batch_size: int) -> Explain:
        from torchcam.methods import ScoreCAM

        extractor = ScoreCAM(model, layer, batch_size=batch_size)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            with torch.no_grad():
                model(x)
            (grid,) = extractor(target.tolist())
            return _upsampled(grid[:, None], x)

        return explain

    return peer


def gradcam_gradcam(layer: str) -> Peer:
    return gradcam_method("GradCAM")(layer)


def gradcam_method(name: str) -> Callable[[str], Peer]:
    """A CAM of grad-cam by its name there."""

    def of(layer: str) -> Peer:
        def peer(model: nn.Module, _setting: int) -> Explain:
            import pytorch_grad_cam

            cam = getattr(pytorch_grad_cam, name)(model, [model.get_submodule(layer)])
            return lambda x, target: torch.from_numpy(cam(x, _outputs(target)))[:, None]

        return peer

    return of


def gradcam_score(layer: str) -> Peer:
    """Its Score-CAM with `setting` masked inputs per forward."""

    def peer(model: nn.Module, batch_size: int) -> Explain:
        from pytorch_grad_cam import ScoreCAM

        cam = ScoreCAM(model, [model.get_submodule(layer)])
        cam.batch_size = batch_size
        return lambda x, target: torch.from_numpy(cam(x, _outputs(target)))[:, None]

    return peer


def torch_rollout(model: nn.Module, _setting: int) -> Explain:
    """Attention rollout as users of torchvision write it: hooks that ask every attention for its weights."""
    kept: list[Tensor] = []

    def ask(_attention: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "need_weights": True, "average_attn_weights": True}

    def keep(_attention: nn.Module, _args: Any, output: Any) -> None:
        kept.append(output[1])

    for part in model.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(ask, with_kwargs=True)
            part.register_forward_hook(keep)

    @torch.no_grad()
    def explain(x: Tensor, _target: Tensor) -> Tensor:
        kept.clear()
        model(x)
        rolled = torch.eye(kept[0].shape[-1], dtype=x.dtype).expand_as(kept[0])
        for weights in kept:
            half = (weights + torch.eye(weights.shape[-1], dtype=x.dtype)) / 2
            rolled = half / half.sum(-1, keepdim=True) @ rolled
        patches = rolled[:, 0, 1:]
        side = round(patches.shape[1] ** 0.5)
        return _upsampled(patches.view(-1, 1, side, side), x)

    return explain


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


def _fewer(rows: int, whole: int) -> int | None:
    """Captum's batch setting for so many rows: None, its default, is all of them at once."""
    return None if rows >= whole else rows


def _outputs(target: Tensor) -> list[Callable[[Tensor], Tensor]]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(index) for index in target.tolist()]


def _upsampled(grid: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=False)
