"""The helpers' own promise: networks that tell photos apart, the same ones each time, and no trace in global state."""

import networks
import pytest
import torch
from networks import awakened, odd_network, photos, trained_resnet18

NAMES = {
    "resnet18": {},
    "resnet50": {},
    "mobilenet_v3_small": {},
    "densenet121": {},
    "vgg11": {"num_classes": 10},
    "convnext_tiny": {},
    "vit_b_16": {"image_size": 64},
    "swin_t": {},
}


SLOW = ("densenet121", "convnext_tiny", "swin_t")


def correlation(logits):
    return torch.corrcoef(logits)[0, 1].item()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
@torch.inference_mode()
def test_awakened_networks_tell_photos_apart(name):
    model = awakened(name, **NAMES[name])
    inputs = photos(2, size=NAMES[name].get("image_size", 96))
    logits = model(inputs)
    assert logits.isfinite().all()
    assert 0.1 < logits.std() < 10
    assert correlation(logits) < 0.9
    if name in ("resnet18", "vit_b_16"):
        wide = model.double()(inputs.double())
        assert correlation(wide) < 0.9
        torch.testing.assert_close(wide.float(), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_awakened_networks_listen_to_every_part_of_a_photo(name):
    model = awakened(name, **NAMES[name])
    inputs = photos(1, size=64).requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs)[0, 3], inputs)
    parts = gradient.unflatten(2, (4, 16)).unflatten(4, (4, 16)).square().sum((0, 1, 3, 5)).sqrt()
    assert parts.min() > 0.02 * parts.max()


def test_copies_are_fresh_and_seeds_matter():
    first, second, other = awakened("resnet18"), awakened("resnet18"), awakened("resnet18", seed=1)
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    with torch.no_grad():
        first.fc.weight.zero_()
    assert awakened("resnet18").fc.weight.any()


def test_global_generator_is_left_alone():
    networks._awakened.cache_clear()
    before = torch.get_rng_state()
    awakened("resnet18")
    odd_network(seed=5)
    assert torch.equal(before, torch.get_rng_state())


@torch.inference_mode()
def test_the_odd_network_is_awake_at_odd_sizes():
    output = odd_network()(photos(2, 48)[:, :2, :37, :29])
    assert (output["logits"].shape, output["aux"].shape) == ((2, 5), (2, 3))
    assert correlation(output["logits"]) < 0.9
    assert odd_network().double()(photos(1, 17)[:, :2].double())["logits"].dtype == torch.float64


def test_photos_are_normalised_copies():
    batch = photos(24, size=32)
    assert batch.shape == (24, 3, 32, 32)
    assert batch.mean().abs() < 1
    assert torch.equal(batch[12], batch[0].flip(2))
    batch.zero_()
    assert photos(1, size=32).any()
    with pytest.raises(ValueError, match="`n` is 25"):
        photos(25)


@pytest.mark.slow
def test_trained_resnet18_recognises_fresh_crops():
    assert networks.accuracy(trained_resnet18()) > 0.85


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_FAST_CACHE", str(tmp_path))
    assert networks.cache_folder() == tmp_path
    monkeypatch.delenv("XAI_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert networks.cache_folder() == tmp_path / "xai_fast"
