"""Small networks of many architectures, each with what makes its kind hard to follow, copy or run in batches."""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from forwards import Forward
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

SIZE = 16


def stem(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.Tanh())


def patches(x, conv):
    return conv(x).flatten(2).transpose(1, 2)


def made(forward, width=8, **parts):
    """A network that begins with a convolution `stem` and ends in a linear `head`."""
    return Forward(forward, **{"stem": stem(width), **parts, "head": parts.get("head", nn.Linear(width, 5))})


def rotary():
    """Queries and keys turned in the complex plane by their position."""

    def forward(self, x):
        t = patches(x, self.embed)
        q, k, v = self.qkv(t).chunk(3, -1)
        angle = torch.arange(t.shape[1])[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
        turn = torch.polar(torch.ones_like(angle), angle).to(
            torch.complex128 if x.dtype == torch.float64 else torch.complex64
        )
        q, k = (
            torch.view_as_real(torch.view_as_complex(each.unflatten(-1, (4, 2)).contiguous()) * turn).flatten(-2)
            for each in (q, k)
        )
        return self.head((t + F.scaled_dot_product_attention(q, k, v)).mean(1))

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), qkv=nn.Linear(8, 24), head=nn.Linear(8, 5))


def weight_norm():
    def forward(self, x):
        return self.head(self.conv(self.stem(x)).relu().mean((2, 3)))

    return made(forward, conv=parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))


def old_weight_norm():
    """By a hook before the forward that writes an attribute."""

    def forward(self, x):
        return self.head(self.conv(self.stem(x)).relu().mean((2, 3)))

    return made(forward, conv=nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))


def spectral_norm():
    def forward(self, x):
        return self.head(self.conv(self.stem(x)).relu().mean((2, 3)))

    return made(forward, conv=parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)))


def old_spectral_norm():
    def forward(self, x):
        return self.head(self.conv(self.stem(x)).relu().mean((2, 3)))

    return made(forward, conv=nn.utils.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)))


def orthogonal():
    def forward(self, x):
        return self.head(self.mix(self.stem(x).mean((2, 3)).tanh()))

    return made(forward, mix=parametrizations.orthogonal(nn.Linear(8, 8)))


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def own_parametrization():
    def forward(self, x):
        return self.head(self.mix(self.stem(x).mean((2, 3)).tanh()))

    mix = nn.Linear(8, 8)
    parametrize.register_parametrization(mix, "weight", Symmetric())
    return made(forward, mix=mix)


class MovingAverage(nn.Module):
    """Scales by what it has seen before, which a forward in eval mode writes down as well."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.ones(8))

    def forward(self, x):
        scale = self.seen.clone()
        with torch.no_grad():
            self.seen.mul_(0.99).add_(0.01)
        return x * scale[None, :, None, None]


def moving_average():
    return made(lambda self, x: self.head(self.ema(self.stem(x)).relu().mean((2, 3))), ema=MovingAverage())


def shadow_weights():
    """Runs on averaged weights that it keeps beside its own."""

    def forward(self, x):
        z = functional_call(self.conv, {"weight": self.average, "bias": self.conv.bias}, (self.stem(x),))
        return self.head(z.relu().mean((2, 3)))

    net = made(forward, conv=nn.Conv2d(8, 8, 3, padding=1))
    net.register_buffer("average", net.conv.weight.detach() * 0.9)
    return net


def hard_gates():
    """One of two branches by straight-through gates: their gradient is that of the softmax."""

    def forward(self, x):
        z = self.stem(x)
        soft = self.gate(z.mean((2, 3))).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), 2).to(soft) - soft.detach() + soft
        both = torch.stack([self.a(z), self.b(z)], 1)
        return self.head((hard[:, :, None, None, None] * both).sum(1).tanh().mean((2, 3)))

    return made(forward, gate=nn.Linear(8, 2), a=nn.Conv2d(8, 8, 3, padding=1), b=nn.Conv2d(8, 8, 1))


def splines():
    """Kolmogorov-Arnold: every edge a sum of bumps."""

    def forward(self, x):
        z = self.stem(x).mean((2, 3))
        bumps = torch.exp(-((z[..., None] - self.knots) ** 2) / 0.1)
        return self.head(torch.einsum("nik,iko->no", bumps, self.weight))

    net = made(forward)
    net.register_buffer("knots", torch.linspace(-1, 1, 6))
    net.weight = nn.Parameter(torch.randn(8, 6, 8))
    return net


def b_splines():
    """Cox and de Boor's recursion, whose lowest degree is a comparison."""

    def forward(self, x):
        z = self.stem(x).mean((2, 3))[..., None]
        basis = ((z >= self.knots[:-1]) & (z < self.knots[1:])).to(z)
        for k in range(1, 4):
            left = (z - self.knots[: -k - 1]) / (self.knots[k:-1] - self.knots[: -k - 1]) * basis[..., :-1]
            right = (self.knots[k + 1 :] - z) / (self.knots[k + 1 :] - self.knots[1:-k]) * basis[..., 1:]
            basis = left + right
        return self.head(torch.einsum("nik,iko->no", basis, self.weight))

    net = made(forward)
    net.register_buffer("knots", torch.linspace(-2, 2, 12))
    net.weight = nn.Parameter(torch.randn(8, 8, 8))
    return net


def hypernetwork():
    """Each row's convolution is made from that row."""

    def forward(self, x):
        z = self.stem(x)
        kernels = self.hyper(z.mean((2, 3))).view(-1, 8, 9)
        columns = F.unfold(z, 3, padding=1).view(len(z), 8, 9, -1)
        return self.head(torch.einsum("nck,nckp->ncp", kernels, columns).tanh().mean(2))

    return made(forward, hyper=nn.Linear(8, 72))


def dynamic_groups():
    """The batch folded into groups of one convolution."""

    def forward(self, x):
        z = self.stem(x)
        n, c, h, w = z.shape
        kernels = self.hyper(z.mean((2, 3))).view(n * c, 1, 3, 3)
        return self.head(
            F.conv2d(z.reshape(1, n * c, h, w), kernels, padding=1, groups=n * c).view(n, c, h, w).relu().mean((2, 3))
        )

    return made(forward, hyper=nn.Linear(8, 72))


def deformable():
    from torchvision.ops import DeformConv2d

    def forward(self, x):
        z = self.stem(x)
        return self.head(self.deform(z, self.offsets(z)).relu().mean((2, 3)))

    return made(forward, deform=DeformConv2d(8, 8, 3, padding=1), offsets=nn.Conv2d(8, 18, 3, padding=1))


def sampled_grid():
    """A spatial transformer."""

    def forward(self, x):
        z = self.stem(x)
        theta = torch.eye(2, 3).to(z) + 0.1 * self.place(z.mean((2, 3))).tanh().view(-1, 2, 3)
        z = F.grid_sample(z, F.affine_grid(theta, z.shape, align_corners=False), align_corners=False)
        return self.head(z.square().mean((2, 3)))

    return made(forward, place=nn.Linear(8, 6))


def recurrent_patches():
    def forward(self, x):
        states, _ = self.rnn(patches(x, self.embed))
        return self.head(states[:, -1])

    rnn = nn.GRU(8, 8, batch_first=True, bidirectional=False)
    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), rnn=rnn, head=nn.Linear(8, 5))


def lstm_cell_loop():
    def forward(self, x):
        t = patches(x, self.embed)
        h = c = t.new_zeros(len(t), 8)
        for one in t.unbind(1):
            h, c = self.cell(one, (h, c))
        return self.head(h)

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), cell=nn.LSTMCell(8, 8), head=nn.Linear(8, 5))


def fourier_tokens():
    def forward(self, x):
        t = patches(x, self.embed)
        t = self.norm(t + torch.fft.fft2(t).real)
        return self.head(t.mean(1))

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), norm=nn.LayerNorm(8), head=nn.Linear(8, 5))


def global_filter():
    def forward(self, x):
        z = torch.fft.rfft2(self.stem(x), norm="ortho") * torch.view_as_complex(self.filter)
        return self.head(torch.fft.irfft2(z, s=(8, 8), norm="ortho").relu().mean((2, 3)))

    net = made(forward)
    net.filter = nn.Parameter(torch.randn(8, 8, 5, 2))
    return net


def experts():
    """Two of four experts per row, each run on the rows that chose it."""

    def forward(self, x):
        z = self.stem(x).mean((2, 3))
        weight, which = self.router(z).softmax(-1).topk(2)
        out = torch.zeros_like(z)
        for index, expert in enumerate(self.experts):
            rows, slot = (which == index).nonzero(as_tuple=True)
            out = out.index_add(0, rows, expert(z[rows]).tanh() * weight[rows, slot][:, None])
        return self.head(out)

    return made(forward, router=nn.Linear(8, 4), experts=nn.ModuleList(nn.Linear(8, 8) for _ in range(4)))


def capacity_experts():
    """Experts that take no more tokens of the batch than they have room for: rows depend on each other."""

    def forward(self, x):
        z = self.stem(x).flatten(2).transpose(1, 2)
        flat = z.reshape(-1, 8)
        gate, which = self.router(flat).softmax(-1).max(-1)
        order = F.one_hot(which, 2).cumsum(0).gather(1, which[:, None])[:, 0]
        kept = (order <= 40).to(flat)
        weight = self.weight[which]
        out = torch.einsum("tc,tcd->td", flat, weight) * (gate * kept)[:, None]
        return self.head((flat + out).view_as(z).tanh().mean(1))

    net = made(forward, router=nn.Linear(8, 2))
    net.weight = nn.Parameter(torch.randn(2, 8, 8))
    return net


def messages():
    """Patches send to their neighbours on a graph of edges."""

    def forward(self, x):
        t = patches(x, self.embed)
        for _ in range(2):
            sent = self.send(torch.cat([t[:, self.edges[0]], t[:, self.edges[1]]], -1)).tanh()
            t = t + torch.zeros_like(t).scatter_add(1, self.edges[1][None, :, None].expand(len(t), -1, 8), sent)
        return self.head(t.mean(1))

    net = Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), send=nn.Linear(16, 8), head=nn.Linear(8, 5))
    where = torch.arange(16)
    edges = torch.cat([torch.stack([where, (where + step) % 16]) for step in (1, 4, -1, -4)], 1)
    net.register_buffer("edges", edges)
    return net


def nearest_graph():
    """The graph is made of each row's own nearest patches."""

    def forward(self, x):
        t = patches(x, self.embed)
        near = torch.cdist(t, t).topk(4, largest=False).indices
        around = t[torch.arange(len(t))[:, None, None], near]
        return self.head(self.mix(around - t[:, :, None]).amax(2).tanh().mean(1))

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), mix=nn.Linear(8, 8), head=nn.Linear(8, 5))


def sparse_adjacency():
    def forward(self, x):
        t = patches(x, self.embed)
        mixed = torch.stack([torch.sparse.mm(self.adjacency.to(t.dtype), one) for one in t])
        return self.head((t + mixed).tanh().mean(1))

    net = Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), head=nn.Linear(8, 5))
    net.register_buffer("adjacency", (torch.rand(16, 16) > 0.6).float().to_sparse())
    return net


def capsules():
    """Routing by agreement, three rounds, of which the weights are detached but in the last."""

    def forward(self, x):
        votes = torch.einsum("npi,ijo->npjo", self.stem(x).flatten(2).transpose(1, 2), self.votes)
        logit = torch.zeros(votes.shape[:3]).to(votes)
        for round_ in range(3):
            with torch.no_grad() if round_ < 2 else nullcontext():
                out = (logit.softmax(2)[..., None] * votes).sum(1)
                size = out.square().sum(-1, keepdim=True)
                out = size / (1 + size) * out / (size + 1e-8).sqrt()
                logit = logit + (votes * out[:, None]).sum(-1)
        return out.norm(dim=-1)

    net = made(forward)
    net.votes = nn.Parameter(torch.randn(8, 5, 4))
    return net


class Fixed(torch.autograd.Function):
    """A fixed point's gradient by the implicit function, with its own loop."""

    @staticmethod
    def forward(ctx, z, u, weight):
        for _ in range(60):
            z = torch.tanh(z @ weight.T + u)
        ctx.save_for_backward(z, weight)
        return z

    @staticmethod
    def backward(ctx, grad):
        z, weight = ctx.saved_tensors
        slope, back = 1 - z.square(), grad
        for _ in range(60):
            back = grad + (back * slope) @ weight
        return None, back * slope, None


def equilibrium():
    def forward(self, x):
        u = self.stem(x).mean((2, 3))
        return self.head(Fixed.apply(torch.zeros_like(u), u, self.loop.weight * 0.3))

    return made(forward, loop=nn.Linear(8, 8))


def until_it_settles():
    """Iterates until the largest change of the batch is small."""

    def forward(self, x):
        u, z = self.stem(x).mean((2, 3)), 0.0
        for _ in range(100):
            new = torch.tanh(self.loop(z + u) * 0.3)
            if float((new - z).abs().max()) < 1e-6:
                break
            z = new
        return self.head(new)

    return made(forward, loop=nn.Linear(8, 8))


class Reversible(torch.autograd.Function):
    """Keeps its outputs only and works its inputs out again."""

    @staticmethod
    def forward(ctx, a, b, f, g):
        with torch.no_grad():
            a = a + f(b)
            b = b + g(a)
        ctx.save_for_backward(a, b)
        ctx.f, ctx.g = f, g
        return a, b

    @staticmethod
    def backward(ctx, da, db):
        a, b = (each.detach() for each in ctx.saved_tensors)
        with torch.enable_grad():
            at = a.requires_grad_()
            step = ctx.g(at)
            (more,) = torch.autograd.grad(step, at, db)
        da = da + more
        before = (b - step).detach().requires_grad_()
        with torch.enable_grad():
            (more,) = torch.autograd.grad(ctx.f(before), before, da)
        return da, db + more, None, None


def reversible():
    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        a, b = Reversible.apply(a, b, self.f, self.g)
        return self.head(torch.cat([a, b], 1).tanh().mean((2, 3)))

    return made(forward, f=nn.Conv2d(4, 4, 3, padding=1), g=nn.Conv2d(4, 4, 3, padding=1))


def both_layouts():
    """Changes between channels first and last, with strides left as they come."""

    def forward(self, x):
        z = self.stem(x).to(memory_format=torch.channels_last)
        z = self.mix(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        z = self.conv(z.contiguous()).relu()
        return self.head(self.norm(z.movedim(1, -1)).tanh().mean((1, 2)))

    return made(forward, mix=nn.Linear(8, 8), conv=nn.Conv2d(8, 8, 3, padding=1), norm=nn.LayerNorm(8))


def int8():
    """Linear layers quantised with a scale of the batch."""
    net = nn.Sequential(stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, torch.qint8)


def mapped():
    """Row by row under vmap."""

    def forward(self, x):
        return vmap(lambda one: self.head(self.stem(one[None])[0].mean((1, 2))), randomness="different")(x)

    return made(forward)


def ensemble():
    """Weights of three networks stacked, by functional_call under vmap."""

    def forward(self, x):
        z = self.stem(x).mean((2, 3))

        def one(weight, bias):
            return functional_call(self.member, {"weight": weight, "bias": bias}, (z,))

        return self.head(vmap(one)(self.weights, self.biases).tanh().mean(0))

    net = made(forward, member=nn.Linear(8, 8))
    net.weights, net.biases = nn.Parameter(torch.randn(3, 8, 8)), nn.Parameter(torch.randn(3, 8))
    return net


def checkpointed():
    def forward(self, x):
        z = checkpoint(self.body, self.stem(x), use_reentrant=False)
        return self.head(z.mean((2, 3)))

    return made(forward, body=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Tanh()))


def old_checkpoint():
    def forward(self, x):
        return self.head(checkpoint(self.body, self.stem(x), use_reentrant=True).mean((2, 3)))

    return made(forward, body=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Tanh()))


def compiled_part():
    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))

    body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return made(forward, body=torch.compile(body, backend="eager"))


def compiled_method():
    net = made(lambda self, x: self.head(self.run(self.stem(x)).mean((2, 3))), conv=nn.Conv2d(8, 8, 3, padding=1))
    conv = net.conv
    net.run = torch.compile(lambda z: conv(z).relu(), backend="eager")
    return net


def tied():
    """One block at two depths, and the embedding's weights once more at the end."""

    def forward(self, x):
        z = self.block(self.block(self.stem(x)).relu()).relu()
        return F.linear(z.mean((2, 3)), self.block.weight[:5, :, 1, 1])

    return made(forward, block=nn.Conv2d(8, 8, 3, padding=1))


def tied_modules():
    """Two modules that hold one parameter."""
    first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(
        stem(), first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


class Clipped(torch.autograd.Function):
    """The forward of a clamp, the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(-0.3, 0.3)

    @staticmethod
    def backward(ctx, grad):
        return grad


def straight_through():
    return made(lambda self, x: self.head(Clipped.apply(self.stem(x)).mean((2, 3))))


class Scaled(torch.autograd.Function):
    """With its context set up apart, as functorch wants it, and a rule for vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, by):
        return x * by

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.by = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.by, None


def apart_context():
    return made(lambda self, x: self.head(Scaled.apply(self.stem(x), 0.7).relu().mean((2, 3))))


def gradient_inside():
    """Its features are how an energy changes: it differentiates in its own forward."""

    def forward(self, x):
        with torch.enable_grad():
            z = self.stem(x)
            z = z if z.requires_grad else z.requires_grad_()
            energy = self.energy(z).square().sum()
            (slope,) = torch.autograd.grad(energy, z, create_graph=True)
        return self.head(slope.tanh().mean((2, 3)))

    return made(forward, energy=nn.Conv2d(8, 4, 3, padding=1))


def state_space():
    """A scan along the patches."""

    def forward(self, x):
        t, state, out = patches(x, self.embed), 0.0, []
        step = F.softplus(self.step(t))
        for index in range(t.shape[1]):
            state = torch.exp(-step[:, index]) * state + step[:, index] * t[:, index]
            out.append(state)
        return self.head(torch.stack(out, 1).tanh().mean(1))

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), step=nn.Linear(8, 8), head=nn.Linear(8, 5))


def slots():
    """Attention normalised over slots, iterated by a recurrent cell."""

    def forward(self, x):
        t = patches(x, self.embed)
        slots = self.start.expand(len(t), -1, -1)
        for _ in range(2):
            weights = (slots @ t.transpose(1, 2) / math.sqrt(8)).softmax(1)
            updates = weights @ t / (weights.sum(-1, keepdim=True) + 1e-6)
            slots = self.cell(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return self.head(slots.amax(1))

    net = Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), cell=nn.GRUCell(8, 8), head=nn.Linear(8, 5))
    net.start = nn.Parameter(torch.randn(1, 3, 8))
    return net


def sorted_pool():
    return made(lambda self, x: self.head(self.stem(x).flatten(2).sort(-1, descending=True).values[..., :7].mean(-1)))


def early_exit():
    """Rows that are certain leave: the rest runs as a smaller batch."""

    def forward(self, x):
        z = self.stem(x)
        out = self.head(z.mean((2, 3)))
        rest = out.softmax(-1).amax(-1) < 0.25
        if bool(rest.any()):
            deep = self.head(self.deep(z[rest]).tanh().mean((2, 3)))
            out = out.index_put((rest.nonzero()[:, 0],), deep)
        return out

    return made(forward, deep=nn.Conv2d(8, 8, 3, padding=1))


def nested():
    """Rows of tokens of different numbers as a nested tensor, padded again."""

    def forward(self, x):
        t = patches(x, self.embed)
        rows = torch.nested.nested_tensor_from_jagged(t.flatten(0, 1), torch.arange(len(t) + 1) * t.shape[1])
        return self.head(torch.nested.to_padded_tensor(self.mix(rows), 0.0).tanh().mean(1))

    return Forward(forward, embed=nn.Conv2d(3, 8, 4, 4), mix=nn.Linear(8, 8), head=nn.Linear(8, 5))


def determinants():
    """Second-order pooling: the logarithm of a covariance by its eigenvalues."""

    def forward(self, x):
        z = self.stem(x).flatten(2)
        z = z - z.mean(2, keepdim=True)
        values, vectors = torch.linalg.eigh(z @ z.transpose(1, 2) / z.shape[2] + 0.1 * torch.eye(8).to(z))
        return self.head((vectors * values.log()[:, None]) @ vectors.transpose(1, 2)).mean(1)

    return made(forward)


def wavelets():
    """In place, on slices of one buffer."""

    def forward(self, x):
        z = self.stem(x)
        out = torch.empty_like(z)
        out[..., :4] = z[..., ::2] + z[..., 1::2]
        out[..., 4:] = z[..., ::2] - z[..., 1::2]
        out[:, 1::2].mul_(0.5)
        return self.head(out.tanh().mean((2, 3)))

    return made(forward)


def mahalanobis():
    """Scores are minus squared distances to prototypes."""

    def forward(self, x):
        z = self.stem(x).mean((2, 3))
        return -((z[:, None] - self.prototypes) @ self.root).square().sum(-1)

    net = made(forward)
    net.prototypes, net.root = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(8, 8))
    return net


MEMBERS = {
    make.__name__: make
    for make in (
        rotary, weight_norm, old_weight_norm, spectral_norm, old_spectral_norm, orthogonal, own_parametrization,
        moving_average, shadow_weights, hard_gates, splines, b_splines, hypernetwork, dynamic_groups, deformable,
        sampled_grid, recurrent_patches, lstm_cell_loop, fourier_tokens, global_filter, experts, capacity_experts,
        messages, nearest_graph, sparse_adjacency, capsules, equilibrium, until_it_settles, reversible, both_layouts,
        int8, mapped, ensemble, checkpointed, old_checkpoint, compiled_part, compiled_method, tied, tied_modules,
        straight_through, apart_context, gradient_inside, state_space, slots, sorted_pool, early_exit, nested,
        determinants, wavelets, mahalanobis,
    )
}  # fmt: skip
