"""Small networks of timm and Hugging Face, random and awake: CAMs and rollouts against plain float64, or a refusal."""

from __future__ import annotations

import pytest
import torch
from subjects import signals
from torch import nn

import xai_fast as xf

SIDE = 64


def awakened(model):
    """Weights large enough for every layer to matter, and biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, 0, 1.5 / weight[0].numel() ** 0.5)
            elif name.endswith("bias"):
                nn.init.normal_(weight, 0, 0.2)
            else:
                nn.init.uniform_(weight, 0.6, 1.4)
    return model.eval().double()


def of_timm(name, **settings):
    timm = pytest.importorskip("timm")
    return awakened(timm.create_model(name, num_classes=5, **settings))


def of_hugging_face(kind, **settings):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=5, image_size=SIDE, **settings)
    return awakened(getattr(transformers, f"{kind}ForImageClassification")(config))


VIT = {"img_size": SIDE, "embed_dim": 24, "depth": 2, "num_heads": 3}
HF_BLOCKS = {"patch_size": 16, "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2}
HF_VIT = {**HF_BLOCKS, "intermediate_size": 48}
# Of each the maker, a layer, and the tokens before its grid; None for channels first, "last" for channels last.
NETWORKS = {
    "timm DeiT": (lambda: of_timm("deit_tiny_patch16_224", **VIT), "blocks.1.norm1", 1),
    "timm DINOv2, registers": (
        lambda: of_timm("vit_small_patch14_reg4_dinov2", patch_size=16, **VIT),
        "blocks.1.norm1",
        5,
    ),
    "timm Swin": (
        lambda: of_timm(
            "swin_tiny_patch4_window7_224", img_size=SIDE, embed_dim=12, depths=(2, 2), num_heads=(2, 2), window_size=4
        ),
        "layers.1",
        "last",
    ),
    "timm ConvNeXt": (lambda: of_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)), "stages.3", None),
    "DeiT": (lambda: of_hugging_face("DeiT", **HF_VIT), "deit.layers.1.layernorm_before", 2),
    "DINOv2, registers": (
        lambda: of_hugging_face("Dinov2WithRegisters", num_register_tokens=4, mlp_ratio=2, **HF_BLOCKS),
        "dinov2_with_registers.encoder.layer.1.norm1",
        5,
    ),
    "Swin": (
        lambda: of_hugging_face("Swin", patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4),
        "swin.layernorm",
        0,
    ),
    "ConvNext": (
        lambda: of_hugging_face("ConvNext", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]),
        "convnext.encoder.stages.3",
        None,
    ),
}


def read_as_grid(layer, front):
    """(N, C, h, w) of what a layer returned."""
    if front is None:
        return layer
    if front == "last":
        return layer.movedim(-1, 1)
    tokens = layer[:, front:].mT
    return tokens.unflatten(2, (int(tokens.shape[2] ** 0.5), -1))


def scores_of(model, inputs):
    output = model(inputs)
    return output if isinstance(output, torch.Tensor) else output.logits


def by_autograd(model, layer, front, inputs, score_of):
    """The layer's activation and the score's gradient by it, as grids."""
    found = []

    def keep(_module, _args, output):
        found.append(output if isinstance(output, torch.Tensor) else output[0])

    handle = model.get_submodule(layer).register_forward_hook(keep)
    score = score_of(inputs.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(score.sum(), found[0])
    return read_as_grid(found[0].detach(), front), read_as_grid(gradient, front)


def close(actual, expected, bound=1e-9):
    assert expected.abs().max() > 1e-6
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < bound * expected.abs().max()


def cams_are_their_formulas(model, layer, front, inputs, target, score_of):
    at, gradient = by_autograd(model, layer, front, inputs, score_of)
    weighted = (gradient.mean((2, 3), keepdim=True) * at).sum(1, keepdim=True)
    positive = (gradient.clamp_min(0) * at).sum(1, keepdim=True)

    def grid(
        tokens,
    ):  # weights as large as these mix tokens so far that it is not always to be told from how they answer
        return read_as_grid(tokens, front)

    for method, expected in ((xf.GradCAM, weighted), (xf.LayerCAM, positive)):
        actual = method(model, layer=layer, grid=grid, signed=True).attribute(inputs, target, resolution="native")
        close(actual, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_cams_are_their_formulas_in_float64(name):
    make, layer, front = NETWORKS[name]
    model, inputs = make(), signals(2, (3, SIDE, SIDE), torch.float64)
    cams_are_their_formulas(model, layer, front, inputs, 1, lambda x: scores_of(model, x)[:, 1])
    assert xf.LayerCAM(model).attribute(inputs, 1).shape == (2, 1, SIDE, SIDE)  # at a layer that is found


@pytest.mark.parametrize("name", [name for name, (_, _, front) in NETWORKS.items() if isinstance(front, int) and front])
def test_rollout_is_the_product_of_the_matrices(name):
    make, _, front = NETWORKS[name]
    model, inputs, found = make(), signals(2, (3, SIDE, SIDE), torch.float64), []
    actual = xf.AttentionRollout(model).attribute(inputs, resolution="native")
    if name.startswith("timm"):
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda _module, _args, output: found.append(output))
        model(inputs)
    else:
        model.set_attn_implementation("eager")
        found = model(inputs, output_attentions=True).attentions
    eye = torch.eye(found[0].shape[-1], dtype=torch.float64)
    total = eye
    for own in found:
        total = (own.double().mean(1) + eye) / 2 @ total
    read = [0, *range(front, len(eye))] if name.startswith("DINO") else [0]  # its head takes the patches' mean as well
    close(actual.flatten(1), total[:, read, front:].mean(1).detach(), 1e-9 if name.startswith("timm") else 1e-5)


@pytest.mark.parametrize("name", ["timm Swin", "timm ConvNeXt", "Swin", "ConvNext"])
def test_what_does_not_attend_among_all_tokens_is_refused_in_words(name):
    with pytest.raises(ValueError, match="`model` cannot be explained by its attention"):
        xf.AttentionRollout(NETWORKS[name][0]()).attribute(signals(1, (3, SIDE, SIDE), torch.float64))


def clip_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(image_size=SIDE, projection_dim=7, **HF_VIT)
    return awakened(transformers.CLIPVisionModelWithProjection(config))


def clip_of_timm():
    timm = pytest.importorskip("timm")
    return awakened(timm.create_model("vit_base_patch16_clip_224", num_classes=7, **VIT))


CLIPS = {
    "transformers": (clip_of_hugging_face, "vision_model.encoder.layers.1.layer_norm1", lambda out: out.image_embeds),
    "timm": (clip_of_timm, "blocks.1.norm1", lambda out: out),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clip_towers_by_their_likeness_to_a_text(name):
    make, layer, embedding_of = CLIPS[name]
    model, inputs = make(), signals(2, (3, SIDE, SIDE), torch.float64)
    text = torch.linspace(-1, 1, 7, dtype=torch.float64)

    def score_of(x):
        return nn.functional.cosine_similarity(embedding_of(model(x)), text[None])

    with torch.no_grad():
        expected = score_of(inputs)
    target = xf.targets.similarity(text)
    assert torch.allclose(
        xf.GradCAM(model, layer=layer, grid=lambda tokens: read_as_grid(tokens, 1))(inputs, target).score, expected
    )
    cams_are_their_formulas(model, layer, 1, inputs, target, score_of)
    for method in (xf.AttentionRollout, xf.GradientAttentionRollout, xf.LeGrad, xf.AttnLRP):
        assert method(model).attribute(inputs, target).any()
