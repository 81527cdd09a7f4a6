"""CAMs that are a principal component: of the activations, or of their products with gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from .base import AbstractFormulaCAM
from .formulas import FORMULAS, KERNELS, Formula, kernel_principal, principal


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EigenCAM(AbstractFormulaCAM):
    r"""Eigen-CAM (Muhammad and Yeasin 2020, arXiv:2008.00299): what a layer's activations have in common, of any class.

    .. math:: L = \mathrm{ReLU}(A^\top v), \qquad A = U \Sigma V^\top,\ v = u_1

    where A has a row per channel and a column per position: the first left singular vector weighs the channels. It is
    found from the smaller of the matrices A Aᵀ and Aᵀ A. Its sign, which the decomposition leaves open, is chosen so
    that the map correlates positively with Σ_k A_k; the ReLU, which changes nothing at layers that end in one, is not
    the paper's.

    Values are not negative, in units of the activation. The target changes nothing.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto", a name, a module, or a list of them; as for `GradCAM`.
        grid: where it is not clear how a layer lies over the input: (h, w), or a function to (N, C, h, w).
        fuse: how the maps of several layers become one, each finished and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        signed: the map without its ReLU.
        centred: every channel's mean over positions is taken away first, as grad-cam does and the paper does not.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's
    grid.

    Cost: one row forward per input, six with `aug_smooth`; no gradient. A GPU is waited for
    once per batch of inputs, which asks whether the decomposition has converged.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    centred: bool = False

    def _formula(self) -> Formula:
        return Formula("activation", plane=principal(centred=self.centred))

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.centred, bool):
            raise ValueError(f"`centred` came as {self.centred!r}; give True or False")


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EigenGradCAM(AbstractFormulaCAM):
    r"""Eigen-CAM of the activations times their gradients, which makes it follow the target.

    .. math:: L = \mathrm{ReLU}\bigl(G^\top u_1\bigr), \qquad G = \frac{\partial f}{\partial A} \odot A - \text{means}

    As in grad-cam, where it comes from, the mean over positions is taken away from every channel. Its sign is chosen so
    that the map correlates positively with the sum of the products over channels; grad-cam takes what LAPACK returns.

    Values are not negative, in units of the score. Arguments and shapes are those of `EigenCAM`.

    Cost: one row forward and one backward per input. A GPU is waited for
    once per batch of inputs, which asks whether the decomposition has converged.
    """

    formula: ClassVar = FORMULAS["EigenGradCAM"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SegEigenCAM(AbstractFormulaCAM):
    r"""Seg-Eigen-CAM (Chung and Ying 2025, doi:10.3390/app15137562, equations 10 to 13), made for segmentation.

    .. math:: L = \mathrm{ReLU}\bigl(\pm G^\top u_1\bigr), \qquad
              G = \Bigl|\frac{\partial f}{\partial A}\Bigr| \odot A - \text{means}

    with the sign that makes the value of largest magnitude the positive one. For a segmentation model the target is
    `xf.targets.region`.

    Values are not negative, in units of the score. Arguments and shapes are those of `EigenCAM`.

    Cost: one row forward and one backward per input. A GPU is waited for
    once per batch of inputs, which asks whether the decomposition has converged.
    """

    formula: ClassVar = FORMULAS["SegEigenCAM"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KPCACAM(AbstractFormulaCAM):
    r"""KPCA-CAM (Karmani et al. 2024, arXiv:2410.00267): the first component of kernel PCA over a layer's positions.

    .. math:: L = \mathrm{ReLU}\bigl(\sqrt{\lambda_1}\, \alpha_1\bigr), \qquad
              \bar K \alpha_1 = \lambda_1 \alpha_1,\quad K_{st} = \kappa(A_s - \bar A, A_t - \bar A)

    where :math:`\bar K` is K with the means of its rows and columns taken away. The sign, which the decomposition
    leaves open, makes the map correlate positively with Σ_k A_k. The kernels and their constants are those of
    scikit-learn, which the paper's code and grad-cam use.

    Values are not negative, without a unit. The target changes nothing. Arguments and shapes are those of `EigenCAM`,
    with those below in place of `centred`.

    Args:
        kernel: "sigmoid" (tanh(γ a·b + 1)), "rbf" (exp(−γ |a − b|²)), "poly" ((γ a·b + 1)³), "cosine" or "linear".
        gamma: γ; None is 1 over the number of channels.

    Cost: one row forward per input, and an eigenvalue problem over positions. A GPU is waited for
    once per batch of inputs, which asks whether the decomposition has converged.

    Raises:
        ValueError: a layer with more than 4096 positions.
    """

    kernel: Literal["sigmoid", "rbf", "poly", "cosine", "linear"] = "sigmoid"
    gamma: float | None = None

    def _formula(self) -> Formula:
        return Formula("activation", plane=kernel_principal(self.kernel, self.gamma))

    def _check(self) -> None:
        super()._check()
        if self.kernel not in KERNELS:
            raise ValueError(f"`kernel` came as {self.kernel!r}; give one of {', '.join(map(repr, KERNELS))}")
        number = isinstance(self.gamma, int | float) and not isinstance(self.gamma, bool)
        if self.gamma is not None and not (number and 0 < self.gamma < math.inf):
            raise ValueError(f"`gamma` came as {self.gamma!r}; give a number above 0, or None")
