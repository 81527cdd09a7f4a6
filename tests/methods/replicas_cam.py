"""The CAM family once more, slowly: float64, one sample and one pass at a time; see `replicas`.

What is general (interpolation, fusing, passes) comes from there; here are the formulas, channel by channel.
"""

from __future__ import annotations

import torch
from replicas import _at_layers, _fused, _listed, _over_passes, _principal, in_double, resized, score
from replicas_gradient import normal_of
from replicas_masks import uniform
from torch import nn


def _cam(formula, *, over=None):
    """A replica of `formula(activation, gradient, **own)`, which gives a list of addends, one per channel, or a map."""

    def replica(
        model,
        inputs,
        targets,
        *,
        layer,
        fuse="max",
        aug_smooth=False,
        eigen_smooth=False,
        signed=False,
        resolution="input",
        **own,
    ):
        model, layers = in_double(model), _listed(layer)

        def one(row, target):
            grids = []
            asked = target if over is None else over(model, row, target, **own)
            for activation, slope in _at_layers(model, row, asked, layers):
                found = formula(activation, slope, **own)
                if isinstance(found, list):
                    found = _principal(found) if eigen_smooth else sum(found)
                grids.append(found if signed else found.clamp_min(0))
            return _fused(grids, row, fuse, resolution)

        return _over_passes(one, inputs.double(), targets, aug_smooth)

    return replica


def _each(weight):
    """Addends from a weight per channel, a number or one for each position."""
    return lambda activation, slope: [weight(a, g) * a for a, g in zip(activation, slope, strict=True)]


def _plus_plus(a, g):
    alpha = torch.zeros_like(g)
    some = g != 0
    alpha[some] = g[some] ** 2 / (2 * g[some] ** 2 + a.sum() * g[some] ** 3)
    return (alpha * g.clamp_min(0)).sum()


def _axiom(a, g):
    return (a / a.sum() * g).sum() if a.sum() != 0 else 0.0


def _svd(features, *, centred):
    """The positions' coordinate along the first direction, which agrees with the channels' sum."""
    table = torch.stack([plane.flatten() for plane in features], dim=1)  # (positions, channels)
    total = table.sum(1)
    table = table - table.mean(0) if centred else table
    coordinate = table @ torch.linalg.svd(table, full_matrices=False)[2][0]
    coordinate = -coordinate if (coordinate * (total - total.mean())).sum() < 0 else coordinate
    return coordinate.view(features[0].shape)


def _seg_eigen(activation, slope):
    found = _svd([g.abs() * a for a, g in zip(activation, slope, strict=True)], centred=True)
    return -found if found.min().abs() > found.max().abs() else found


def _kernel_pca(activation, _slope, kernel="sigmoid", gamma=None):
    points = activation.flatten(1).T
    points = points - points.mean(0)
    n, gamma = len(points), 1 / points.shape[1] if gamma is None else gamma
    value = {
        "sigmoid": lambda a, b: (gamma * (a @ b) + 1).tanh(),
        "rbf": lambda a, b: (-gamma * ((a - b) ** 2).sum()).exp(),
        "poly": lambda a, b: (gamma * (a @ b) + 1) ** 3,
        "cosine": lambda a, b: a @ b / (a.norm() * b.norm()),
        "linear": lambda a, b: a @ b,
    }[kernel]
    matrix = torch.stack([torch.stack([value(a, b) for b in points]) for a in points])
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    values, vectors = torch.linalg.eigh(centre @ matrix @ centre)
    component, total = vectors[:, -1] * values[-1].sqrt(), activation.flatten(1).sum(0)
    component = -component if (component * (total - total.mean())).sum() < 0 else component
    return component.view(activation.shape[1:])


def _closest(model, row, target, gamma=0.6, n_references=3, **_own):
    with torch.no_grad():
        scores = model(row[None])[0]
    others = sorted((c for c in range(len(scores)) if c != target), key=lambda c: abs(scores[c] - scores[target]))
    shares = torch.zeros(len(scores), dtype=torch.float64)
    shares[target] = 1
    for other in others[:n_references]:
        shares[other] -= gamma / len(others[:n_references])
    return shares


def _predicted(model, row, _target):
    with torch.no_grad():
        return model(row[None])[0].softmax(0)


gradcam_plus_plus = _cam(_each(_plus_plus))
xgradcam = _cam(_each(_axiom))
hirescam = _cam(_each(lambda _a, g: g))
layer_cam = _cam(_each(lambda _a, g: g.clamp_min(0)))
element_wise = _cam(lambda activation, slope: [(a * g).clamp_min(0) for a, g in zip(activation, slope, strict=True)])
# Behind every layer of a network with ReLUs alone the Hessian is 0; one with curvature is in test_cams.py.
shapley = _cam(_each(lambda _a, g: g.mean()))
eigen_cam = _cam(lambda activation, _slope, centred=False: _svd(list(activation), centred=centred))
eigen_gradcam = _cam(
    lambda activation, slope: _svd([a * g for a, g in zip(activation, slope, strict=True)], centred=True)
)
seg_eigen_cam = _cam(_seg_eigen)
kpca_cam = _cam(_kernel_pca)
position_attention = _cam(lambda activation, _slope: [a * a for a in activation])
class_attention = _cam(_each(lambda _a, g: g.mean()), over=_predicted)
_BY_NAME = {"GradCAM": lambda _a, g: g.mean(), "GradCAMPlusPlus": _plus_plus, "LayerCAM": lambda _a, g: g.clamp_min(0)}
finer_cam = _cam(
    lambda activation, slope, formula="GradCAM", **_own: _each(_BY_NAME[formula])(activation, slope), over=_closest
)


def cam(model, inputs, targets, *, signed=True, **settings):
    """Weights of the last linear layer, which are the gradient."""
    return hirescam(model, inputs, targets, signed=signed, **settings)


def refine_cam(model, inputs, targets, *, layer, formula="GradCAMPlusPlus", aug_smooth=False, resolution="input"):
    """The product of maps, each brought to [0, 1] on its own grid."""
    model, weigh = in_double(model), _each(_BY_NAME[formula])

    def one(row, target):
        grids = []
        for activation, slope in _at_layers(model, row, target, layer):
            found = sum(weigh(activation, slope)).clamp_min(0)
            span = found.max() - found.min()
            grids.append((found - found.min()) / span if span > 0 else found * 0)
        size = tuple(row.shape[1:])
        if resolution == "native":
            size = max((tuple(grid.shape) for grid in grids), key=lambda s: torch.Size(s).numel())
        product = 1
        for grid in grids:
            product = product * resized(grid, size)
        return product

    return _over_passes(one, inputs.double(), targets, aug_smooth)


def smooth_gradcam_plus_plus(
    model,
    inputs,
    targets,
    *,
    layer,
    n_samples=10,
    noise=0.15,
    relative=True,
    seed=0,
    aug_smooth=False,
    resolution="input",
):
    """Grad-CAM++ with the means of the gradient and its powers over noisy copies, and the clean activation."""
    model, layers = in_double(model), _listed(layer)

    def of(clean):
        sigma = noise * float(clean.max() - clean.min()) if relative else noise

        def one(row, target):
            slopes = [
                [g for _, g in _at_layers(model, row + sigma * normal_of(row, seed, draw), target, layers)]
                for draw in range(n_samples)
            ]
            grids = []
            for place, (activation, _) in enumerate(_at_layers(model, row, target, layers)):
                weighted = []
                for k, a in enumerate(activation):
                    first, second, third = (
                        sum(slope[place][k] ** power for slope in slopes) / n_samples for power in (1, 2, 3)
                    )
                    below = 2 * second + a.sum() * third
                    share = torch.where(below != 0, second / below, 0.0)
                    weighted.append((share * first.clamp_min(0)).sum() * a)
                grids.append(sum(weighted).clamp_min(0))
            return _fused(grids, row, "max", resolution)

        return one

    return torch.cat(
        [
            _over_passes(of(row), row[None], [target], aug_smooth)
            for row, target in zip(inputs.double(), targets, strict=True)
        ]
    )


def random_cam(model, inputs, targets, *, layer, seed=0, signed=False, resolution="input"):
    """Weights from -1 to 1 by (seed, id 0, number of the layer)."""
    model, layers = in_double(model), _listed(layer)

    def one(row, target):
        grids = []
        for place, (activation, _) in enumerate(_at_layers(model, row, target, layers)):
            drawn = [uniform(seed, 0, place, number) for number in range(len(activation))]
            total = sum((2 * u - 1) * a for u, a in zip(drawn, activation, strict=True))
            grids.append(total if signed else total.clamp_min(0))
        return _fused(grids, row, "max", resolution)

    return _over_passes(one, inputs.double(), targets, False)


def full_grad(model, inputs, targets, *, aug_smooth=False):
    """The input's products with its gradient and every bias's with that of what it is added to, each from 0 to 1."""
    model = in_double(model)

    def one(row, target):
        own, kept, slopes = _at_biases(model, row, target)
        planes = list((row * own).abs())
        for bias, slope in zip(kept, slopes, strict=True):
            planes += [(b * g).abs() for b, g in zip(bias, slope[0], strict=True)]
        total = torch.zeros(row.shape[1:], dtype=torch.float64)
        for plane in planes:
            span = plane.max() - plane.min()
            if span > 0:
                total += resized((plane - plane.min()) / span, tuple(row.shape[1:]))
        return total

    return _over_passes(one, inputs.double(), targets, aug_smooth)


def _at_biases(model, row, target):
    """The score's gradient by the input, every bias, and the gradients by what they are added to."""
    biased = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    kept, outputs = [], []

    def keep(module, _args, output):
        bias = module.bias
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            bias = bias - module.running_mean * module.weight / (module.running_var + module.eps).sqrt()
        if bias is None:
            return None
        kept.append(bias.detach())
        outputs.append(output)
        return output.clone()

    handles = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, biased)]
    leaf = row.clone().requires_grad_()
    value = score(model, leaf * 1, target)
    for handle in handles:
        handle.remove()
    own, *slopes = torch.autograd.grad(value, [leaf, *outputs])
    return own, kept, slopes


def _score_cam(shown):
    """A replica of channels weighted by the softmax of mean scores over `shown(row, mask, channel, **own)`."""

    def replica(
        model, inputs, targets, *, layer, fuse="max", aug_smooth=False, signed=False, resolution="input", **own
    ):
        model, layers = in_double(model), _listed(layer)

        def one(row, target):
            grids, before = [], 0
            # A model may write into what it is given, which is shown through the masks afterwards.
            for activation, _ in _at_layers(model, row.clone(), target, layers):
                scores = []
                for k, plane in enumerate(activation):
                    span = plane.max() - plane.min()
                    mask = resized((plane - plane.min()) / span if span > 0 else plane * 0, tuple(row.shape[1:]))
                    with torch.no_grad():
                        found = [score(model, seen, target) for seen in shown(row, mask, before + k, **own)]
                    scores.append(sum(found) / len(found))
                weights = torch.stack(scores).softmax(0)
                total = sum(w * a for w, a in zip(weights, activation, strict=True))
                grids.append(total if signed else total.clamp_min(0))
                before += len(activation)
            return _fused(grids, row, fuse, resolution)

        return _over_passes(one, inputs.double(), targets, aug_smooth)

    return replica


def _noisy(row, mask, channel, n_samples=35, noise=2.0, seed=0):
    draws = [normal_of(row[:1], seed, channel * n_samples + j) for j in range(n_samples)]
    return [row * (mask + noise * drawn) for drawn in draws]


score_cam = _score_cam(lambda row, mask, _channel: [row * mask])
sscam = _score_cam(_noisy)
iscam = _score_cam(
    lambda row, mask, _channel, n_samples=10: [row * mask * (j + 1) / n_samples for j in range(n_samples)]
)
