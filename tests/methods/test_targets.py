"""Every way to say what is explained gives the map it names: indices, many at once, the argmax, functions, losses."""

from __future__ import annotations

import networks
import pytest
import torch
from subjects import shared, signals
from table import CASES, FIRST
from torch.nn import functional

import xai_fast as xf
from xai_fast import targets

# An error is measured by the true classes: they are the only targets of this method.
ASKED = [case for case in CASES if not (case.needs_truth or case.needs_classes or case.method == "CAM")]
every = pytest.mark.parametrize("case", ASKED, ids=str)
first = pytest.mark.parametrize("case", [case for case in FIRST if case in ASKED], ids=lambda case: case.method)


@pytest.fixture
def model():
    return shared(torch.float64)


@pytest.fixture
def inputs():
    return signals(dtype=torch.float64)


def same(actual, expected):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@first
def test_indices_in_every_form(case, model, inputs):
    method = case.on(model)
    expected = torch.cat([method.attribute(inputs[n : n + 1], t) for n, t in enumerate([1, 3, 0])])
    for form in ([1, 3, 0], (1, 3, 0), torch.tensor([1, 3, 0]), torch.tensor([1, 3, 0], dtype=torch.int32)):
        same(method.attribute(inputs, form), expected)
    expected = method.attribute(inputs, [2, 2, 2])
    for form in (2, torch.tensor(2), torch.tensor([2, 2, 2]), torch.tensor([2, 2, 2]).numpy()):
        same(method.attribute(inputs, form), expected)
    assert not torch.allclose(expected, method.attribute(inputs, 1)) or not xf.methods()[case.method].class_specific


@every
def test_many_targets_from_one_sweep(case, model, inputs):
    """The columns equal single runs, the axis K follows N, and no row runs forward more than once."""
    method = case.on(xf.Engine(model, plan="dense"))
    wanted = torch.tensor([[0, 1, 4], [2, 2, 3], [4, 0, 1]])
    if case.follows_answers:
        wanted = wanted[:, :1].repeat(1, 3)
    method.attribute(inputs, wanted, **case.call)
    model.record.chunks.clear()
    method.attribute(inputs, wanted[:, 0], **case.call)
    rows_for_one = model.record.rows
    model.record.chunks.clear()
    explanation = method(inputs, wanted, **case.call)
    assert 0 < model.record.rows == rows_for_one <= method.cost(inputs.shape).forwards
    assert explanation.values.shape[:2] == (3, 3)
    assert torch.equal(explanation.target, wanted)
    for k in range(3):
        alone = method(inputs, wanted[:, k], **case.call)
        same(explanation.values[:, k], alone.values)
        same(explanation.score[:, k], alone.score)
    one = method.attribute(inputs, wanted[:, :1], **case.call)
    same(one, explanation.values[:, :1])


@pytest.mark.parametrize("case", [case for case in CASES if case.needs_truth], ids=str)
def test_an_error_takes_the_true_classes_alone(case, model, inputs):
    method = case.on(model)
    expected = method.attribute(inputs, [2, 2, 2], **case.call)
    same(method.attribute(inputs, 2, **case.call), expected)
    for unfit in (None, targets.probability(2), lambda scores: scores[:, 2]):
        with pytest.raises(TypeError, match=r"`target` came as .* give the true classes"):
            method.attribute(inputs, unfit, **case.call)
    with pytest.raises(ValueError, match="`target` of shape"):
        method.attribute(inputs, torch.tensor([[0, 1]] * 3), **case.call)


@every
def test_none_is_the_argmax_of_the_clean_input(case, model, inputs):
    method = case.on(model)
    best = model(inputs).argmax(1)
    assert len(set(best.tolist())) > 1, "the inputs tell nothing apart"
    explanation = method(inputs, **case.call)
    assert torch.equal(explanation.target, best)
    same(explanation.values, method.attribute(inputs, best, **case.call))
    same(explanation.score, model(inputs).detach().gather(1, best[:, None])[:, 0])


@first
def test_callables_get_the_raw_output_and_the_sample(case, model, inputs):
    method = case.on(xf.Engine(model, batch_size=2))
    seen = []

    def plain(output):
        assert isinstance(output, torch.Tensor)
        return output[:, 2]

    def with_sample(output, sample):
        assert sample.dtype is torch.long
        assert sample.shape == (len(output),)
        seen.extend(sample.tolist())
        return output.gather(1, torch.tensor([1, 3, 0])[sample][:, None])[:, 0]

    same(method.attribute(inputs, plain), method.attribute(inputs, 2))
    explanation = method(inputs, with_sample)
    same(explanation.values, method.attribute(inputs, [1, 3, 0]))
    assert explanation.target is with_sample
    counts = [seen.count(n) for n in range(3)]
    if case.needs_attention:  # the first input is asked about once more, to see which tokens the score is read from
        counts[0] = min(counts[0], case.scores_per_row)
    assert counts == [case.scores_per_row * rows for rows in explanation.evaluations.tolist()]
    same(method.attribute(inputs, lambda output, extra=7: output[:, 2]), method.attribute(inputs, 2))


RESCALED = xf.DeepLift, xf.DeepLiftShap

FORMULAS = {
    "probability": (targets.probability(2), lambda s: s.softmax(1)[:, 2]),
    "log_probability": (targets.log_probability(2), lambda s: s.log_softmax(1)[:, 2]),
    "margin": (targets.margin(2, 0), lambda s: s[:, 0] - s[:, 2]),
    "cross_entropy": (targets.cross_entropy(2), lambda s: -s.log_softmax(1)[:, 2]),
}


@pytest.mark.parametrize("name", FORMULAS)
@first
def test_named_targets_are_their_formulas(case, name, model, inputs):
    named, formula = FORMULAS[name]
    method = case.on(model)
    explanation = method(inputs, named)
    same(explanation.score, formula(model(inputs)).detach())
    if isinstance(method, RESCALED) and name != "margin":
        # Behind a softmax the rule has multipliers of its own, which add up; a function's are its gradient.
        assert explanation.completeness_gap.abs().max() <= 1e-10
    else:
        same(explanation.values, method.attribute(inputs, formula))
    assert explanation.values.abs().max() > 1e-5 or case.takes_curvature  # whose ReLU may take all of a loss's map


@first
def test_named_targets_take_classes_per_sample_and_the_argmax(case, model, inputs):
    method, best = case.on(model), model(inputs).argmax(1)
    same(method.attribute(inputs, targets.probability()), method.attribute(inputs, targets.probability(best)))
    same(
        method.attribute(inputs, targets.margin([4, 4, 1])),
        method.attribute(inputs, lambda s, n: _pick(s, best[n]) - _pick(s, torch.tensor([4, 4, 1])[n])),
    )
    labels = torch.tensor([1, 3, 0])
    if isinstance(method, RESCALED):
        assert method(inputs, targets.cross_entropy(labels)).completeness_gap.abs().max() <= 1e-10
    else:
        same(
            method.attribute(inputs, targets.cross_entropy(labels)),
            method.attribute(inputs, lambda s, n: functional.cross_entropy(s, labels[n], reduction="none")),
        )
    if not case.class_specific or case.weighs_by_softmax:
        return  # a score of nothing has a map all the same
    same(method.attribute(inputs, targets.margin(1, 1)), torch.zeros_like(method.attribute(inputs, 1)))


def _pick(scores, classes):
    return scores.gather(1, classes[:, None])[:, 0]


def test_named_targets_serve_inside_functions_of_ones_own(model, inputs):
    """Classes are those of the rows' inputs, however few of the inputs a forward sees."""
    engine = xf.Engine(model, batch_size=1)
    named = targets.margin([4, 4, 1], torch.tensor([1, 3, 0]))
    same(engine.scores(inputs, lambda s, n: 2 * named(s, n)), 2 * engine.scores(inputs, named))
    with pytest.raises(ValueError, match=r"`classes` of margin must be given"):
        targets.margin(1)(model(inputs), torch.arange(3))
    with pytest.raises(ValueError, match=r"`classes` has 2 entries and there are 3 inputs or more"):
        targets.probability([0, 1])(model(inputs), torch.arange(3))


def test_a_loss_is_the_loss_itself():
    """Hiding what speaks for the class raises the loss, so it attributes negatively."""
    inputs = torch.zeros(1, 1, 4, 4)
    inputs[..., 1, 2] = 3.0

    def model(x):
        return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], dim=1)

    loss = xf.Occlusion(model, window=1).attribute(inputs, targets.cross_entropy(0))
    assert loss[0, 0, 1, 2] < -0.1
    assert xf.Occlusion(model, window=1).attribute(inputs, targets.probability(0))[0, 0, 1, 2] > 0.1


@first
def test_engine_scores(case, model, inputs):
    engine = case.on(model).engine
    clean = model(inputs).detach()
    same(engine.scores(inputs, [1, 3, 0]), clean[torch.arange(3), torch.tensor([1, 3, 0])])
    same(engine.scores(inputs), clean.amax(1))
    same(engine.scores(inputs, torch.tensor([[0, 1]] * 3)), clean[:, :2])
    same(engine.scores(inputs, lambda s: s.sum(1)), clean.sum(1))


# Targets that are formulas of the whole output.


@first
def test_similarity_is_the_cosine(case, model, inputs):
    method, wanted = case.on(model), signals(3, (5,), seed=5).double()

    def cosine(output, sample):
        one = wanted[sample]
        return (output * one).sum(1) / (output.square().sum(1).sqrt() * one.square().sum(1).sqrt())

    explanation = method(inputs, targets.similarity(wanted))
    same(explanation.values, method.attribute(inputs, cosine))
    same(explanation.score, cosine(model(inputs), torch.arange(3)).detach())
    assert explanation.values.abs().max() > 1e-5
    alike = method.attribute(inputs, targets.similarity(wanted[0]))
    same(alike[:1], explanation.values[:1])
    same(alike, method.attribute(inputs, targets.similarity(wanted[:1].expand(3, 5) * 7)))


class Detector(torch.nn.Module):
    """Finds what it is told to, in every row: boxes and labels fixed, scores times the row's mean."""

    def __init__(self, boxes, labels, scores):
        super().__init__()
        self.found = torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores)

    def forward(self, x):
        boxes, labels, scores = self.found
        return [{"boxes": boxes, "labels": labels, "scores": scores * row.mean()} for row in x]


BOXES = [[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 10.0, 5.0], [40.0, 40.0, 50.0, 60.0]]
MEANS = torch.tensor([1.0, 0.5])
BRIGHT = MEANS[:, None, None, None].expand(2, 3, 8, 8).clone()


def detected(detector, boxes, labels):
    return xf.Engine(detector).scores(BRIGHT, targets.detection(torch.tensor(boxes), labels))


def test_detection_is_the_best_overlap_times_score_of_the_class():
    detector = Detector(BOXES, [1, 1, 2, 2], [0.3, 0.9, 0.8, 0.6])
    # The box itself at 0.3, or the one of which a third of the union is shared at 0.9.
    torch.testing.assert_close(detected(detector, BOXES[0], 1), 0.3 * MEANS)
    torch.testing.assert_close(detected(detector, [0.0, 0.0, 15.0, 10.0], 1), 0.9 * 100 / 150 * MEANS)
    torch.testing.assert_close(detected(detector, BOXES[0], 2), 0.8 * 0.5 * MEANS)  # another class's boxes do not count
    torch.testing.assert_close(detected(detector, BOXES[3], 1), 0 * MEANS)
    torch.testing.assert_close(detected(detector, BOXES[0], 7), 0 * MEANS)
    each = detected(detector, [BOXES[0], BOXES[3]], [2, 2])
    torch.testing.assert_close(each, torch.tensor([0.4, 0.6]) * MEANS)
    same(detected(detector, [BOXES[0]] * 2, [1, 2]), torch.stack([0.3 * MEANS[0], 0.4 * MEANS[1]]))


def test_detection_of_nothing_and_of_all_class_probabilities():
    none = Detector(BOXES, [1, 1, 2, 2], [0.3, 0.9, 0.8, 0.6])
    none.found = tuple(part[:0] for part in none.found)
    torch.testing.assert_close(detected(none, BOXES[0], 1), torch.zeros(2))
    probabilities = [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]]
    every = Detector(BOXES, [9, 9, 9, 9], probabilities)
    torch.testing.assert_close(detected(every, BOXES[0], 0), 0.8 * 50 / 150 * MEANS)
    torch.testing.assert_close(detected(every, BOXES[0], 1), 0.9 * MEANS)


@pytest.fixture(scope="module")
def rcnn():
    """A torchvision detector with random weights that finds other boxes in other photographs."""
    settings = {"num_classes": 5, "min_size": 64, "max_size": 96, "box_score_thresh": 0.0}
    few = {"rpn_post_nms_top_n_test": 50, "box_detections_per_img": 20}
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    return networks.awakened(name, weights_backbone=None, **settings, **few)


def test_detection_by_a_torchvision_detector(rcnn):
    inputs = networks.photos(2, 64)
    with torch.no_grad():
        found = rcnn(inputs)
    boxes = torch.stack([one["boxes"][0] for one in found])
    target = targets.detection(boxes, [int(one["labels"][0]) for one in found])
    engine = xf.Engine(rcnn, batch_size=3)
    surest = torch.stack([one["scores"][0] for one in found])  # they come sorted, and a box overlaps itself wholly
    torch.testing.assert_close(engine.scores(inputs, target), surest, rtol=1e-4, atol=1e-5)
    values = xf.Occlusion(engine, window=32).attribute(inputs, target)
    assert (values.amax((1, 2, 3)) > 0.05).all(), "hiding parts of an object makes it no harder to find"
    cell = torch.zeros(1, 3, 64, 64)
    cell[..., :32, :32] = 1
    hidden = engine.scores(inputs * (1 - cell), target)
    torch.testing.assert_close(values[:, 0, 5, 5], surest - hidden, rtol=1e-3, atol=1e-4)


def test_region_of_a_torchvision_segmentation():
    model = networks.awakened("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=4).double()
    inputs = networks.photos(2, 64).double()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 10:20, 5:30] = True
    masks[1, 40:, 3:9] = True
    target = targets.region(masks, [2, 1])
    with torch.no_grad():
        out = model(inputs)["out"]
    expected = torch.stack([out[0, 2][masks[0]].mean(), out[1, 1][masks[1]].mean()])
    same(xf.Engine(model, batch_size=1).scores(inputs, target), expected)

    def mean_of_second(output, sample):
        return torch.stack([row[1 if n else 2][masks[n]].mean() for row, n in zip(output["out"], sample, strict=True)])

    for method in (xf.Saliency(model), xf.Occlusion(model, window=32)):
        values = method.attribute(inputs, target)
        same(values, method.attribute(inputs, mean_of_second))
        assert (values.abs().amax((1, 2, 3)) > 1e-2).all()


def test_region_weighs_the_pixels_of_any_score_map():
    maps = signals(2, (3, 4, 5), dtype=torch.float64)
    weights = torch.tensor([0.0, 0.25, 1.0, 0.5, 0.0], dtype=torch.float64).expand(4, 5)
    expected = (maps[:, 1] * weights).sum((1, 2)) / 7
    same(xf.Engine(lambda x: x).scores(maps, targets.region(weights, 1)), expected)
    same(xf.Engine(lambda x: {"out": x, "aux": -x}).scores(maps, targets.region(weights.float(), 1)), expected)
    everywhere = torch.ones(1, 4, 5, dtype=torch.bool)
    same(xf.Engine(lambda x: x).scores(maps, targets.region(everywhere, [2, 0])), maps.mean((2, 3))[[0, 1], [2, 0]])


def test_region_of_volumes():
    volumes = signals(2, (3, 4, 5, 6), dtype=torch.float64)
    masks = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    masks[0, 1, 2:4, 3], masks[1, :, 0, 5] = True, True
    expected = torch.stack([volumes[0, 2][masks[0]].mean(), volumes[1, 0][masks[1]].mean()])
    same(xf.Engine(lambda x: x).scores(volumes, targets.region(masks, [2, 0])), expected)
    # One mask (D, H, W) would be read as D masks of pictures.
    with pytest.raises(ValueError, match=r"or, of volumes, \(N, D, H, W\) of the size of an output"):
        xf.Engine(lambda x: x).scores(volumes, targets.region(masks[0] | True, [2, 0, 1, 1]))


def test_targets_of_the_output_have_short_names():
    """They label pictures."""
    assert repr(targets.similarity(torch.ones(512))) == "similarity(embedding=tensor (1, 512))"
    assert repr(targets.similarity(torch.tensor([0.25, 2]))) == "similarity(embedding=[0.25, 2.0])"
    assert repr(targets.detection(torch.tensor(BOXES[1]), 7)) == "detection(boxes=[5.0, 0.0, 15.0, 10.0], labels=7)"
    assert repr(targets.detection(torch.tensor(BOXES), 7)) == "detection(boxes=tensor (4, 4), labels=7)"
    assert repr(targets.region(torch.ones(8, 9), [1, 2])) == "region(mask=tensor (1, 8, 9), classes=tensor (2,))"


BOX, MASK = torch.tensor(BOXES[0]), torch.ones(4, 5)
REFUSED = {
    "embedding list": (lambda: targets.similarity([1.0, 2.0]), TypeError, "`embedding` came as list"),
    "embedding ints": (lambda: targets.similarity(torch.arange(4)), TypeError, "`embedding` came as torch.int64"),
    "embedding zero": (lambda: targets.similarity(torch.eye(3)[:, :2]), ValueError, "`embedding` is 0 everywhere"),
    "embedding axes": (
        lambda: targets.similarity(torch.ones(2, 3, 4)),
        ValueError,
        r"`embedding` of shape \(2, 3, 4\)",
    ),
    "embedding nan": (lambda: targets.similarity(torch.tensor([torch.nan])), ValueError, "`embedding` .* not finite"),
    "box turned": (lambda: targets.detection(BOX.flip(0), 1), ValueError, "`boxes` came as .* x1 < x2"),
    "box short": (lambda: targets.detection(BOX[:3], 1), ValueError, "`boxes` came as"),
    "no label": (lambda: targets.detection(BOX, None), TypeError, "`labels` came as None"),
    "float label": (lambda: targets.detection(BOX, 1.5), TypeError, "`labels` came as 1.5"),
    "three and two": (
        lambda: targets.detection(torch.stack([BOX] * 3), [1, 2]),
        ValueError,
        "`boxes` 3 and `labels` 2 entries do not belong",
    ),
    "mask empty": (lambda: targets.region(MASK * 0, 1), ValueError, "`mask` .* 0 everywhere"),
    "mask negative": (lambda: targets.region(-MASK, 1), ValueError, "`mask` holds negative"),
    "mask ints": (lambda: targets.region(MASK.long(), 1), TypeError, "`mask` came as torch.int64"),
    "class negative": (lambda: targets.region(MASK, -1), ValueError, "`classes` holds -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_input_could_fit_is_refused_when_it_is_made(name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make()


MISFITS = {
    "width": (
        targets.similarity(torch.ones(4)),
        ValueError,
        r"`embedding` has 4 elements and the model returned \(3, 5\)",
    ),
    "rows": (targets.similarity(torch.ones(2, 5)), ValueError, "`embedding` has 2 entries and there are 3 inputs"),
    "no detector": (targets.detection(BOX, 1), TypeError, "`target` detection needs .* returned Tensor"),
    "no map": (targets.region(MASK, 1), ValueError, r"`mask` is of size \(4, 5\) and the model returned \(3, 5\)"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_the_output_is_an_error_that_says_so(name, model, inputs):
    target, error, message = MISFITS[name]
    with pytest.raises(error, match=message):
        xf.Saliency(model).attribute(inputs, target)


def test_a_class_that_the_segmentation_lacks():
    with pytest.raises(ValueError, match="`classes` holds 9; the model has 3"):
        xf.Engine(lambda x: x).scores(torch.ones(2, 3, 4, 5), targets.region(MASK, 9))
