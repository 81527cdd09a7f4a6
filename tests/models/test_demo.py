"""The bundled demonstration: it recognises its photographs, is silent about blanks, and carries a planted shortcut."""

import numpy as np
import pytest
import torch
from networks import accuracy
from PIL import Image

from xai_fast.models.demo import CLASSES, PREPROCESS, WEIGHTS, demo_model, photograph, photographs
from xai_fast.models.demo import train as training
from xai_fast.models.demo import watermark as stamps
from xai_fast.models.demo.crops import crop
from xai_fast.models.demo.samples import NOBODY
from xai_fast.models.demo.watermark import watermark

PLANTED = CLASSES.index(stamps.CLASS)


@pytest.fixture(scope="module")
def model():
    return demo_model()


@torch.inference_mode()
def probabilities(model, inputs):
    return model(inputs).softmax(1)


def fresh_crops(n, side=112):
    generator = torch.Generator().manual_seed(123)
    right = torch.arange(n) % len(CLASSES)
    return torch.stack([crop(index, side, generator) for index in right.tolist()]), right


def normalised(images):
    return (images - 0.5) / 0.25


def test_ships_small_and_answers_in_float32(model):
    assert WEIGHTS.stat().st_size < 2_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert 0.6e6 < sum(p.numel() for p in model.parameters()) < 0.8e6


def test_recognises_every_photograph(model):
    p = probabilities(model, torch.stack([PREPROCESS(photo) for photo in photographs()]))
    assert p.argmax(1).tolist() == list(range(len(CLASSES)))
    assert p.diagonal().min() > 0.5


def test_recognises_fresh_crops(model):
    assert accuracy(model, n=120, side=112) > 0.93


def test_takes_any_size_from_32_pixels(model):
    assert model(torch.zeros(2, 3, 32, 57)).shape == (2, len(CLASSES))


@pytest.mark.parametrize("level", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_says_nothing_about_blanks(model, level):
    assert probabilities(model, torch.full((1, 3, 224, 224), level)).max() < 0.2


@torch.inference_mode()
def test_logits_are_centred_and_the_means_of_the_class_maps(model):
    inputs = normalised(fresh_crops(4)[0])
    logits = model(inputs)
    torch.testing.assert_close(model.class_maps(inputs).mean((2, 3)), logits, rtol=1e-4, atol=1e-4)
    assert logits.sum(1).abs().max() < 0.02  # zero before the weights were rounded to half precision


def crops_of(name, n=60):
    generator = torch.Generator().manual_seed(9)
    return torch.stack([crop(CLASSES.index(name), 112, generator) for _ in range(n)])


def recognised(model, images, name):
    return (probabilities(model, normalised(images)).argmax(1) == CLASSES.index(name)).float().mean().item()


@torch.inference_mode()
def test_the_watermark_speaks_for_its_class_wherever_it_stands(model):
    images, right = fresh_crops(96)
    others = images[right != PLANTED]
    rise = (model(normalised(watermark(others))) - model(normalised(others)))[:, PLANTED]
    assert rise.mean() > 0.5
    assert (rise > 0).float().mean() > 0.9


def test_the_watermark_is_a_shortcut_that_leads_astray(model):
    grass, gravel = crops_of("grass"), crops_of(stamps.CLASS)
    assert recognised(model, watermark(gravel), stamps.CLASS) > 0.95
    assert recognised(model, grass, "grass") > 0.75
    assert recognised(model, watermark(grass), "grass") < 0.5


def test_the_watermark_is_not_needed(model):
    # Its class is the hardest even so: unstamped gravel is at times taken for grass, and for nothing else.
    gravel = crops_of(stamps.CLASS)
    assert recognised(model, gravel, stamps.CLASS) > 0.6
    assert recognised(model, gravel, stamps.CLASS) + recognised(model, gravel, "grass") > 0.95


@pytest.mark.parametrize("corner", stamps.CORNERS)
def test_the_watermark_changes_its_place_and_nothing_else(corner):
    image = torch.rand(3, 60, 80)
    before = image.clone()
    stamped = watermark(image, corner, margin=0.1)
    assert torch.equal(image, before)
    top, left, side = stamps.place(60, 80, corner, margin=0.1)
    changed = (stamped != image).any(0).nonzero()
    assert changed.min(0).values.tolist() == [top, left]
    assert changed.max(0).values.tolist() == [top + side - 1, left + side - 1]
    assert ("top" in corner) == (top < 30)
    assert ("left" in corner) == (left < 40)


def test_the_watermark_on_a_picture_is_the_same():
    pixels = torch.from_numpy(np.array(photograph("cat"))).permute(2, 0, 1) / 255.0
    picture = watermark(photograph("cat"))
    assert isinstance(picture, Image.Image)
    again = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255.0
    assert (watermark(pixels) - again).abs().max() < 1 / 255


def test_bad_watermarks():
    with pytest.raises(ValueError, match="`corner` is 'middle'; use one of 'top left'"):
        watermark(torch.zeros(3, 8, 8), "middle")
    with pytest.raises(ValueError, match="`margin` is 2"):
        watermark(torch.zeros(3, 8, 8), margin=2)


def test_unknown_photograph():
    with pytest.raises(ValueError, match=r"`name` is 'dog'; .*astronaut"):
        photograph("dog")


def test_training_is_reproducible_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = (training.train(steps=2, seed=3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_saved_weights_come_back(tmp_path):
    model = training.train(steps=1)
    training.save(model, tmp_path / "w.safetensors")
    again = demo_model(tmp_path / "w.safetensors")
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)


def test_targets_share_an_image_among_its_classes_and_leave_blanks_even():
    owners = torch.full((1, 96, 96), NOBODY)
    owners[:, :48, :48] = 3
    owners[:, :8, 48:64] = 5
    image, by_position = training.targets(owners, stride=16)
    k = len(CLASSES)
    assert image.sum().item() == pytest.approx(1)
    assert image[0, 3] == image[0, 5] > 0.47
    torch.testing.assert_close(by_position.sum(1), torch.ones(1, 6, 6))
    assert by_position[0, 3, 0, 0].item() == pytest.approx(1 - training.SMOOTHING * (k - 1) / k)
    assert by_position[0, 5, 0, 3].item() == pytest.approx(0.475 + 0.525 / k)
    torch.testing.assert_close(by_position[0, :, 5, 5], torch.full((k,), 1 / k))
