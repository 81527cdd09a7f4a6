"""AttnLRP: a transformer of three tokens with every rule written out, each library's models, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from subjects import signals
from test_attention import Vit
from torch import nn
from torch.nn import functional

import xai_fast as xf

T, D, H, HIDDEN, CLASSES = 3, 4, 2, 5, 3


class Three(nn.Module):
    """Three pixels become tokens, with places; a block (norm, attention of two heads, norm, GELU); a norm; a head."""

    def __init__(self, bias=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.embed = nn.Linear(2, D, bias=bias)
            self.places = nn.Parameter(torch.randn(T, D) * bias)
            self.norms = nn.ModuleList(nn.LayerNorm(D, elementwise_affine=bias) for _ in range(3))
            self.parts, self.project = nn.Linear(D, 3 * D, bias=bias), nn.Linear(D, D, bias=bias)
            self.up, self.down = nn.Linear(D, HIDDEN, bias=bias), nn.Linear(HIDDEN, D, bias=bias)
            self.head = nn.Linear(D, CLASSES, bias=bias)
            for norm in self.norms:
                if bias:
                    nn.init.normal_(norm.weight, 1, 0.3)
                    nn.init.normal_(norm.bias)
        self.double().eval().requires_grad_(False)

    def forward(self, x):
        tokens = self.embed(x.flatten(2).mT) + self.places
        q, k, v = self.parts(self.norms[0](tokens)).unflatten(2, (3, H, D // H)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.project(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + self.down(functional.gelu(self.up(self.norms[1](tokens))))
        return self.head(self.norms[2](tokens)[:, 0])


class ByHand:
    """The relevance of every number in `Three`, one number at a time; `kept` adds up what never reaches the input."""

    def __init__(self, model):
        self.m, self.kept = model, 0.0

    def __call__(self, x, target):
        m = self.m
        pixels = [[float(x[c, 0, t]) for c in range(2)] for t in range(T)]
        embedded = [self.linear(m.embed, p) for p in pixels]
        start = [[e + float(m.places[t, d]) for d, e in enumerate(embedded[t])] for t in range(T)]
        first = [self.norm(m.norms[0], row) for row in start]
        parts = [self.linear(m.parts, row) for row in first]
        heads = [self.head(parts, h) for h in range(H)]
        mixed = [[heads[d // (D // H)][2][t][d % (D // H)] for d in range(D)] for t in range(T)]
        projected = [self.linear(m.project, row) for row in mixed]
        middle = [[a + b for a, b in zip(start[t], projected[t], strict=True)] for t in range(T)]
        second = [self.norm(m.norms[1], row) for row in middle]
        hidden = [self.linear(m.up, row) for row in second]
        lit = [[0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in row] for row in hidden]
        added = [self.linear(m.down, row) for row in lit]
        end = [[a + b for a, b in zip(middle[t], added[t], strict=True)] for t in range(T)]
        last = self.norm(m.norms[2], end[0])
        scores = self.linear(m.head, last)

        told = [scores[k] if k == target else 0.0 for k in range(CLASSES)]
        r_end = self.norm_back(m.norms[2], end[0], self.linear_back(m.head, last, scores, told))
        r_middle, r_start = [], []
        for t in range(T):
            own = r_end if t == 0 else [0.0] * D
            of_added = [r * a / e for r, a, e in zip(own, added[t], end[t], strict=True)]
            r_lit = self.linear_back(m.down, lit[t], added[t], of_added)  # of GELU, one to one
            r_second = self.linear_back(m.up, second[t], hidden[t], r_lit)
            below = self.norm_back(m.norms[1], middle[t], r_second)
            r_middle.append([r - a + b for r, a, b in zip(own, of_added, below, strict=True)])
        r_parts = [[0.0] * (3 * D) for _ in range(T)]
        for t in range(T):
            of_projected = [r * p / m_ for r, p, m_ in zip(r_middle[t], projected[t], middle[t], strict=True)]
            r_start.append([r - o for r, o in zip(r_middle[t], of_projected, strict=True)])
            self.head_back(heads, parts, t, self.linear_back(m.project, mixed[t], projected[t], of_projected), r_parts)
        result = torch.zeros(2, 1, T, dtype=torch.float64)
        for t in range(T):
            r_first = self.linear_back(m.parts, first[t], parts[t], r_parts[t])
            below = self.norm_back(m.norms[0], start[t], r_first)
            total = [a + b for a, b in zip(r_start[t], below, strict=True)]
            of_embedded = [r * e / s for r, e, s in zip(total, embedded[t], start[t], strict=True)]
            self.kept += sum(total) - sum(of_embedded)  # places
            below = self.linear_back(m.embed, pixels[t], embedded[t], of_embedded)
            result[:, 0, t] = torch.tensor(below, dtype=torch.float64)
        return result, scores[target]

    @staticmethod
    def linear(layer, x):
        bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
        return [
            b + sum(w * a for w, a in zip(row, x, strict=True))
            for row, b in zip(layer.weight.tolist(), bias, strict=True)
        ]

    def linear_back(self, layer, x, z, relevance):
        weight = layer.weight.tolist()
        below = [sum(weight[k][i] * x[i] * relevance[k] / z[k] for k in range(len(z))) for i in range(len(x))]
        self.kept += sum(relevance) - sum(below)
        return below

    @staticmethod
    def spread(norm, x):
        mean = sum(x) / D
        return mean, math.sqrt(sum((a - mean) ** 2 for a in x) / D + norm.eps)

    def norm(self, norm, x):
        mean, deviation = self.spread(norm, x)
        weight, bias = ([1.0] * D, [0.0] * D) if norm.weight is None else (norm.weight.tolist(), norm.bias.tolist())
        return [(a - mean) / deviation * w + b for a, w, b in zip(x, weight, bias, strict=True)]

    def norm_back(self, norm, x, relevance):
        """By the division one to one; the mean that is taken away, the weight and the bias are linear."""
        mean, _deviation = self.spread(norm, x)
        y = self.norm(norm, x)
        bias = [0.0] * D if norm.bias is None else norm.bias.tolist()
        scaled = [r * (a - b) / a for r, a, b in zip(relevance, y, bias, strict=True)]
        self.kept += sum(relevance) - sum(scaled)
        per_unit = [r / (a - mean) for r, a in zip(scaled, x, strict=True)]
        return [x[i] * sum(((i == j) - 1 / D) * per_unit[j] for j in range(D)) for i in range(D)]

    @staticmethod
    def head(parts, h):
        width = D // H
        q, k, v = ([row[s * D + h * width : s * D + (h + 1) * width] for row in parts] for s in range(3))
        logits = [[sum(a * b for a, b in zip(i, j, strict=True)) / math.sqrt(width) for j in k] for i in q]
        shares = [[math.exp(z) / sum(math.exp(y) for y in row) for z in row] for row in logits]
        mixed = [[sum(shares[i][j] * v[j][d] for j in range(T)) for d in range(width)] for i in range(T)]
        return logits, shares, mixed, q, k, v

    def head_back(self, heads, parts, i, relevance, into):
        """What query i looked at: half to values, half to shares, by the softmax to logits, of which half to each."""
        width = D // H
        for h, (logits, shares, mixed, q, k, v) in enumerate(heads):
            own = relevance[h * width : (h + 1) * width]
            of_share = [0.0] * T
            for j in range(T):
                for d in range(width):
                    part = own[d] * shares[i][j] * v[j][d] / mixed[i][d]
                    of_share[j] += part / 2
                    into[j][2 * D + h * width + d] += part / 2
            of_logit = [logits[i][j] * (of_share[j] - shares[i][j] * sum(of_share)) for j in range(T)]
            self.kept += sum(of_share) - sum(of_logit)
            for j in range(T):
                for d in range(width):
                    part = of_logit[j] * q[i][d] * k[j][d] / math.sqrt(width) / logits[i][j]
                    into[i][h * width + d] += part / 2
                    into[j][D + h * width + d] += part / 2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("target", range(CLASSES))
def test_three_tokens_by_hand_and_what_is_kept_on_the_way(bias, target):
    model, inputs = Three(bias), signals(2, (2, 1, T), torch.float64)
    actual = xf.AttnLRP(model).attribute(inputs, target)
    for row, values in zip(inputs, actual, strict=True):
        by_hand = ByHand(model)
        expected, score = by_hand(row, target)
        assert abs(score - model(row[None])[0, target].item()) < 1e-12
        assert torch.allclose(values, expected, rtol=1e-9, atol=1e-12)
        assert abs(values.sum().item() + by_hand.kept - score) < 1e-9  # nothing is lost, nothing comes from nowhere


class Attending(nn.Module):
    """No bias anywhere, shares that do not depend on the input: all of the score comes back."""

    def __init__(self):
        super().__init__()
        self.norm, self.up = nn.LayerNorm(6, eps=0.0, elementwise_affine=False), nn.Linear(6, 8, bias=False)
        self.rms, self.head = nn.RMSNorm(8), nn.Linear(8, 4, bias=False)

    def forward(self, x):
        tokens = self.norm(x.flatten(2).mT)
        tokens = functional.silu(self.up(tokens))
        tokens = tokens * tokens.mean(1, keepdim=True)  # of two parts
        return self.head(functional.normalize(self.rms(tokens).mean(1)))


def test_products_normalisations_and_activations_keep_all_of_it():
    torch.manual_seed(0)
    model, inputs = Attending().double(), signals(3, (6, 2, 3), torch.float64)
    explanation = xf.AttnLRP(model)(inputs, 1)
    assert torch.allclose(explanation.values.sum((1, 2, 3)), explanation.score, rtol=1e-6)  # RMSNorm has an epsilon


class Quick(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.linear, self.gate = nn.Linear(6, 6, bias=False), gate

    def forward(self, x):
        return self.gate(self.linear(x.flatten(1)))


def quick(x):
    return x * torch.sigmoid(1.702 * x)


def test_a_gelu_by_its_own_sigmoid_is_one_function():
    torch.manual_seed(0)
    inputs = signals(2, (6, 1, 1))
    for gate in (quick, lambda x: torch.sigmoid(x * 1.702) * x, lambda x: x * x.sigmoid()):
        model = Quick(gate)
        explanation = xf.AttnLRP(model)(inputs, 1)
        expected = inputs[:, :, 0, 0] * model.linear.weight[1]
        expected = expected * (explanation.score / expected.sum(1))[:, None]
        assert torch.allclose(explanation.values[:, :, 0, 0], expected.detach(), atol=1e-6)


UNCOVERED = {
    "another's sigmoid": (lambda x: x * x.flip(1).sigmoid(), "Sigmoid"),
    "division": (lambda x: x / x.square().sum(1, keepdim=True), "division"),
    "power": (lambda x: x**3, "Pow"),
    "exponential": (lambda x: x.exp(), "Exp"),
    "in place": (lambda x: functional.silu(x * 1, inplace=True), "Silu"),
    "three factors": (lambda x: torch.einsum("ni,ni,ni->ni", x, x, x), "both depend"),
    "statistics": (
        lambda x: functional.batch_norm(x.view(-1, 3, 2), None, None, training=True).flatten(1),
        "batch normalisation",
    ),
    "function": (lambda x: Own.apply(x), "Own"),
}


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.filterwarnings("ignore:rows of a batch depend on each other")
@pytest.mark.parametrize("name", UNCOVERED)
def test_what_has_no_rule_is_refused_in_words(name):
    gate, word = UNCOVERED[name]
    with pytest.raises(ValueError, match=rf"`model` cannot be explained by AttnLRP: its forward has .*{word}"):
        xf.AttnLRP(Quick(gate)).attribute(signals(2, (6, 1, 1)), 1)


def test_weights_that_ask_for_gradients_are_not_taken_for_inputs():
    model = Quick(torch.tanh)
    with pytest.raises(ValueError, match="weights that ask for gradients"):
        xf.AttnLRP(lambda x: model(x)).attribute(signals(2, (6, 1, 1)), 1)


def ruled(x):
    """Half of a gradient."""
    return 0.5 * x + 0.5 * x.detach()


class Norm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + self.norm.eps).sqrt()
        return centred / deviation.detach() * self.norm.weight + self.norm.bias


class Gelu(nn.Module):
    def forward(self, x):
        return x * (functional.gelu(x) / x).detach()


def with_rules(model):
    """Norms and activations of a model in place of which the rules stand."""
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.LayerNorm):
                setattr(parent, name, Norm(part))
            elif type(part).__name__ in ("GELU", "GELUActivation"):
                setattr(parent, name, Gelu())
    return model


def close(actual, inputs, score, bound=1e-9):
    (gradient,) = torch.autograd.grad(score.sum(), inputs)
    expected = (inputs * gradient).detach()
    assert expected.abs().max() > 1e-4
    assert (actual - expected).abs().max() < bound * expected.abs().max()


def explicit(module, args, _output):
    """An `nn.MultiheadAttention` with both products halved."""
    parts = functional.linear(args[0], module.in_proj_weight, module.in_proj_bias).chunk(3, 2)
    q, k, v = (ruled(part).unflatten(2, (module.num_heads, -1)).transpose(1, 2) for part in parts)
    mixed = ruled((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)) @ v
    return functional.linear(mixed.transpose(1, 2).flatten(2), *module.out_proj.parameters()), None


def test_torchvision():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=5).eval().double()
    nn.init.normal_(model.heads[0].weight)
    inputs = signals(2, (3, 32, 32), torch.float64)
    actual = xf.AttnLRP(model).attribute(inputs, 1)
    for part in with_rules(model).modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_hook(explicit)
    inputs.requires_grad_()
    close(actual, inputs, model(inputs)[:, 1])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_timm_fused_and_not(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    model = timm.create_model(name, **sizes).eval().double()
    for weight in (model.head.weight, *(part.gamma for part in model.modules() if hasattr(part, "gamma"))):
        nn.init.normal_(weight)
    inputs, actual = signals(2, (3, 64, 64), torch.float64), []
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        actual.append(xf.AttnLRP(model).attribute(inputs, 1))
    for block in with_rules(model).blocks:
        block.attn.qkv.register_forward_hook(lambda _module, _args, output: ruled(output))
        block.attn.attn_drop.register_forward_hook(lambda _module, _args, output: ruled(output))
    inputs.requires_grad_()
    score = model(inputs)[:, 1]
    close(actual[0], inputs, score)
    assert torch.allclose(*actual, rtol=1e-9, atol=1e-12)


def test_hugging_face_eager_and_fused():
    transformers = pytest.importorskip("transformers")
    settings = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "num_labels": 5}
    config = transformers.ViTConfig(**settings, num_hidden_layers=2, intermediate_size=32)
    inputs, maps = signals(2, (3, 32, 32), torch.float64), []

    def made(kind):
        config._attn_implementation = kind
        torch.manual_seed(0)
        return transformers.ViTForImageClassification(config).eval().double()

    def halved(module, query, key, value, *_args, **_kwargs):
        q, k, v = map(ruled, (query, key, value))
        return (ruled((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)) @ v).transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register("halved", halved)
    for kind in ("sdpa", "eager"):
        maps.append(xf.AttnLRP(made(kind)).attribute(inputs, 1))
    inputs.requires_grad_()
    score = with_rules(made("halved"))(inputs).logits[:, 1]
    close(maps[0], inputs, score)
    assert torch.allclose(*maps, rtol=1e-5, atol=1e-7)  # the eager one's softmax is in float32


def test_a_transformer_of_torchs_own_layers_and_a_layer_of_it():
    model, inputs = Vit(layers=2).double(), signals(2, (3, 12, 15), torch.float64)
    at_layer = xf.AttnLRP(model, layer="encoder.layers.1").attribute(inputs, 1)
    whole = xf.AttnLRP(model).attribute(inputs, 1)
    assert at_layer.shape == (2, 21, 8)
    bias = model.head.bias[1].item()
    # Behind the last block there is a linear layer alone.
    assert torch.allclose(at_layer.sum((1, 2)), model(inputs)[:, 1].detach() - bias)
    assert whole.shape == inputs.shape
    assert not torch.allclose(whole, xf.InputXGradient(model).attribute(inputs, 1))
