"""The demonstration's network: a small residual classifier whose class maps add up to its logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two convolutions beside a 1x1 shortcut.

    Each ReLU is a module of its own: rules that hook activations (DeepLIFT, guided backpropagation) cannot work on one
    that is called twice.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: step of the first convolution and of the shortcut, in pixels.
        kernel: side of both convolutions' windows, odd.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride)), not negative."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


class DemoNetwork(nn.Module):
    """A residual network of 0.6 million parameters: stem, four blocks, mean over space, one linear layer.

    The last block looks at one position at a time, which keeps the receptive field at 89 pixels: evidence stays where
    it was found, and a photograph in one cell of a mosaic does not reach far into the next.

    The head has no bias, so the logit of a class *is* the spatial mean of its class map, Σ_k w_k A_k at `layer4`. That
    map has one sixteenth of the input's height and width.

    Args:
        n_classes: number of logits.
        widths: channels of `layer1` to `layer4`; the stem has those of `layer1`.
    """

    def __init__(self, n_classes: int = 12, widths: Sequence[int] = (24, 64, 176, 256)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.stem = nn.Sequential(nn.Conv2d(3, first, 5, 2, padding=2, bias=False), nn.BatchNorm2d(first), nn.ReLU())
        self.layer1 = ResidualBlock(first, first, 2)
        self.layer2 = ResidualBlock(first, second, 2)
        self.layer3 = ResidualBlock(second, third, 2)
        self.layer4 = ResidualBlock(third, fourth, 1, kernel=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(fourth, n_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, n_classes) of inputs (N, 3, H, W), H and W at least 32, normalised to roughly [-2, 2]."""
        return self.head(self.flatten(self.pool(self.features(x))))

    def features(self, x: Tensor) -> Tensor:
        """What `layer4` gives: (N, 256, ceil(H / 16), ceil(W / 16)), not negative."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))

    def class_maps(self, x: Tensor) -> Tensor:
        """Σ_k w_k A_k of each class, whose spatial means are the logits: (N, n_classes, ceil(H / 16), ceil(W / 16))."""
        return torch.einsum("nkhw,ck->nchw", self.features(x), self.head.weight)

    @torch.no_grad()
    def centre_logits(self) -> None:
        """Make the logits of every input sum to zero; no probability changes.

        Softmax ignores what all logits share, so training leaves that part arbitrary, yet an attribution of a logit
        would show it. Centred, a logit is the evidence for its class against the average class.
        """
        self.head.weight -= self.head.weight.mean(0, keepdim=True)
