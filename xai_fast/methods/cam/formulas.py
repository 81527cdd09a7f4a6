"""The family's formulas as data: what each asks of a layer, and the weights or the map that it makes of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xai_fast.engine.reducers.cam import (
    Draw,
    Grid,
    Plane,
    Weights,
    agreeing,
    planes,
    principal_map,
    resized,
    weighted_channels,
    wide,
)


@dataclass(frozen=True)
class Formula:
    """How a layer's response becomes a map, before it is rectified.

    Attributes:
        asks: what is asked of the layer beside its activation: nothing, the scores' gradient, that and its change along
            the activation ("curvature"), or how far the scores fall under changes of it ("falls").
        weights: of channels (rows, K, C), or of channels at each position (rows, K, C, *s); the map is their product
            with the activation, summed over channels.
        plane: the map (rows, K, *s) itself, where it is no such sum.
    """

    asks: Literal["activation", "gradient", "curvature", "falls"]
    weights: Weights | None = None
    plane: Plane | None = None

    def draw(self, *, eigen: bool = False, relu: bool = True) -> Draw:
        """How the map is drawn: rectified, or the first principal component of its addends, where asked."""
        if self.weights is not None:
            return weighted_channels(self.weights, eigen=eigen, relu=relu)
        assert self.plane is not None
        return planes(self.plane, relu=relu)


def _gradient(response: Grid) -> Tensor:
    assert response.gradient is not None
    return wide(response.gradient)


def _over_positions(values: Tensor) -> Tensor:
    """Sums (rows, K, C) over positions."""
    return values.flatten(3).sum(3)


def _per_position(values: Tensor, like: Tensor) -> Tensor:
    """One number per channel, (..., C), at the positions of `like`."""
    return values.view(*values.shape, *[1] * (like.ndim - values.ndim))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, 0 where the denominator is 0."""
    nothing = denominator == 0
    return torch.where(nothing, 0.0, numerator / torch.where(nothing, 1.0, denominator))


def _mean(response: Grid) -> Tensor:
    assert response.gradient is not None
    return response.gradient.flatten(3).mean(3)


def _plus_plus(response: Grid) -> Tensor:
    # g² / (2 g² + ΣA g³) = 1 / (2 + ΣA g) wherever g is not 0, and where it is, ReLU(g) is 0 as well.
    gradient = _gradient(response)
    total = _per_position(wide(response.activation).flatten(2).sum(2)[:, None], gradient)
    return _over_positions(_ratio(gradient.relu(), 2 + total * gradient))


def _axiom_based(response: Grid) -> Tensor:
    activation, gradient = wide(response.activation)[:, None], _gradient(response)
    return _ratio(_over_positions(activation * gradient), _over_positions(activation))


def _positive_part(response: Grid) -> Tensor:
    return _gradient(response).relu()


def _positive_products(response: Grid) -> Tensor:
    gradient = _gradient(response)
    return torch.where(gradient * response.activation[:, None] > 0, gradient, 0.0)


def _shapley(response: Grid) -> Tensor:
    assert response.curvature is not None
    return (_gradient(response) - wide(response.curvature) / 2).flatten(3).mean(3)


def _falls(response: Grid) -> Tensor:
    assert response.falls is not None
    return response.falls


def _for_each_target(maps: Tensor, response: Grid) -> Tensor:
    """Maps (rows, *s) that do not depend on the target, (rows, K, *s)."""
    dtype = torch.promote_types(response.activation.dtype, torch.float32)
    return maps.to(dtype)[:, None].expand(-1, response.targets, *maps.shape[1:])


def principal(*, centred: bool) -> Plane:
    """The activation's first principal direction."""

    def plane(response: Grid) -> Tensor:
        own = principal_map(response.activation[:, None], centred=centred)[:, 0]
        return _for_each_target(own, response)

    return plane


def _principal_of_products(response: Grid) -> Tensor:
    products = _gradient(response) * response.activation[:, None]
    return principal_map(products).to(products.dtype)


def _principal_of_strengths(response: Grid) -> Tensor:
    products = _gradient(response).abs() * response.activation[:, None]
    own = principal_map(products)
    flat = own.flatten(2)
    down = flat.amin(2).abs() > flat.amax(2).abs()
    return torch.where(_per_position(down, own), -own, own).to(products.dtype)


def _squares(response: Grid) -> Tensor:
    return _for_each_target(wide(response.activation).square().sum(1), response)


_MOST_POSITIONS = 4096  # of a kernel matrix, which has a row and a column for each: 128 MiB in float64


def kernel_principal(kernel: str, gamma: float | None) -> Plane:
    """The first component of kernel PCA over positions, whose coordinates are the channels less their mean."""

    def plane(response: Grid) -> Tensor:
        table = response.activation.double().flatten(2)  # (rows, C, positions)
        if table.shape[2] > _MOST_POSITIONS:
            raise ValueError(
                f"`layer` has {table.shape[2]} positions, and a kernel matrix over more than {_MOST_POSITIONS} is not "
                "made; choose a deeper layer, or `EigenCAM`, which needs none"
            )
        total = table.sum(1)
        table = (table - table.mean(2, keepdim=True)).mT
        table = torch.where(table.isfinite().all(2).all(1)[:, None, None], table, 0.0)
        matrix = _kernel(table, kernel, 1 / table.shape[2] if gamma is None else gamma)
        means = matrix.mean(1, keepdim=True)
        matrix = matrix - means - means.mT + means.mean(2, keepdim=True)
        values, vectors = torch.linalg.eigh(matrix)
        component = agreeing(vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt(), total)
        return _for_each_target(component.view(len(component), *response.activation.shape[2:]), response)

    return plane


KERNELS = ("sigmoid", "rbf", "poly", "cosine", "linear")


def _kernel(table: Tensor, kernel: str, gamma: float) -> Tensor:
    """Kernel values (rows, positions, positions), with the constants of scikit-learn (1, and degree 3)."""
    if kernel == "rbf":
        squares = table.square().sum(2)
        return (-gamma * (squares[:, :, None] + squares[:, None] - 2 * table @ table.mT).clamp_min(0)).exp()
    if kernel == "cosine":
        table = torch.nn.functional.normalize(table, dim=2)
    products = table @ table.mT
    if kernel == "sigmoid":
        return (gamma * products + 1).tanh()
    return (gamma * products + 1) ** 3 if kernel == "poly" else products


def rescaled_products(response: Grid) -> Tensor:
    """Σ_c of |A_c ⊙ g_c|, each brought to [0, 1] by its smallest and largest value: (rows, K, *s)."""
    products = (_gradient(response) * response.activation[:, None]).abs()
    flat = products.flatten(3)
    low, high = (_per_position(edge, products) for edge in (flat.amin(3), flat.amax(3)))
    return _ratio(products - low, high - low).sum(2)


def classic(linear: Sequence[Tensor]) -> Formula:
    """The weights of a linear layer, where the score is what one of `linear` (classes, features) makes of the layer.

    Of the mean over its positions, or of all of it flattened.
    """

    def weights(response: Grid) -> Tensor:
        gradient = _gradient(response)
        flat = gradient.flatten(3)
        if not flat.isfinite().all():  # the loop has named the row
            return gradient
        near = 1e-3 * float(flat.abs().amax())
        even = bool((flat - flat.mean(3, keepdim=True)).abs().amax() <= near)
        looks = [flat.flatten(2), flat.transpose(2, 3).flatten(2), *([flat.sum(3)] if even else [])]
        nears = [near, near, near * flat.shape[3]]
        if not any(_is_row(look, rows, at) for look, at in zip(looks, nears, strict=False) for rows in linear):
            raise ValueError(
                "`layer` is not followed by one linear layer, of its mean over positions or of all of it, whose "
                "outputs are the scores, which is what this map is defined for; give the layer before the mean and a "
                "class as `target`, or use `GradCAM`"
            )
        return gradient

    return Formula("gradient", weights=weights)


def _is_row(found: Tensor, rows: Tensor, near: float) -> bool:
    """Whether each of the vectors (rows, K, F) is one of a layer's weights (classes, F)."""
    if rows.shape[1] != found.shape[2]:
        return False
    distances = torch.cdist(found.flatten(0, 1), rows.to(found), p=float("inf"))
    return bool((distances.amin(1) <= near).all())


def scaled_to_one(draw: Draw) -> Draw:
    """The map on its own grid brought to [0, 1] by its smallest and largest value, then resized; a flat one is 0."""

    def scaled(response: Grid, size: tuple[int, ...] | None) -> Tensor:
        own = draw(response, None)
        flat = own.flatten(2)
        low, high = (_per_position(edge, own) for edge in (flat.amin(2), flat.amax(2)))
        return resized(_ratio(own - low, high - low), size)

    return scaled


FORMULAS = {
    "GradCAM": Formula("gradient", weights=_mean),
    "GradCAMPlusPlus": Formula("gradient", weights=_plus_plus),
    "XGradCAM": Formula("gradient", weights=_axiom_based),
    "HiResCAM": Formula("gradient", weights=_gradient),
    "LayerCAM": Formula("gradient", weights=_positive_part),
    "GradCAMElementWise": Formula("gradient", weights=_positive_products),
    "ShapleyCAM": Formula("curvature", weights=_shapley),
    "AblationCAM": Formula("falls", weights=_falls),
    "EigenGradCAM": Formula("gradient", plane=_principal_of_products),
    "SegEigenCAM": Formula("gradient", plane=_principal_of_strengths),
    "PositionAttention": Formula("activation", plane=_squares),
}
# What other methods are made of: those that take a gradient and nothing else, by name.
BY_GRADIENT = tuple(name for name, formula in FORMULAS.items() if formula.asks == "gradient")
