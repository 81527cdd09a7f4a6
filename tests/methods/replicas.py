"""Each paper once more, slowly: float64, plain loops, one sample and one row at a time, on the model as it was given.

Nothing here is shared with the library: windows, interpolation, pooling of gradients and principal components are
worked out from their definitions, so that an error would have to be made twice to go unseen.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import nn


def in_double(model):
    """The model in float64 and eval mode, unfolded; a plain callable is taken as it is."""
    return copy.deepcopy(model).double().eval() if isinstance(model, nn.Module) else model


def score(model, row, target):
    """f(x) of one sample (C, *S): the score of a class, or the scores of all classes times their shares."""
    output = model(row[None])
    if isinstance(output, dict):
        output = output["logits"]
    return output[0] @ target if isinstance(target, torch.Tensor) and target.ndim else output[0, target]


def occlusion(model, inputs, targets, *, window, stride=None, baseline=0.0):
    """Mean fall of the score over the windows that hide an element."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        shape = tuple(row.shape)
        per_channel = not isinstance(window, int) and len(window) == len(shape)
        extents, steps = _extents(window, shape), _strides(stride, window, shape)
        hidden_value = _baseline(baseline, row)
        total = torch.zeros(shape, dtype=torch.float64)
        covered = torch.zeros(shape, dtype=torch.float64)
        with torch.no_grad():
            clean = score(model, row, target).item()
            for starts in itertools.product(*map(_starts, shape, extents, steps)):
                box = tuple(slice(a, min(a + e, s)) for a, e, s in zip(starts, extents, shape, strict=True))
                variant = row.clone()
                variant[box] = hidden_value[box]
                total[box] += clean - score(model, variant, target).item()
                covered[box] += 1
        mean = torch.where(covered > 0, total / covered.clamp_min(1), 0.0)
        maps.append(mean if per_channel else mean[:1])
    return torch.stack(maps)


def _starts(extent, window, step):
    """Where windows begin along an axis: every step, until one reaches the border or none would begin inside."""
    starts = [0]
    while starts[-1] + window < extent and starts[-1] + step < extent:
        starts.append(starts[-1] + step)
    return starts


def _extents(window, shape):
    if isinstance(window, int):
        return (shape[0], *[window] * (len(shape) - 1))
    return tuple(window) if len(window) == len(shape) else (shape[0], *window)


def _strides(stride, window, shape):
    extents = _extents(window, shape)
    if stride is None:
        return extents
    if isinstance(stride, int):
        return (extents[0], *[stride] * (len(shape) - 1))
    return tuple(stride) if len(stride) == len(shape) else (extents[0], *stride)


def _baseline(baseline, row):
    if baseline == "image_mean":
        means = [row[c].mean().item() for c in range(len(row))]
        return torch.stack([torch.full_like(row[c], means[c]) for c in range(len(row))])
    if isinstance(baseline, tuple):
        return torch.stack([torch.full_like(row[c], baseline[c]) for c in range(len(row))])
    return torch.full_like(row, baseline)


def feature_ablation(model, inputs, targets, *, segments, baseline=0.0):
    """The fall of the score when a segment is hidden, at each of its positions; the mean where masks overlap."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for number, (row, target) in enumerate(zip(inputs, targets, strict=True)):
        space = tuple(row.shape[1:])
        total = torch.zeros(space, dtype=torch.float64)
        covered = torch.zeros(space, dtype=torch.float64)
        groups = groups_of(segments, number, space)
        hidden_value = hidden_by(baseline, row, groups)
        with torch.no_grad():
            clean = score(model, row, target).item()
            for group in groups:
                variant = row.clone()
                variant[:, group] = hidden_value[:, group]
                total[group] += clean - score(model, variant, target).item()
                covered[group] += 1
        maps.append(torch.where(covered > 0, total / covered.clamp_min(1), 0.0)[None])
    return torch.stack(maps)


def groups_of(segments, number, space):
    """A boolean mask per segment of one input."""
    if isinstance(segments, str):
        assert segments == "grid"
        cell = torch.zeros(space, dtype=torch.long)
        for place in itertools.product(*map(range, space)):
            for position, extent in zip(place, space, strict=True):
                cell[place] = 100 * cell[place] + position * min(8, extent) // extent
        segments = cell
    if callable(segments) and not isinstance(segments, torch.Tensor):
        segments = segments(torch.zeros(*space, 1).numpy())
    own = segments[number] if segments.ndim > len(space) + (segments.dtype is torch.bool) else segments
    if own.dtype is torch.bool:
        return list(own) if own.ndim > len(space) else [own]
    return [own == value for value in own.unique().tolist() if value >= 0]


def hidden_by(baseline, row, groups):
    """What the positions of a sample become when they are hidden."""
    return segment_means(row, groups) if baseline == "segment_mean" else _baseline(baseline, row)


def segment_means(row, groups):
    means = row.clone()
    for group in groups:
        for channel in range(len(row)):
            means[channel][group] = row[channel][group].mean()
    return means


def gradient(model, row, target):
    """df/dx of one sample."""
    row = row.clone().requires_grad_()
    return torch.autograd.grad(score(model, row * 1, target), row)[0]


def saliency(model, inputs, targets, *, layer=None, absolute=True, channels=None):
    """The gradient, without its sign where asked, folded over channels where asked."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        slope = gradient(model, row, target) if layer is None else _at_layers(model, row, target, [layer])[0][1]
        planes = [plane.abs() if absolute else plane for plane in slope]
        if channels is None:
            maps.append(torch.stack(planes))
            continue
        folded = planes[0]
        for plane in planes[1:]:
            folded = torch.maximum(folded, plane) if channels == "max" else folded + plane
        maps.append((folded / len(planes) if channels == "mean" else folded)[None])
    return torch.stack(maps)


def input_x_gradient(model, inputs, targets, *, layer=None):
    """X · df/dx, at the input or at a layer."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        if layer is None:
            maps.append(row * gradient(model, row, target))
        else:
            activation, slope = _at_layers(model, row, target, [layer])[0]
            maps.append(activation * slope)
    return torch.stack(maps)


def _at_layers(model, row, target, layers):
    """[(activation, gradient)] of one sample at the named layers, as each layer returns it."""
    kept = {}

    def keep(name):
        def hook(_module, _args, output):
            kept[name] = output if output.requires_grad else output.detach().requires_grad_()
            return kept[name].clone()  # what follows may write into it in place

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        value = score(model, row, target)
    finally:
        for handle in handles:
            handle.remove()
    slopes = torch.autograd.grad(value, [kept[name] for name in layers])
    return [(kept[name].detach()[0], slope[0]) for name, slope in zip(layers, slopes, strict=True)]


def gradcam(
    model, inputs, targets, *, layer, fuse="max", aug_smooth=False, eigen_smooth=False, signed=False, resolution="input"
):
    """ReLU(Σ_k α_k A_k) with α_k the mean gradient over positions; resized, fused over layers, averaged over passes."""
    model, layers = in_double(model), _listed(layer)

    def one(row, target):
        grids = []
        for activation, slope in _at_layers(model, row, target, layers):
            weights = [plane.sum() / plane.numel() for plane in slope]
            grids.append(_rectified(activation, weights, eigen_smooth, signed))
        return _fused(grids, row, fuse, resolution)

    return _over_passes(one, inputs.double(), targets, aug_smooth)


def ablation_cam(
    model, inputs, targets, *, layer, fuse="max", aug_smooth=False, eigen_smooth=False, resolution="input"
):
    """ReLU(Σ_k w_k A_k) with w_k the fall of the score when channel k is 0 everywhere; joined as Grad-CAM is."""
    model, layers = in_double(model), _listed(layer)

    def one(row, target):
        grids = []
        for name in layers:
            activation, clean = _replaced(model, row, target, name, lambda a: a)
            weights = []
            for k in range(len(activation)):
                silenced = torch.ones_like(activation)
                silenced[k] = 0
                weights.append(clean - _replaced(model, row, target, name, lambda a, m=silenced: a * m)[1])
            grids.append(_rectified(activation, weights, eigen_smooth))
        return _fused(grids, row, fuse, resolution)

    return _over_passes(one, inputs.double(), targets, aug_smooth)


def recipro_cam(model, inputs, targets, *, layer, fuse="max", aug_smooth=False, gaussian=True, resolution="input"):
    """At position p what the activation around p alone adds to the score of no activation at all."""
    model, layers = in_double(model), _listed(layer)

    def one(row, target):
        grids = []
        for name in layers:
            activation, _ = _replaced(model, row, target, name, lambda a: a)
            _, nothing = _replaced(model, row, target, name, lambda a: a * 0)
            grid = torch.zeros_like(activation[0])
            for position in itertools.product(*map(range, grid.shape)):
                mask = _window(position, grid.shape, gaussian)
                grid[position] = _replaced(model, row, target, name, lambda a, m=mask: a * m)[1] - nothing
            grids.append(grid)
        return _fused(grids, row, fuse, resolution)

    return _over_passes(one, inputs.double(), targets, aug_smooth)


def _window(centre, shape, gaussian):
    """1 at the centre; or 1/2 per axis there, and 1/4 one step before and after, as far as there is a grid."""
    mask = torch.zeros(shape, dtype=torch.float64)
    for position in itertools.product(*map(range, shape)):
        distances = [abs(a - b) for a, b in zip(position, centre, strict=True)]
        mask[position] = math.prod({0: 0.5, 1: 0.25}.get(d, 0.0) if gaussian else float(d == 0) for d in distances)
    return mask


def _replaced(model, row, target, name, change):
    """(what a layer returns for one sample, the score when the layer returns `change` of it)."""
    kept = []

    def hook(_module, _args, output):
        kept.append(output[0].clone())
        return change(output[0])[None].clone()  # what follows may write into it in place

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        with torch.no_grad():
            value = score(model, row.clone(), target).item()
    finally:
        handle.remove()
    return kept[0], value


def _listed(layer):
    return [layer] if isinstance(layer, str) else layer


def _over_passes(one, inputs, targets, aug_smooth):
    """The maps of `one(row, target)`, or their mean over grad-cam's passes: mirrored or not, times 0.9, 1 and 1.1."""
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        passes = [(False, 1.0)]
        if aug_smooth:
            passes = [(mirrored, factor) for mirrored in (False, True) for factor in (0.9, 1.0, 1.1)]
        total = 0
        for mirrored, factor in passes:
            found = one((row.flip(-1) if mirrored else row) * factor, target)
            total = total + (found.flip(-1) if mirrored else found)
        maps.append((total / len(passes))[None])
    return torch.stack(maps)


def _rectified(activation, weights, eigen_smooth, signed=False):
    """ReLU of the weighted activations' sum, or of their first principal component; without it where signed."""
    weighted = [a * w for a, w in zip(activation, weights, strict=True)]
    total = _principal(weighted) if eigen_smooth else sum(weighted)
    return total if signed else total.clamp_min(0)


def _fused(grids, row, fuse, resolution):
    """One map of several layers' maps, on the input's grid or on the largest of their own."""
    size = tuple(row.shape[1:])
    if resolution == "native":
        size = max((tuple(grid.shape) for grid in grids), key=math.prod)
    grids = [resized(grid, size) for grid in grids]
    fused = grids[0]
    for grid in grids[1:]:
        fused = torch.maximum(fused, grid) if fuse == "max" else fused + grid
    return fused / len(grids) if fuse == "mean" else fused


def _principal(weighted):
    """The positions' coordinate along the direction in channel space in which they vary most."""
    table = torch.stack([plane.flatten() for plane in weighted], dim=1)  # (positions, channels)
    centred = table - table.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    coordinate = centred @ directions[0]
    total = table.sum(1)
    if (coordinate * (total - total.mean())).sum() < 0:
        coordinate = -coordinate
    return coordinate.view(weighted[0].shape)


def resized(grid, size):
    """Linear interpolation along each axis; pixel i of n looks at (i + 1/2) · old/n − 1/2, held at the borders."""
    for axis, new in enumerate(size):
        old = grid.shape[axis]
        planes = []
        for i in range(new):
            where = max((i + 0.5) * old / new - 0.5, 0.0)
            low = min(int(where), old - 1)
            high = min(low + 1, old - 1)
            share = where - low
            planes.append(grid.select(axis, low) * (1 - share) + grid.select(axis, high) * share)
        grid = torch.stack(planes, dim=axis)
    return grid
