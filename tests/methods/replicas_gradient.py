"""The gradient methods' papers once more, slowly: float64, one sample, one draw, one step at a time.

As in `replicas`, nothing but random draws is shared with the library. Quadrature nodes come from numpy, ReLU rules from
hooks on autograd's own nodes, and DeepLIFT walks `subjects.Small` by hand.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import replicas
import torch
from replicas import in_double, score

# Integrated gradients


def quadrature_of(name, n_steps):
    """[(alpha, weight)] on [0, 1] by the textbook."""
    n = n_steps
    if name == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return [((1 + a) / 2, w / 2) for a, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
    if name == "trapezoid":
        return [(i / (n - 1), (0.5 if i in (0, n - 1) else 1.0) / (n - 1)) for i in range(n)]
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[name]
    return [((i + shift) / n, 1 / n) for i in range(n)]


def integrated_gradients(model, inputs, targets, *, n_steps=50, quadrature="gausslegendre", baseline=0.0, layer=None):
    """(x − b) · ∫ df/dx(b + a (x − b)) da; at a layer the path runs from A(b) to A(x)."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        start, end = baseline_of(baseline, row), row
        if layer is not None:
            start, end = activation_of(model, start, layer), activation_of(model, end, layer)
        total = torch.zeros_like(end)
        for alpha, weight in quadrature_of(quadrature, n_steps):
            point = start + alpha * (end - start)
            if layer is None:
                slope = replicas.gradient(model, point, target)
            else:
                slope = _gradient_when(model, row, layer, point, lambda scores, t=target: scores[t])
            total += weight * slope
        maps.append(total * (end - start))
    return torch.stack(maps)


def baseline_of(baseline, row):
    """A baseline (C, *S) of one sample; a tensor may hold a batch of one."""
    if isinstance(baseline, torch.Tensor):
        baseline = baseline.double()
        return (baseline[0] if baseline.ndim > row.ndim else baseline).expand_as(row)
    return replicas._baseline(baseline, row)


def activation_of(model, row, layer):
    """What a layer returns for one sample."""
    return replicas._replaced(model, row, 0, layer, lambda activation: activation)[0]


def _gradient_when(model, row, layer, activation, formula):
    """The gradient of `formula(scores of one sample)` by a layer's output, where that is `activation`."""
    leaf = activation[None].clone().requires_grad_()
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _args, _output: leaf.clone())
    try:
        scores = scores_of(model, row)
    finally:
        handle.remove()
    return torch.autograd.grad(formula(scores), leaf)[0][0]


def scores_of(model, row):
    """All scores (K,) of one sample."""
    return score(model, row.clone(), slice(None))


# Methods that draw. A draw is a function of (seed, sample id, draw), and the library's own is used for it.


def normal_of(row, seed, draw, sample_id=0):
    """Standard normal numbers (C, *S) of one draw."""
    from xai_fast.ops import add_noise

    one = torch.tensor([0])
    noise = add_noise(
        torch.zeros_like(row)[None],
        scale=torch.ones(1, dtype=torch.float64),
        sample=one,
        key=one + sample_id,
        draw=one + draw,
        seed=seed,
        out=torch.empty_like(row)[None],
    )
    return noise[0]


def smooth_grad(
    model,
    inputs,
    targets,
    *,
    of=None,
    n_samples=50,
    noise=0.15,
    relative=True,
    aggregate="mean",
    antithetic=False,
    seed=0,
    sample_ids=None,
):
    """A gradient method averaged over noisy copies; `of` is its replica, (model, inputs, targets) to values."""
    of = of or (lambda *args: replicas.saliency(*args, absolute=False))
    maps = []
    for n, (row, target) in enumerate(zip(inputs.double(), targets, strict=True)):
        sigma = noise * (row.max() - row.min()).item() if relative else noise
        sample_id = 0 if sample_ids is None else int(sample_ids[n])
        found = []
        for j in range(n_samples):
            if antithetic:
                shift = normal_of(row, seed, j // 2, sample_id) * (-1) ** j
            else:
                shift = normal_of(row, seed, j, sample_id)
            found.append(of(model, (row + sigma * shift)[None], [target])[0])
        mean = sum(found) / n_samples
        square = sum(one * one for one in found) / n_samples
        maps.append({"mean": mean, "square": square, "variance": square - mean * mean}[aggregate])
    return torch.stack(maps)


def gradient_shap(model, inputs, targets, *, baselines, n_samples=50, noise=0.0, seed=0, layer=None, sample_ids=None):
    """The mean of df/dx(b + a (x~ − b)) · (x~ − b), b one of the baselines, a uniform, x~ the input with noise."""
    from xai_fast.core.random import uniforms

    model, inputs = in_double(model), inputs.double()
    maps = []
    for n, (row, target) in enumerate(zip(inputs, targets, strict=True)):
        sample_id = 0 if sample_ids is None else int(sample_ids[n])
        total = 0
        for j in range(n_samples):
            alpha, choice = uniforms(seed, torch.tensor([sample_id]), torch.tensor([j]), 2)[0].tolist()
            start = _one_of(baselines, choice, row)
            end = row + noise * normal_of(row, seed, j, sample_id) if noise else row
            point = start + alpha * (end - start)
            if layer is None:
                total = total + replicas.gradient(model, point, target) * (end - start)
            else:
                _, slope = replicas._at_layers(model, point, target, [layer])[0]
                total = total + slope * (activation_of(model, end, layer) - activation_of(model, start, layer))
        maps.append(total / n_samples)
    return torch.stack(maps)


def _one_of(baselines, choice, row):
    """The baseline (C, *S) that a uniform number chooses."""
    if isinstance(baselines, torch.Tensor):
        return baselines[int(choice * len(baselines))].double()
    return baseline_of(baselines, row)


# ReLU with another gradient


def guided_backprop(model, inputs, targets, *, layer=None):
    """A ReLU passes what is positive, where its input was positive."""
    return _with_rule(model, inputs, targets, layer, lambda passed, _came: passed.clamp_min(0))


def deconvolution(model, inputs, targets, *, layer=None):
    """A ReLU passes what is positive, whatever its input was."""
    return _with_rule(model, inputs, targets, layer, lambda _passed, came: came.clamp_min(0))


def guided_gradcam(model, inputs, targets, *, layer):
    """Guided backpropagation times Grad-CAM at the resolution of the input."""
    cam = replicas.gradcam(model, inputs, targets, layer=layer)
    return guided_backprop(model, inputs, targets) * cam


def _with_rule(model, inputs, targets, layer, rule):
    """Gradients in which `rule(what a ReLU passed back, what came to it)` replaces what each ReLU passes back."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        leaf = row.clone().requires_grad_()
        with _kept(model, layer) as kept:
            # A batch of its own: of what writes into a view autograd shows no node.
            value = score(lambda _row, batch=leaf[None] * 1: model(batch), leaf, target)
        for node in _rectifiers(value.grad_fn):
            node.register_hook(lambda passed, came: (rule(passed[0], came[0]),))
        slope = torch.autograd.grad(value, kept[0] if kept else leaf)[0]
        maps.append(slope[0] if kept else slope)
    return torch.stack(maps)


@contextlib.contextmanager
def _kept(model, layer):
    """A list in which what a layer returns will be, (1, ...); it stays empty without a layer."""
    kept = []

    def keep(_module, _args, output):
        kept.append(output)
        return output.clone()  # what follows may write into it in place

    handles = [] if layer is None else [model.get_submodule(layer).register_forward_hook(keep)]
    yield kept
    for handle in handles:
        handle.remove()


def _rectifiers(node):
    """Autograd's nodes of every ReLU that a value depends on."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return [node for node in seen if node.name() == "ReluBackward0"]


# DeepLIFT, on `subjects.Small`


def deep_lift(model, inputs, targets, *, baselines=0.0, layer=None):
    """Multipliers by the rescale rule, times the difference from the reference."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, target in zip(inputs, targets, strict=True):
        maps.append(_contributions(model, row, baseline_of(baselines, row), target, layer))
    return torch.stack(maps)


def deep_lift_shap(model, inputs, targets, *, baselines, layer=None):
    """The mean of DeepLIFT over the references, or DeepLIFT against a single one that is no tensor."""
    references = [one[None] for one in baselines] if isinstance(baselines, torch.Tensor) else [baselines]
    each = [deep_lift(model, inputs, targets, baselines=one, layer=layer) for one in references]
    return sum(each) / len(each)


def _contributions(net, row, reference, target, layer):
    """What each element of the input, or of a layer's output, adds to f(x) − f(reference)."""
    of_x, of_b = _walked(net, row), _walked(net, reference)
    difference = {name: of_x[name] - of_b[name] for name in of_x}
    # From the last layer to the first; after a step, m[name] is the multiplier of what that step returned.
    m = {"head": torch.zeros(1, len(of_x["head"][0]), dtype=torch.float64)}
    m["head"][0, target] = 1
    m["cells"] = _adjoint(lambda z: net.head(z.flatten(1)), of_x["cells"], m["head"])
    m["late relu"] = _adjoint(net.cells, of_x["late relu"], m["cells"])
    m["sum"] = _rescaled(m["late relu"], of_x["sum"], of_b["sum"])
    m["body_norm"] = m["sum"]
    m["body"] = _adjoint(net.body_norm, of_x["body"], m["body_norm"])
    m["pool"] = m["sum"] + _adjoint(net.body, of_x["pool"], m["body"])
    m["early relu"] = _of_max_pooling(m["pool"], of_x["early relu"], of_b["early relu"])
    m["stem_norm"] = _rescaled(m["early relu"], of_x["stem_norm"], of_b["stem_norm"])
    m["stem"] = _adjoint(net.stem_norm, of_x["stem"], m["stem_norm"])
    m["first"] = _adjoint(net.stem, of_x["first"], m["stem"])
    m[None] = m["first"] if net.inplace is None else _rescaled(m["first"], of_x[None], of_b[None])
    assert abs((m[None] * difference[None]).sum() - difference["head"][0, target]) < 1e-9
    return (m[layer] * difference[layer])[0]


def _walked(net, row):
    """Everything that is computed on the way to the scores of one sample, by name, (1, ...); the input is None."""
    v = {None: row[None]}
    with torch.no_grad():
        v["first"] = v[None] if net.inplace is None else v[None].clamp_min(0)
        v["stem"] = net.stem(v["first"])
        v["stem_norm"] = net.stem_norm(v["stem"])
        v["early relu"] = v["stem_norm"].clamp_min(0)
        v["pool"] = net.pool(v["early relu"])
        v["body"] = net.body(v["pool"])
        v["body_norm"] = net.body_norm(v["body"])
        v["sum"] = v["body_norm"] + v["pool"]
        v["late relu"] = v["sum"].clamp_min(0)
        v["cells"] = net.cells(v["late relu"])
        v["head"] = net.head(v["cells"].flatten(1))
        assert torch.equal(v["head"], net(row[None].clone())), "the walk is not the network"
    return v


def _adjoint(step, at, multiplier):
    """What a linear step passes back: its transpose."""
    leaf = torch.zeros_like(at).requires_grad_()
    return torch.autograd.grad(step(leaf), leaf, multiplier)[0]


def _rescaled(multiplier, x, b):
    """What a ReLU passes back: multipliers times the slope between the two points, or at x where they are one."""
    slope = (x.clamp_min(0) - b.clamp_min(0)) / (x - b)
    return multiplier * torch.where((x - b).abs() < 1e-10, (x > 0).double(), slope)


def _of_max_pooling(multiplier, x, b):
    """What pooling over pairs per axis passes back.

    The change of a window's maximum is first a rise, made where x is largest, and then a fall, made where b is.
    """
    passed = torch.zeros_like(x)
    for place in itertools.product(*map(range, multiplier.shape)):
        corner = (*place[:2], *(slice(2 * i, 2 * i + 2) for i in place[2:]))
        of_x, of_b = x[corner], b[corner]
        top = max(of_x.max(), of_b.max())
        for values, change in ((of_x, top - of_b.max()), (of_b, of_x.max() - top)):
            where = np.unravel_index(int(values.argmax()), values.shape)
            step = (of_x - of_b)[where]
            if step.abs() > 1e-10:
                passed[corner][where] += multiplier[place] * change / step
    return passed


# Why is it wrong?


def error_attribution(
    model, inputs, targets, *, kind="gradient", against="distribution", layer=None, resolution="input"
):
    """The gradient of the error, or what a layer's activations add to it: targets are the true classes."""
    model, inputs = in_double(model), inputs.double()
    maps = []
    for row, label in zip(inputs, targets, strict=True):
        formula = _error(model, row, label, kind, against)
        if kind == "gradient":
            leaf = row.clone().requires_grad_()
            maps.append(torch.autograd.grad(formula(scores_of(model, leaf)), leaf)[0])
            continue
        end = activation_of(model, row, layer)
        total = torch.zeros_like(end)
        for alpha, weight in quadrature_of("gausslegendre", 50):  # any point will do where the rest is linear
            total += weight * _gradient_when(model, row, layer, alpha * end, formula)
        grid = sum(total[k] * end[k] for k in range(len(end)))
        maps.append((replicas.resized(grid, tuple(row.shape[1:])) if resolution == "input" else grid)[None])
    return torch.stack(maps)


def _error(model, row, label, kind, against):
    """Scores (K,) of one sample to how wrong they are, with what was predicted held as it is for the sample."""
    with torch.no_grad():
        clean = scores_of(model, row)
    if against == "predicted":
        best = int(clean.argmax())
        return lambda scores: scores[best] - scores[label]
    if kind == "gradient":
        return lambda scores: torch.logsumexp(scores, 0) - scores[label]
    share = clean.softmax(0)
    return lambda scores: (share * scores).sum() - scores[label]
