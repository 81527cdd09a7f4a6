"""Attention of transformers: seen whoever computes it, read where the score is, refused in words elsewhere."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from subjects import Small, signals
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast.core.attention import AttentionWatch, leaf

ROLLOUTS = (xf.AttentionRollout, xf.GradientAttentionRollout)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "of truth": {"attn_mask": drawn(5, 5) > 0},
    "of numbers": {"attn_mask": drawn(2, 1, 5, 5)},
    "hides all": {"attn_mask": torch.arange(5)[:, None] > torch.arange(5)},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", MASKS)
def test_fused_attention_is_what_its_probabilities_make_of_the_values(name):
    query, key, value = drawn(2, 4, 5, 3), drawn(2, 4, 5, 3, seed=1), drawn(2, 4, 5, 6, seed=2)
    if name == "grouped":
        key, value = key[:, :2], value[:, :2]
    expected = functional.scaled_dot_product_attention(query, key, value, **MASKS[name])
    for take in (None, leaf):
        with AttentionWatch(take) as watch:
            mixed = functional.scaled_dot_product_attention(query, key, value, **MASKS[name])
        (found,) = watch.found
        wide = value.repeat_interleave(2, 1) if name == "grouped" else value
        assert torch.allclose(mixed, expected, atol=1e-12)
        assert torch.allclose(found.kept @ wide, expected, atol=1e-12)


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("mask", [None, drawn(5, 5) > 0.8, drawn(6, 5, 5)], ids=["none", "truth", "numbers"])
def test_multi_head_attention(mask, need):
    attention = nn.MultiheadAttention(6, 3, batch_first=True).double().eval().requires_grad_(False)
    tokens = drawn(2, 5, 6)
    expected, weights = attention(tokens, tokens, tokens, need_weights=True, attn_mask=mask, average_attn_weights=False)
    for take in (None, leaf):
        with AttentionWatch(take) as watch:
            mixed, own = attention(tokens, tokens, tokens, need_weights=need, attn_mask=mask)
        assert torch.allclose(mixed, expected, atol=1e-12)
        assert torch.allclose(watch.found[0].kept, weights, atol=1e-12)
        assert (own is None) == (not need)
        assert own is None or torch.allclose(own, weights.mean(1), atol=1e-12)


class Vit(nn.Module):
    """Patches with tokens in front, torch's own encoder layers, a head on the first token or on a mean."""

    def __init__(self, front=1, pool="first", layers=2, heads=2):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 8, 3, 3)
            self.front = nn.Parameter(torch.randn(1, front, 8))
            self.place = nn.Parameter(0.3 * torch.randn(1, 20 + front, 8))
            layer = nn.TransformerEncoderLayer(8, heads, 16, 0.0, "gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
            self.head = nn.Linear(8, 5)
            for weights in self.encoder.parameters():
                if weights.ndim > 1:
                    nn.init.normal_(weights, 0, 0.6)
        self.pool = pool
        self.eval()

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT
        tokens = self.encoder(torch.cat([self.front.expand(len(x), -1, -1), tokens], 1) + self.place)
        return self.head(tokens[:, 0] if self.pool == "first" else tokens[:, self.front.shape[1] :].mean(1))


@contextmanager
def written_out(model):
    """Every `nn.MultiheadAttention` by the formula; gives the list of the layers' probabilities (rows, heads, T, T)."""
    found = []

    def explicit(module, args, _output):
        parts = functional.linear(args[0], module.in_proj_weight, module.in_proj_bias).chunk(3, 2)
        q, k, v = (part.unflatten(2, (module.num_heads, -1)).transpose(1, 2) for part in parts)
        found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        return functional.linear((found[-1] @ v).transpose(1, 2).flatten(2), *module.out_proj.parameters()), None

    parts = [part for part in model.modules() if isinstance(part, nn.MultiheadAttention)]
    handles = [part.register_forward_hook(explicit) for part in parts]
    yield found
    for handle in handles:
        handle.remove()


def rolled_out(model, inputs, target, *, gradient):
    """Row by row, every matrix as the papers have it."""
    maps = []
    for row in inputs.split(1):
        with written_out(model) as found:
            score = model(row)[0, target]
        eye = torch.eye(found[0].shape[-1], dtype=torch.float64)
        slopes, total = torch.autograd.grad(score, found), eye
        for own, slope in zip(found, slopes, strict=True):
            rising = (own * slope).clamp_min(0)[0].mean(0)
            total = total + rising @ total if gradient else (own[0].mean(0) + eye) / 2 @ total
        total, front = total - eye if gradient else total, model.front.shape[1]
        maps.append((total[0] if model.pool == "first" else total[front:].mean(0))[front:].view(1, 4, 5))
    return torch.stack(maps).detach()


@pytest.mark.parametrize(("front", "pool"), [(1, "first"), (3, "first"), (0, "mean"), (2, "mean")])
@pytest.mark.parametrize("method", ROLLOUTS, ids=lambda method: method.__name__)
def test_class_register_and_pooled_tokens_of_torchs_own_encoder(method, front, pool):
    model, inputs = Vit(front, pool).double(), signals(3, (3, 12, 15), torch.float64)
    gradient = method is xf.GradientAttentionRollout
    expected = rolled_out(model, inputs, 2, gradient=gradient)
    assert expected.abs().max() > 1e-4
    for engine in (xf.Engine(model), xf.Engine(model, batch_size=2)):
        actual = method(engine).attribute(inputs, 2, resolution="native")
        assert torch.allclose(actual, expected, atol=1e-12, rtol=1e-9)
    both = method(model).attribute(inputs, torch.tensor([[2, 0]] * 3), resolution="native")
    assert torch.allclose(both[:, 0], expected, atol=1e-12, rtol=1e-9)
    assert torch.equal(both[:, 0], both[:, 1]) == (not gradient)


class Pooled(nn.Module):
    """Tokens that a query of its own pools at the end."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.patches, self.mix = nn.Conv2d(3, 8, 3, 3), nn.Linear(8, 24)
            self.query, self.head = nn.Parameter(torch.randn(1, 1, 1, 8)), nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT
        q, k, v = self.mix(tokens)[:, None].chunk(3, -1)
        tokens = tokens[:, None] + functional.scaled_dot_product_attention(q, k, v)
        query = self.query.expand(len(x), -1, -1, -1)
        return self.head(functional.scaled_dot_product_attention(query, tokens, tokens).flatten(1))


def test_attention_that_pools_the_tokens_comes_last():
    model, inputs = Pooled(), signals(2, (3, 12, 15))
    tokens = model.patches(inputs).flatten(2).mT
    q, k, v = model.mix(tokens).chunk(3, -1)
    first = (q @ k.mT / 8**0.5).softmax(-1)
    tokens = tokens + first @ v
    last = (model.query[0] @ tokens.mT / 8**0.5).softmax(-1)
    expected = last @ (first + torch.eye(20)) / 2
    actual = xf.AttentionRollout(model).attribute(inputs, resolution="native")
    assert torch.allclose(actual, expected.view(2, 1, 4, 5), atol=1e-6)
    assert torch.allclose(actual.sum((2, 3)), torch.ones(2, 1), atol=1e-5)
    assert xf.GradientAttentionRollout(model).attribute(inputs, 1).max() > 0


class Windows(nn.Module):
    def forward(self, x):
        tokens = x.unflatten(2, (2, -1)).permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(2).mT[:, None]
        mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return mixed.mean((1, 2)).unflatten(0, (len(x), 2)).sum(1)


class Blind(nn.Module):
    """Attention among what does not depend on places."""

    def forward(self, x):
        tokens = x.mean((2, 3))[:, None, :, None]
        return functional.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)


@pytest.mark.parametrize("method", ROLLOUTS, ids=lambda method: method.__name__)
def test_what_has_no_such_attention_is_refused_in_words(method):
    inputs = signals(2, (3, 12, 15))
    with pytest.raises(ValueError, match=r"`model`.*no attention among tokens"):
        method(Small()).attribute(inputs)
    with pytest.raises(ValueError, match=r"`model`.*windows or groups"):
        method(Windows()).attribute(inputs)
    with pytest.raises(ValueError, match=r"`model` attends among 3 tokens.*`grid="):
        method(Blind()).attribute(inputs)
    with pytest.raises(ValueError, match=r"`model`.*plain callable"):
        method(lambda x: x.mean((2, 3))).attribute(inputs)
    with pytest.raises(ValueError, match=r"`grid` \(7, 7\).*20"):
        method(Vit(0, "mean"), grid=(7, 7)).attribute(inputs)
    with pytest.raises(TypeError, match=r"`grid`.*function"):
        method(Vit(), grid=torch.flatten)


def test_the_grid_may_be_said():
    model, inputs = Vit(), signals(2, (3, 12, 15))
    expected = xf.AttentionRollout(model).attribute(inputs)
    assert torch.equal(xf.AttentionRollout(model, grid=(4, 5)).attribute(inputs), expected)
    assert xf.AttentionRollout(Blind(), grid=(1, 3)).attribute(inputs, resolution="native").shape == (2, 1, 1, 3)


def test_hugging_face_eager_and_fused(monkeypatch):
    transformers = pytest.importorskip("transformers")
    settings = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "num_labels": 5}
    config = transformers.ViTConfig(**settings, num_hidden_layers=2, intermediate_size=32)
    inputs, maps, attentions = signals(2, (3, 32, 32)), [], ()
    for kind in ("eager", "sdpa"):
        config._attn_implementation = kind
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config).eval()
        maps.append([method(model).attribute(inputs, 1) for method in ROLLOUTS])
        attentions = model(inputs, output_attentions=True).attentions if kind == "eager" else attentions
    for eager, fused in zip(*maps, strict=True):
        assert torch.allclose(eager, fused, atol=1e-6)
    total = torch.eye(17)
    for own in attentions:
        total = (own.mean(1) + torch.eye(17)) / 2 @ total
    actual = xf.AttentionRollout(model).attribute(inputs, resolution="native")
    assert torch.allclose(actual.flatten(1), total[:, 0, 1:], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224"]
)
def test_timm_fused_and_not(name):
    timm = pytest.importorskip("timm")
    settings = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    torch.manual_seed(0)
    model = timm.create_model(name, **settings).eval()
    nn.init.normal_(model.head.weight)
    inputs = signals(2, (3, 64, 64))
    fused = [method(model).attribute(inputs, 1) for method in ROLLOUTS]
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    for method, expected in zip(ROLLOUTS, fused, strict=True):
        assert expected.any()
        assert torch.allclose(method(model).attribute(inputs, 1), expected, atol=1e-6)


def test_torchvision():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=5).eval()
    for method in ROLLOUTS:  # the head of a new one is zero throughout
        assert method(model).attribute(signals(2, (3, 32, 32)), 1).shape == (2, 1, 32, 32)
    nn.init.normal_(model.heads[0].weight)
    assert xf.GradientAttentionRollout(model).attribute(signals(2, (3, 32, 32)), 1).any()
