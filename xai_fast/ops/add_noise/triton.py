"""add_noise in Triton: one pass that draws, scales and adds, four elements to a block of words."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr; a type of Triton's keeps a seed whole.
# pyright: reportCallIssue=false, reportArgumentType=false, reportInvalidTypeForm=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def radius(word) -> tl.tensor:
    """Returns sqrt(-2 log u) of u = (word | 1) / 2^32 in float32.

    Below 1 the distance from it has to be precise, and the word read as a signed integer is that distance.
    """
    signed = (word | 1).to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-32
    u = tl.where(signed < 0, 1 + signed, signed)
    # u = 2^exponent * m with m in [sqrt(1/2), sqrt(2)), and log(m) = 2 artanh(s).
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    m = (bits - exponent * 0x800000).to(tl.float32, bitcast=True)
    from_one = tl.where(exponent == 0, signed, m - 1)
    s = from_one / (2 + from_one)
    square = s * s
    series = square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9))))
    return tl.sqrt_rn(-2 * (exponent * 0.6931471805599453 + (2 * s + 2 * s * series)))


@triton.jit
def radius_double(word) -> tl.tensor:
    """The same in float64."""
    return tl.sqrt(-2 * tl.log((word | 1).to(tl.float64) * 2.0**-32))


@triton.jit
def turn(word, DTYPE: tl.constexpr, TERMS: tl.constexpr):  # noqa: ANN201  (a pair)
    """Returns cosine and sine of 2 pi word / 2^32: the quarter turn is taken off exactly, as integers.

    Triton's own functions reduce angles of any size, with tables that spill.
    """
    quarter = (word + 0x20000000) >> 30
    angle = (word - (quarter << 30)).to(tl.int32, bitcast=True).to(DTYPE) * (1.5707963267948966 * 2.0**-30)
    square = angle * angle
    s = square * 0 + 1
    c = s
    for i in tl.static_range(TERMS):
        s = 1 - square * (1 / ((2 * TERMS - 2 * i) * (2 * TERMS - 2 * i + 1))) * s
        c = 1 - square * (1 / ((2 * TERMS - 2 * i) * (2 * TERMS - 2 * i - 1))) * c
    s *= angle
    swapped = (quarter & 1) == 1
    x = tl.where(swapped, s, c)
    y = tl.where(swapped, c, s)
    return tl.where(((quarter + 1) & 2) == 2, -x, x), tl.where((quarter & 2) == 2, -y, y)


@triton.jit
def add_noise_kernel(
    inputs, scale, sample, key, draw, seed: tl.uint64, out,
    elements, size1, size2, size3,
    in_row, in0, in1, in2, in3,
    out_row, out0, out1, out2, out3,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one row; axes 0 to 3 are those of the row in logical order, which numbers the noise."""
    blocks = tl.cdiv(elements, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * BLOCK

    counter = (start // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)
    zero = counter * 0
    identity = tl.load(key + row)
    w0, w1, w2, w3 = tl.philox(
        seed,
        counter,
        zero + tl.load(draw + row).to(tl.uint32),
        zero + identity.to(tl.uint32),
        zero + (identity >> 32).to(tl.uint32),
        10,
    )
    if inputs.dtype.element_ty == tl.float64:
        first, second = radius_double(w0), radius_double(w2)
        cosine0, sine0 = turn(w1, tl.float64, 9)
        cosine1, sine1 = turn(w3, tl.float64, 9)
        strength = tl.load(scale + row)
    else:
        first, second = radius(w0), radius(w2)
        cosine0, sine0 = turn(w1, tl.float32, 5)
        cosine1, sine1 = turn(w3, tl.float32, 5)
        strength = tl.load(scale + row).to(tl.float32)
    noise = tl.interleave(
        tl.interleave(first * cosine0, second * cosine1), tl.interleave(first * sine0, second * sine1)
    )

    index = start + tl.arange(0, BLOCK)
    valid = index < elements
    # Divided as 32-bit numbers, multiplied by strides as 64-bit ones.
    rest = index // size3
    i3 = (index % size3).to(tl.int64)
    i2 = (rest % size2).to(tl.int64)
    rest = rest // size2
    i1 = (rest % size1).to(tl.int64)
    i0 = (rest // size1).to(tl.int64)
    source = inputs + tl.load(sample + row) * in_row + i0 * in0 + i1 * in1 + i2 * in2 + i3 * in3
    values = tl.load(source, mask=valid).to(noise.dtype) + strength * noise
    if values.dtype == tl.float64 and out.dtype.element_ty != tl.float64:
        values = values.to(tl.float32)
    target = out + row * out_row + i0 * out0 + i1 * out1 + i2 * out2 + i3 * out3
    tl.store(target, values.to(out.dtype.element_ty), mask=valid)


def add_noise(inputs: Tensor, scale: Tensor, sample: Tensor, key: Tensor, draw: Tensor, seed: int, out: Tensor) -> None:
    """Launches one program per block of a row."""
    if out.numel() == 0:
        return
    padding = 5 - out.dim()
    sizes = [1] * padding + list(out.shape[1:])

    def strides(tensor: Tensor) -> list[int]:
        return [tensor.stride(0)] + [0] * padding + list(tensor.stride()[1:])

    elements = out[0].numel()
    grid = (out.shape[0] * triton.cdiv(elements, BLOCK),)
    with torch.cuda.device_of(out):
        add_noise_kernel[grid](
            inputs, scale, sample, key, draw, seed, out, elements, *sizes[1:], *strides(inputs), *strides(out), BLOCK
        )  # fmt: skip
