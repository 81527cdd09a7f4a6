"""Detectors: what is read from each kind of output, whose boxes are explained, whether maps are the model's."""

import copy
from dataclasses import dataclass

import detectors
import networks
import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast import targets

BOX, OTHER = [8.0, 4.0, 24.0, 20.0], [30.0, 30.0, 50.0, 60.0]
SAMPLES = torch.arange(2)


def overlap(a, b):
    """IoU by the definition, in Python's numbers."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def centred(boxes):
    boxes = torch.tensor(boxes)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


NEAR = [10.0, 4.0, 24.0, 22.0]
SCORES = torch.tensor([[0.2, 0.6, 0.1], [0.9, 0.3, 0.7], [0.3, 0.8, 0.4]])  # of BOX, NEAR and OTHER
LOGITS = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


@dataclass
class DetrObjectDetectionOutput:
    """As Hugging Face's records are named; the last class of its logits is "no object"."""

    logits: torch.Tensor
    pred_boxes: torch.Tensor


class ConditionalDetrObjectDetectionOutput(DetrObjectDetectionOutput):
    """One whose classes are scored by sigmoids."""


SHARES = centred([BOX, NEAR, OTHER])[None].expand(2, 3, 4) / 64
ANCHORS = torch.cat([centred([BOX, NEAR, OTHER]).T, SCORES.T])[None].expand(2, 7, 3)
# What is returned for two rows, the scale of its boxes, and the scores (2, 3, classes) it states.
FORMS = {
    "all classes": ([{"boxes": torch.tensor([BOX, NEAR, OTHER]), "scores": SCORES}] * 2, 1, SCORES.expand(2, 3, 3)),
    "anchors": (ANCHORS, 1, SCORES.expand(2, 3, 3)),
    "anchors first": ((ANCHORS, [torch.ones(2, 4, 8, 8)]), 1, SCORES.expand(2, 3, 3)),
    "softmax": (DetrObjectDetectionOutput(LOGITS, SHARES), 64, LOGITS.softmax(2)[..., :3]),
    "sigmoid": (ConditionalDetrObjectDetectionOutput(LOGITS, SHARES), 64, LOGITS.sigmoid()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_output_is_read(form):
    output, scale, scores = FORMS[form]
    given = torch.tensor([[BOX, OTHER]]) / scale
    found = targets.detection(given, torch.tensor([[1, 2]]))(output, SAMPLES)
    shares = torch.tensor([[overlap(box, other) for other in (BOX, NEAR, OTHER)] for box in (BOX, OTHER)])
    expected = torch.stack([(shares[k] * scores[:, :, label]).amax(1) for k, label in enumerate((1, 2))], 1)
    torch.testing.assert_close(found, expected)
    alone = targets.detection(torch.tensor(BOX) / scale, 1)(output, SAMPLES)
    torch.testing.assert_close(alone, expected[:, 0])


def test_another_form_is_read_by_a_function():
    output = torch.cat([ANCHORS.transpose(1, 2)[..., :4], 7 * ANCHORS.transpose(1, 2)[..., 4:]], 2)
    with pytest.raises(TypeError, match=r"returned Tensor \(2, 3, 7\)\. Give `read`"):
        targets.detection(torch.tensor(BOX), 1)(output, SAMPLES)
    with pytest.raises(ValueError, match=r"class probabilities reaches from .*; give `read`"):
        targets.detection(torch.tensor(BOX), 1)(output.transpose(1, 2), SAMPLES)

    def read(output):
        rows = output.transpose(1, 2)
        return torch.cat([rows[:, :4], rows[:, 4:] / 7], 1)

    torch.testing.assert_close(
        targets.detection(torch.tensor(BOX), 1, read=read)(output, SAMPLES),
        targets.detection(torch.tensor(BOX), 1)(ANCHORS, SAMPLES),
    )


class Fixed(nn.Module):
    """Finds the same boxes in every row, the n-th as surely as the row's n-th channel is bright."""

    def forward(self, x):
        boxes = torch.tensor([BOX, NEAR, OTHER]).to(x)
        return [{"boxes": boxes, "labels": torch.tensor([1, 1, 2]), "scores": row.mean((1, 2))} for row in x]


BRIGHT = torch.tensor([[0.9, 0.8, 0.3], [0.2, 0.5, 0.6], [0.4, 0.7, 0.1]])[:, :, None, None].expand(3, 3, 8, 8).clone()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_detectors_own_boxes_are_settled_on_each_clean_input(batch_size):
    engine = xf.Engine(Fixed(), batch_size=batch_size)
    surest = xf.Saliency(engine)(BRIGHT, targets.detection())
    assert surest.score.tolist() == pytest.approx([0.9, 0.6, 0.7])
    boxes, labels = surest.target.boxes(3), surest.target.labels(3)
    assert boxes.tolist() == [BOX, OTHER, NEAR]
    assert labels.tolist() == [1, 2, 1]
    # NEAR shares more than half of its union with BOX: another view of the same object.
    both = xf.Saliency(engine)(BRIGHT, targets.detection(n_boxes=2))
    assert both.values.shape == (3, 2, 3, 8, 8)
    assert both.target.boxes(3).tolist() == [[BOX, OTHER], [OTHER, NEAR], [NEAR, OTHER]]
    of_class = xf.Saliency(engine)(BRIGHT, targets.detection(labels=[1, 1, 2]))
    assert of_class.score.tolist() == pytest.approx([0.9, 0.5, 0.1])
    open_still = targets.detection(n_boxes=2)
    assert repr(open_still) == "detection(the detector's own 2)"
    xf.Saliency(engine).attribute(BRIGHT, open_still)
    assert xf.Saliency(engine)(BRIGHT[1:], open_still).target.boxes(2)[0].tolist() == [OTHER, NEAR]


REFUSED = {
    "too few": (lambda: targets.detection(n_boxes=3), ValueError, "asks for 3 of .* found 2 in input 0"),
    "of no class": (lambda: targets.detection(labels=9), ValueError, "own boxes of class 9, and it found 0 in input 0"),
    "both": (lambda: targets.detection(torch.tensor(BOX), 1, n_boxes=2), TypeError, "`n_boxes` came as 2 beside"),
    "no count": (lambda: targets.detection(n_boxes=0), ValueError, "`n_boxes` came as 0"),
    "labels of others": (
        lambda: targets.detection(torch.tensor([[BOX, OTHER]]), [[1, 2, 3]]), TypeError, "`labels` came as",
    ),
    "a label too many": (
        lambda: targets.detection(torch.tensor([[BOX, OTHER]]), torch.ones(1, 3).long()), ValueError, "one per box",
    ),
    "no function": (lambda: targets.detection(read=3), TypeError, "`read` came as int"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    target, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        xf.Saliency(Fixed()).attribute(BRIGHT, target())


def test_a_class_that_the_detector_has_not_is_refused():
    with pytest.raises(ValueError, match="`labels` holds 3; the detector has 3 classes"):
        targets.detection(torch.tensor(BOX), 3)(ANCHORS, SAMPLES)


def test_the_edges_of_its_own_box_draw_no_gradient():
    """There the overlap is at its largest, and which way it falls is a matter of the last bit."""

    class Moves(nn.Module):
        def forward(self, x):
            return [
                {"boxes": torch.tensor([BOX]).to(x) * (1 + row[0, 0, 0]), "labels": torch.ones(1).long(),
                 "scores": row.mean()[None]} for row in x
            ]  # fmt: skip

    at_zero = torch.full((1, 1, 4, 4), 0.5)
    at_zero[..., 0, 0] = 0
    for shift in (0.0, 1e-5, -1e-5):
        inputs = at_zero.clone()
        inputs[..., 0, 0] = shift
        values = xf.Saliency(Moves(), absolute=False).attribute(inputs, targets.detection(torch.tensor(BOX), 1))
        torch.testing.assert_close(values, torch.full_like(values, 1 / 16), rtol=1e-3, atol=0)
    inputs[..., 0, 0] = 0.1
    values = xf.Saliency(Moves(), absolute=False).attribute(inputs, targets.detection(torch.tensor(BOX), 1))
    assert values[0, 0, 0, 0] < 0


# Detectors of every kind: maps are those of the plain model, a row at a time, in float64.


@pytest.fixture(scope="module", params=detectors.KINDS)
def subject(request):
    if request.param != "yolo":
        pytest.importorskip("torchvision")
    return detectors.detector(request.param), networks.photos(2, detectors.SIDE)


def plain(model, target, layer=None):
    """Scores (K,), gradients and, where a layer is named, its Grad-CAM, of one row in float64."""

    def of(row, n):
        twin, kept = copy.deepcopy(model).double(), []
        if layer is not None:
            twin.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2]))
        leaf = row[None].double().requires_grad_()
        scores = target(twin(leaf), torch.tensor([n]))[0]
        found = []
        for score in scores:
            at = kept[0] if kept else leaf
            (gradient,) = torch.autograd.grad(score, at, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(at) if gradient is None else gradient
            found.append((gradient.mean((2, 3), keepdim=True) * at).sum(1).relu()[0] if kept else gradient[0])
        return scores.detach(), torch.stack(found).detach()

    return of


def test_gradients_cams_and_hidden_parts_are_the_plain_models(subject):
    model, inputs = subject
    engine = xf.Engine(model, batch_size=3)
    explained = xf.Saliency(engine, absolute=False)(inputs, targets.detection(n_boxes=2))
    settled = explained.target
    cam = xf.GradCAM(engine, fuse="mean")(inputs, settled, resolution="native")
    assert cam.layer == ("backbone.fine", "backbone.coarse")  # a box hangs on one of them, another box on the other
    hidden = xf.Occlusion(engine, window=32).attribute(inputs, settled)
    for n, row in enumerate(inputs):
        scores, gradients = plain(model, settled)(row, n)
        torch.testing.assert_close(explained.score[n], scores.float(), rtol=1e-4, atol=1e-5)
        assert scores.min() > 0.05
        scale = gradients.abs().amax()
        assert scale > 0
        torch.testing.assert_close(explained.values[n], gradients.float(), rtol=1e-3, atol=1e-3 * float(scale))
        maps = [plain(model, settled, layer)(row, n)[1] for layer in cam.layer]
        enlarged = nn.functional.interpolate(maps[1][None], scale_factor=2, mode="bilinear")[0]
        expected = ((maps[0] + enlarged) / 2)[:, None].float()
        torch.testing.assert_close(cam.values[n], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        covered = row.clone()
        covered[:, :32, 32:] = 0
        drop = scores - plain(model, settled)(covered, n)[0]
        torch.testing.assert_close(hidden[n, :, 0, 5, 40], drop.float(), rtol=1e-3, atol=1e-4)


def test_several_boxes_are_as_each_alone(subject):
    model, inputs = subject
    engine = xf.Engine(model, batch_size=4)
    target = xf.LayerCAM(engine)(inputs, targets.detection(n_boxes=2)).target
    boxes, labels = target.boxes(2), target.labels(2)
    for method in (
        xf.LayerCAM(engine),
        xf.IntegratedGradients(engine, n_steps=2),
        xf.DRISE(engine, n_masks=12, cells=4),
    ):
        both = method.attribute(inputs, target)
        for k in range(2):
            alone = method.attribute(inputs, targets.detection(boxes[:, k], labels[:, k]))
            torch.testing.assert_close(both[:, k], alone, rtol=1e-3, atol=1e-4 * float(both.abs().max()))
        assert both.isfinite().all()
        assert both.abs().amax() > 0


def test_a_detector_that_goes_from_row_to_row_says_why_it_runs_whole(subject):
    model, inputs = subject
    engine = xf.Engine(model)
    said = engine.explain_plan(xf.Occlusion(engine, window=32), inputs)
    if isinstance(model(inputs), tuple):
        assert "plan: local" in said or "plan: dense" in said
    else:
        assert "plan: dense" in said
        assert "its forward goes through the rows one by one" in said
