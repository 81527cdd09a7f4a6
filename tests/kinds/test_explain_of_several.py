"""`xf.explain` of several images and methods: each image has its own target, each method its own maps and model."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import xai_fast as xf


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def gradient(model: nn.Module, image: torch.Tensor, score) -> torch.Tensor:
    """Of a score of the outputs (4,), in float64 and for one image alone."""
    inputs = image[None].double().requires_grad_()
    (found,) = torch.autograd.grad(score(model.double()(inputs)[0]), inputs)
    model.float()
    return found


LABELS = torch.tensor([3, 1, 2])
EMBEDDINGS = torch.eye(4)[:3] + 0.3
CLASSES = ("a", "b", "c", "d")


def cosine(outputs: torch.Tensor, n: int) -> torch.Tensor:
    return torch.cosine_similarity(outputs, EMBEDDINGS[n].double(), 0)


TARGETS = {
    "ints": (lambda: [3, 1, 2], lambda s, n: s[LABELS[n]]),
    "names": (lambda: ["d", "b", "C"], lambda s, n: s[LABELS[n]]),
    "tensor": (lambda: LABELS, lambda s, n: s[LABELS[n]]),
    "array": (lambda: LABELS.numpy(), lambda s, n: s[LABELS[n]]),
    "one for all": (lambda: 2, lambda s, n: s[2]),
    "callable by index": (
        lambda: lambda output, sample: output.gather(1, LABELS[sample][:, None])[:, 0],
        lambda s, n: s[LABELS[n]],
    ),
    "callables": (lambda: [lambda o, k=k: o[:, k] for k in LABELS.tolist()], lambda s, n: s[LABELS[n]]),
    "cross entropy": (lambda: xf.targets.cross_entropy([3, 1, 2]), lambda s, n: -s.log_softmax(0)[LABELS[n]]),
    "margin": (lambda: xf.targets.margin(0, LABELS), lambda s, n: s[LABELS[n]] - s[0]),
    "similarity": (lambda: xf.targets.similarity(EMBEDDINGS), cosine),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_go_to_their_image(kind: str) -> None:
    make, score = TARGETS[kind]
    model, images = network(), torch.randn(3, 3, 12, 12)
    found = xf.explain(images, model, methods=xf.Saliency(model, absolute=False), target=make(), classes=CLASSES)
    for n, one in enumerate(found):
        expected = gradient(model, images[n], lambda s, n=n: score(s, n))
        torch.testing.assert_close(one.explanations[0].values.double(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", [torch.tensor([[0, 1], [2, 3], [3, 0]]), [[0, 1], [2, 3], ["d", "a"]]])
def test_several_targets_of_each_image(target, tmp_path: Path) -> None:
    model, images = network(), torch.randn(3, 3, 12, 12)
    found = xf.explain(images, model, methods=xf.Saliency(model, absolute=False), target=target, classes=CLASSES)
    for n, pair in enumerate([(0, 1), (2, 3), (3, 0)]):
        for k, index in enumerate(pair):
            expected = gradient(model, images[n], lambda s, index=index: s[index])
            torch.testing.assert_close(found[n].explanations[0].values[:, k].double(), expected, rtol=1e-4, atol=1e-7)
    found.save(tmp_path)
    assert len(list(tmp_path.glob("*.Saliency.[01].png"))) == 6


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ([1, 2], ValueError, "`target` holds 2 and `images` 3"),
        (torch.tensor([1, 2]), ValueError, "`target` holds 2 and `images` 3"),
        (np.array([1, 2, 3, 0]), ValueError, "`target` holds 4 and `images` 3"),
        (xf.targets.cross_entropy([1, 2]), ValueError, "`target` cross_entropy holds 2 and `images` 3"),
        (xf.targets.similarity(EMBEDDINGS[:2]), ValueError, "`target` similarity holds 2 and `images` 3"),
        ({"image-1": 1, "image-2": 2, "image-3": 0}, TypeError, "`target` came as a mapping"),
        ([1, "nothing", 2], ValueError, "`target` 'nothing'"),
        ([1, 2.5, 2], TypeError, "`target` came as 2.5"),
        ([1, [], 2], ValueError, "`target` holds an empty sequence"),
        ([1, [2, True], 2], TypeError, "`target`"),
        (1.5, TypeError, "`target` came as 1.5"),
        ([0, -1, 2], ValueError, "`target` holds -1"),
    ],
)
def test_targets_that_fit_no_image_are_refused(target, error: type[Exception], said: str) -> None:
    model = network()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(error, match=said):
        xf.explain(torch.randn(3, 3, 12, 12), model, methods="Saliency", target=target, classes=CLASSES)


@pytest.mark.parametrize("name", ["crane", "3"])
def test_a_name_that_means_two_classes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"may mean any of the classes"):
        xf.explain(
            torch.randn(3, 12, 12), network(), methods="Saliency", target=name, classes=("crane", "3", "b", "Crane")
        )


def test_a_method_made_for_another_model_is_refused() -> None:
    model, other = network(), network()
    with pytest.raises(ValueError, match="`methods` holds a Saliency that was made for another model"):
        xf.explain(torch.randn(3, 12, 12), model, methods=["GradCAM", xf.Saliency(other)], target=1)
    xf.explain(torch.randn(3, 12, 12), model, methods=xf.Saliency(xf.Engine(model, batch_size=1)), target=1)


def test_two_settings_of_one_method_stand_side_by_side(tmp_path: Path) -> None:
    """Also those whose text is the same: large tensors print as their shape."""
    model, image = network(), torch.randn(3, 32, 32)
    baselines = [torch.full((1, 3, 32, 32), level) for level in (0.0, 1.0)]
    methods = [
        *(xf.IntegratedGradients(model, baseline=baseline, n_steps=4) for baseline in baselines),
        *(xf.Occlusion(model, window=window) for window in (8, 16)),
    ]
    found = xf.explain(image, model, methods=methods, target=1)
    assert len(found[0].explanations) == 4
    for method, explanation in zip(methods, found[0].explanations, strict=True):
        torch.testing.assert_close(explanation.values, method.attribute(image[None], 1))
    found.save(tmp_path)
    stems = ("IntegratedGradients", "IntegratedGradients-2", "Occlusion", "Occlusion-2")
    for stem, explanation in zip(stems, found[0].explanations, strict=True):
        saved = xf.Explanation.load(tmp_path / f"image-1.{stem}.safetensors").values
        torch.testing.assert_close(saved, explanation.values, rtol=0, atol=0)
    page = (tmp_path / "index.html").read_text()
    assert "Occlusion (window=8)" in page
    assert "Occlusion (window=16)" in page


@pytest.mark.parametrize("methods", [[], "", [xf.Saliency], [7], 7])
def test_what_is_no_method_is_refused(methods) -> None:
    with pytest.raises((ValueError, TypeError), match=r"`methods?`"):
        xf.explain(torch.randn(3, 12, 12), network(), methods=methods, target=1)


def test_one_bad_image_costs_itself(tmp_path: Path) -> None:
    model, images = network(), list(torch.randn(3, 3, 12, 12))
    images[1] = images[1].clone()
    images[1][0, 0, 0] = torch.nan
    mixed = [*images, torch.randn(1, 3, 12, 12), torch.randn(3, 12, 12).long(), "missing.jpg", 7]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = xf.explain(mixed, xf.Engine(model, preprocess=xf.Preprocess(12, 12)), methods="Saliency", target=1)
    assert [one.name for one in found] == ["image-1", "image-3"]
    assert [failure.name for failure in found.failures] == ["image-2", "image-4", "image-5", "missing", "image-7"]
    assert len(said) == 5


def test_saving_keeps_the_photographs(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "cat.png")
    before = (tmp_path / "cat.png").read_bytes()
    found = xf.explain(
        tmp_path / "cat.png", network(), methods="Saliency", target=1, preprocess=xf.Preprocess(resize=12, crop=12)
    )
    found.save(tmp_path)
    assert (tmp_path / "cat.png").read_bytes() == before
    assert (tmp_path / "cat-2.Saliency.safetensors").is_file()
    (tmp_path / "index.html").write_text("<html>mine</html>")
    with pytest.raises(ValueError, match=r"`directory` .* index\.html"):
        found.save(tmp_path)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 50_000)])
def test_strips_are_cut_before_they_are_enlarged(size: tuple[int, int]) -> None:
    """Resized whole, they would be billions of pixels; what is kept of one colour is that colour."""
    inputs = xf.Preprocess()(Image.new("RGB", size, (200, 30, 4)))
    assert inputs.shape == (3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.tensor([200, 30, 4]) / 255 - mean) / std
    torch.testing.assert_close(inputs, expected[:, None, None].expand(3, 224, 224))
    with pytest.raises(ValueError, match="are allowed"):
        xf.Preprocess(crop=None)(Image.new("RGB", size))


def test_a_cut_part_is_that_part_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 400, 3), dtype=np.uint8))
    preprocess = xf.Preprocess(resize=64, crop=(80, 48), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    whole = preprocess(photo)
    monkeypatch.setattr("xai_fast.images.preprocess.MOST_PIXELS", 80 * 48)
    torch.testing.assert_close(preprocess(photo), whole, rtol=0, atol=1.001)
