"""LeGrad: every block's score is that of the model that ends with it, in each library, however the tail is built."""

from __future__ import annotations

import copy

import pytest
import torch
from subjects import signals
from test_attention import Pooled, Vit, written_out
from torch import nn

import xai_fast as xf
from xai_fast.engine import tiers


def by_the_paper(shorter, attention_of, inputs, target, depth, front, grid):
    """Row by row: `shorter(l)` is the model that ends with block l, `attention_of` also says its last attention."""
    maps = []
    for row in inputs.split(1):
        total = 0
        for block in range(1, depth + 1):
            scores, last = attention_of(shorter(block), row)
            (gradient,) = torch.autograd.grad(scores[0, target], last)
            total = total + gradient.clamp_min(0).mean((1, 2))[0, front:] / depth
        maps.append(total.view(1, *grid))
    return torch.stack(maps)


def of_multi_head(model, row):
    with written_out(model) as found:
        scores = model(row)
    return scores, found[-1]


def cut(model, container, count):
    """The model with the first `count` of its blocks."""
    model = copy.deepcopy(model)
    parent, _, name = container.rpartition(".")
    holder = model.get_submodule(parent)
    setattr(holder, name, getattr(holder, name)[:count])
    return model


def close(actual, expected, bound=1e-10):
    assert expected.abs().max() > 1e-4
    assert (actual - expected).abs().max() < bound * expected.abs().max()


@pytest.mark.parametrize(("front", "pool"), [(1, "first"), (3, "first"), (0, "mean"), (2, "mean")])
def test_class_register_and_pooled_tokens(front, pool):
    model, inputs = Vit(front, pool, layers=3).double(), signals(3, (3, 12, 15), torch.float64)

    def replica(target):
        return by_the_paper(
            lambda l: cut(model, "encoder.layers", l), of_multi_head, inputs, target, 3, front, (4, 5)
        ).detach()

    for engine in (xf.Engine(model), xf.Engine(model, batch_size=2)):
        close(xf.LeGrad(engine).attribute(inputs, 2, resolution="native"), replica(2))
    both = xf.LeGrad(model).attribute(inputs, torch.tensor([[2, 0]] * 3), resolution="native")
    close(both[:, 0], replica(2))
    close(both[:, 1], replica(0))


class Marked(Vit):
    """The tail reads the input, beside the last block's tokens."""

    def forward(self, x):
        return super().forward(x) * x[:, :1].mean((2, 3))


class Mixed(Vit):
    """The tail compares rows of the batch, so that each has to run alone."""

    def forward(self, x):
        scores = super().forward(x)
        return scores * (1 + scores.mean())


class Wrapped(Vit):
    """The tail insists on as many rows as there were inputs."""

    def forward(self, x):
        return {"logits": super().forward(x).view(len(x), 5)}


@pytest.mark.filterwarnings("ignore:rows of a batch depend on each other")
@pytest.mark.parametrize("kind", [Marked, Mixed, Wrapped])
@pytest.mark.parametrize("tier", ["plain", "prepared"])
def test_a_tail_that_does_not_take_further_rows_runs_once_per_block(kind, tier):
    model, inputs = kind(layers=3).double(), signals(3, (3, 12, 15), torch.float64)

    def attention_of(model, row):
        scores, last = of_multi_head(model, row)
        return (scores["logits"] if isinstance(scores, dict) else scores), last

    expected = by_the_paper(lambda l: cut(model, "encoder.layers", l), attention_of, inputs, 1, 3, 1, (4, 5)).detach()
    with tiers.assuming(tier):
        method = xf.LeGrad(model)
        for _ in range(2):
            close(method.attribute(inputs, 1, resolution="native"), expected)


def test_the_last_blocks_alone():
    model, inputs = Vit(layers=3), signals(2, (3, 12, 15))
    one, two, every = (xf.LeGrad(model, blocks=n).attribute(inputs, 1) for n in (1, 2, None))
    assert torch.equal(every, xf.LeGrad(model, blocks=3).attribute(inputs, 1))
    assert not torch.allclose(one, two)
    with pytest.raises(ValueError, match=r"`blocks` came as 4, and this model has 3"):
        xf.LeGrad(model, blocks=4).attribute(inputs, 1)
    with pytest.raises(ValueError, match=r"`blocks` came as 0"):
        xf.LeGrad(model, blocks=0)
    with pytest.raises(TypeError, match="`blocks`"):
        xf.LeGrad(model, blocks=1.5)


def test_attention_that_pools_at_the_end_is_no_block():
    model, inputs = Pooled().double(), signals(2, (3, 12, 15), torch.float64)
    values = xf.LeGrad(model).attribute(inputs, 1, resolution="native")
    expected = []
    for row in inputs.split(1):
        tokens = model.patches(row).flatten(2).mT
        q, k, v = model.mix(tokens).chunk(3, -1)
        own = (q @ k.mT / 8**0.5).softmax(-1)
        tokens = tokens + own @ v
        pooled = (model.query[0] @ tokens.mT / 8**0.5).softmax(-1) @ tokens
        (gradient,) = torch.autograd.grad(model.head(pooled.flatten(1))[0, 1], own)
        expected.append(gradient.clamp_min(0).mean(1).view(1, 4, 5))
    close(values, torch.stack(expected))


class Tied(nn.Module):
    """One block that runs twice."""

    def __init__(self):
        super().__init__()
        self.vit = Vit(layers=1)

    def forward(self, x):
        tokens = self.vit.patches(x).flatten(2).mT
        return self.vit.head(self.vit.encoder(self.vit.encoder(tokens)).mean(1))


def test_what_has_no_blocks_is_refused_in_words():
    inputs = signals(2, (3, 12, 15))
    with pytest.raises(ValueError, match=r"`model` has 2 attentions.*not each in a module of its own"):
        xf.LeGrad(Tied()).attribute(inputs, 1)
    with pytest.raises(ValueError, match=r"`model` cannot be explained by its attention"):
        xf.LeGrad(nn.Sequential(nn.Flatten(), nn.Linear(540, 3))).attribute(inputs, 1)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_timm_fused_and_not(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=64, embed_dim=24, depth=3, num_heads=3, num_classes=5).eval().double()
    for head in (model.head, getattr(model, "head_dist", None)):
        if head is not None:
            nn.init.normal_(head.weight)
    inputs = signals(2, (3, 64, 64), torch.float64)

    def attention_of(model, row):
        found, last = [], model.blocks[-1].attn
        last.fused_attn = False
        last.attn_drop.register_forward_hook(lambda _module, _args, output: found.append(output))
        return model(row), found[0]

    front = model.num_prefix_tokens
    expected = by_the_paper(lambda l: cut(model, "blocks", l), attention_of, inputs, 1, 3, front, (4, 4)).detach()
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        close(xf.LeGrad(model).attribute(inputs, 1, resolution="native"), expected)


def test_torchvision():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 32, num_classes=5).eval().double()
    nn.init.normal_(model.heads[0].weight)
    inputs = signals(2, (3, 32, 32), torch.float64)
    expected = by_the_paper(lambda l: cut(model, "encoder.layers", l), of_multi_head, inputs, 1, 3, 1, (4, 4)).detach()
    close(xf.LeGrad(model).attribute(inputs, 1, resolution="native"), expected)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_hugging_face(kind):
    transformers = pytest.importorskip("transformers")
    settings = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "num_labels": 5}

    def made(depth, kind):
        config = transformers.ViTConfig(**settings, num_hidden_layers=depth, intermediate_size=32)
        config._attn_implementation = kind
        return transformers.ViTForImageClassification(config).eval().double()

    torch.manual_seed(0)
    model, inputs = made(3, kind), signals(2, (3, 32, 32), torch.float64)

    def shorter(depth):
        short = made(depth, "eager")
        short.load_state_dict(model.state_dict(), strict=False)
        return short

    def attention_of(model, row):
        output = model(row, output_attentions=True)
        return output.logits, output.attentions[-1]

    expected = by_the_paper(shorter, attention_of, inputs, 1, 3, 1, (4, 4)).detach()
    close(xf.LeGrad(model).attribute(inputs, 1, resolution="native"), expected, 1e-6)  # its own softmax is in float32
