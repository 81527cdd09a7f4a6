"""The reference libraries' methods of segments and coalitions, each called as its documentation does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peers import Explain, Peer
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.engine.evaluate import Answers

ROWS = 8  # coalitions of ours that a library's user asks the model about at once


def cells(count: int, size: int) -> Tensor:
    """A label map (size, size) of count x count cells: segments whose finding costs neither side anything."""
    place = torch.arange(size) * count // size
    return place[:, None] * count + place


def superpixels(size: int) -> Tensor:
    """A label map (size, size) of about a hundred superpixels of the photograph that is explained; found before."""
    from networks import photos

    labels = xf.segments.superpixels(photos(1, size), "slic", n_segments=100, compactness=10)[0]
    return labels.unique(return_inverse=True)[1].view(labels.shape)


def captum_feature_ablation(segments: Callable[[Tensor], Tensor]) -> Peer:
    def peer(model: nn.Module, per_eval: int) -> Explain:
        from captum.attr import FeatureAblation

        method = FeatureAblation(model)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            mask = segments(x)[None, None]
            return method.attribute(x, 0.0, target, feature_mask=mask, perturbations_per_eval=per_eval)[:, :1]

        return explain

    return peer


def captum_coalitions(name: str, segments: Callable[[Tensor], Tensor], n_samples: int) -> Peer:
    """Its Lime, KernelShap or ShapleyValueSampling with `setting` coalitions per forward."""

    def peer(model: nn.Module, per_eval: int) -> Explain:
        from captum import attr

        method = getattr(attr, name)(model)

        def explain(x: Tensor, target: Tensor) -> Tensor:
            options = {"n_samples": n_samples, "perturbations_per_eval": per_eval}
            return method.attribute(x, 0.0, target, feature_mask=segments(x)[None, None], **options)[:, :1]

        return explain

    return peer


def lime_image(segments: Callable[[Tensor], Tensor], n_samples: int) -> Peer:
    """LimeImageExplainer on a function that brings its batches to the model, `setting` images at a time."""

    def peer(model: nn.Module, batch_size: int) -> Explain:
        from lime.lime_image import LimeImageExplainer

        @torch.no_grad()
        def classify(images: np.ndarray) -> np.ndarray:
            return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

        def explain(x: Tensor, target: Tensor) -> Tensor:
            labels = segments(x)
            found = LimeImageExplainer(random_state=0).explain_instance(
                x[0].permute(1, 2, 0).numpy(),
                classify,
                labels=target.tolist(),
                top_labels=None,
                num_samples=n_samples,
                batch_size=batch_size,
                segmentation_fn=lambda _: labels.numpy(),
                random_seed=0,
            )
            weights = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
            for segment, weight in found.local_exp[int(target)]:
                weights[segment] = float(weight)
            return weights[labels][None, None]

        return explain

    return peer


def shap_partition(n_evaluations: int, *, named: bool = True) -> Peer:
    """PartitionExplainer on a function of channels-last arrays, `setting` masks at a time, hiding by 0.

    Unless outputs are `named` to it, it explains all of them.
    """

    def peer(model: nn.Module, batch_size: int) -> Explain:
        import shap

        @torch.no_grad()
        def scores(images: np.ndarray) -> np.ndarray:
            return model(torch.from_numpy(images).float().permute(0, 3, 1, 2)).numpy()

        made: dict[tuple[int, ...], Any] = {}  # the hierarchy is built with the explainer, once per shape

        def explain(x: Tensor, target: Tensor) -> Tensor:
            images = x.permute(0, 2, 3, 1).numpy()
            shape = images.shape[1:]
            if shape not in made:
                masker = shap.maskers.Image(np.zeros(shape, dtype=np.float32), shape)
                made[shape] = shap.PartitionExplainer(scores, masker)
            options = {"outputs": target.tolist()} if named else {}
            found = made[shape](images, max_evals=n_evaluations, batch_size=batch_size, silent=True, **options)
            maps = torch.from_numpy(found.values).sum(3).movedim(-1, 1)
            return maps if named else maps[:, target[0], None]

        return explain

    return peer


def rise(n_masks: int, cells: int = 7, keep: float = 0.5) -> Peer:
    """RISE as its paper's authors run it, since no library has it: masks made before and kept, `setting` per forward.

    Random grids enlarged and cut out at random shifts; products with the image in one tensor per batch; the map is one
    product of scores and masks. A part of a call asks about fewer masks.
    """

    def peer(model: nn.Module, batch_size: int) -> Explain:
        made: dict[torch.Size, Tensor] = {}

        def masks_for(space: torch.Size) -> Tensor:
            if space not in made:
                made[space] = _rise_masks(space, n_masks, cells, keep)
            return made[space]

        @torch.no_grad()
        def explain(x: Tensor, target: Tensor, count: int | None = None) -> Tensor:
            masks = masks_for(x.shape[2:])[:count]
            scores = [model(part * x)[:, int(target)] for part in masks.split(batch_size) if len(part)]
            total = torch.cat([*scores, x.new_zeros(0)]) @ masks.flatten(1)
            return total.view(1, 1, *x.shape[2:]) / (max(len(masks), 1) * keep)

        return explain

    return peer


def _rise_masks(space: torch.Size, count: int, cells: int, keep: float) -> Tensor:
    """(count, 1, *space) float32, by skimage's interpolation."""
    from skimage.transform import resize

    draw = np.random.default_rng(0)
    extent = [math.ceil(side / cells) for side in space]
    masks = np.empty((count, 1, *space), dtype=np.float32)
    for mask in masks:
        grid = (draw.random((cells, cells)) < keep).astype(np.float32)
        top, left = (int(draw.integers(0, side)) for side in extent)
        whole = resize(grid, [(cells + 1) * side for side in extent], order=1, mode="reflect", anti_aliasing=False)
        mask[0] = whole[top : top + space[0], left : left + space[1]]
    return torch.from_numpy(masks)


def on_our_coalitions(method: Callable[[Any], Any]) -> Peer:
    """The model as a library's user has it, asked about the coalitions that our method draws, and our sums of them."""

    def peer(model: nn.Module, _setting: int) -> Explain:
        @torch.no_grad()
        def explain(x: Tensor, target: Tensor) -> Tensor:
            recipe = method(model).recipe(x)

            def ask(batch: Tensor, sample: Tensor) -> Answers:
                return Answers(model(batch).gather(1, target[sample, None]))

            every = torch.arange(len(x))
            recipe.reduce.clean(every, ask(x, every))
            for rows in torch.arange(len(recipe.variants)).split(ROWS):
                batch = torch.empty(len(rows), *x.shape[1:])
                recipe.variants.write(rows, batch)
                recipe.reduce.update(rows, ask(batch, recipe.variants.sample_of(rows)))
            return recipe.reduce.finish()[:, 0]

        return explain

    return peer
