"""A library's result with and without acceleration: made with the same seeds, and compared."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

import xai_fast as xf
from xai_fast import accelerate


def both(run, library="captum"):
    """(plain result, ours, the report of ours, whether both drew as many numbers)."""
    plain, drawn = seeded(run)
    accelerate.reset()
    with xf.accelerate(library):
        ours, drawn_too = seeded(run)
    return plain, ours, accelerate.report(), drawn == drawn_too


def seeded(run):
    """The result, and what both generators give next."""
    torch.manual_seed(7)
    np.random.seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run()
    return result, (torch.rand(1).item(), np.random.rand())


def tensors(result) -> tuple[Tensor, ...]:
    """What came alone or in tuples, in a row."""
    if not isinstance(result, tuple | list):
        return (result,)
    return tuple(one for part in result for one in tensors(part))


def same_form(one, other):
    """Types, shapes, dtypes, devices and whether they can be differentiated."""
    assert type(one) is type(other)
    assert len(tensors(one)) == len(tensors(other))
    for a, b in zip(tensors(one), tensors(other), strict=True):
        assert (a.shape, a.dtype, a.device, a.requires_grad) == (b.shape, b.dtype, b.device, b.requires_grad)


def apart(found, truth) -> tuple[float, float]:
    """The largest and the RMS difference, as shares of the largest value."""
    difference = (found.detach().double() - truth.detach().double()) / truth.detach().abs().max()
    return float(difference.abs().max()), float(difference.square().mean().sqrt())


KINK = 1e-3  # of the largest value: where a library's own run errs by more, a ReLU fell to another side
AGAIN = 8  # further runs of the library


def no_further(ours, plain, truth, again) -> str:
    """Why a result is further from float64 than the numerics rule allows, in its largest error or its RMS; or "".

    The largest error is at most 4 times that of the library's own float32 run, or 1e-5 of the largest value, without
    the elements in which that run errs by over 1e-3; the RMS error of all elements at most 2.5 times, or 1e-6.

    In a deep network with ReLUs some value is so near to a kink that rounding decides on its side, and with it a
    gradient changes by up to a thousandth of its largest value. Whether that happens to a run is chance, for the
    library as for us. So where ours errs by more than the library's one run, its error is taken as the largest of
    several: of the same call on inputs that are moved by no more than their own rounding.

    Args:
        ours: the result.
        plain: the library's.
        truth: in float64.
        again: the library's result on inputs moved by one unit in the last place, by the number of the move.
    """
    if reason := _further(ours, [plain], truth):
        reason = _further(ours, [plain, *(again(number) for number in range(AGAIN))], truth)
    return reason


MOVES = 5


def by_chance(on_moved) -> bool:
    """Whether a result that is further from float64 crosses kinks as the library's own runs do.

    Where values are so near to kinks that ours crosses one and nine runs of the library cross others, that is chance if
    ours, too, is near on most images that are moved by their own rounding, or as far there as the library: what we get
    wrong is wrong on all of them.

    Args:
        on_moved: (ours, the library's, the truth) on the image moved by one unit in the last place, by the number of
            the move.
    """
    found = [on_moved(number) for number in range(MOVES)]
    further = sum(bool(no_further(ours, plain, truth, lambda _, one=plain: one)) for ours, plain, truth in found)
    errors = [(apart(ours, truth), apart(plain, truth)) for ours, plain, truth in found]
    (largest, rms), (its_largest, its_rms) = (map(max, zip(*side, strict=True)) for side in zip(*errors, strict=True))
    return further <= 1 or (largest <= 4 * its_largest and rms <= 2.5 * its_rms)


def _further(ours, theirs, truth) -> str:
    scale = truth.abs().max()
    error, *own = ((one.detach().double() - truth.double()).abs() / scale for one in (ours, *theirs))
    worst = torch.stack(own).amax(0)
    smooth = worst <= KINK
    largest = float(error[smooth].max()) if smooth.any() else 0.0
    allowed = max(4 * float(worst[smooth].max()) if smooth.any() else 0.0, 1e-5)
    rms, allowed_rms = _rms(error), max(2.5 * max(map(_rms, own)), 1e-6)
    if largest > allowed:
        return f"the largest error is {largest:.1e}, and {allowed:.1e} is allowed"
    if rms > allowed_rms:
        return f"the RMS error is {rms:.1e}, and {allowed_rms:.1e} is allowed"
    return ""


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def moved(image: Tensor, number: int) -> Tensor:
    """The image with every element one unit in the last place up or down."""
    up = torch.rand(image.shape, generator=torch.Generator().manual_seed(number)) < 0.5
    return torch.where(
        up, torch.nextafter(image, image.new_tensor(torch.inf)), torch.nextafter(image, -image.new_tensor(torch.inf))
    )


CROSSED = 1e-5  # RMS error from which on a value has fallen to another side of a kink; without, float32 errs by 1e-7
CROSSING = 5e-3  # RMS error that falling on other sides of kinks comes to, whoever computes it


def no_further_together(errors, theirs, times=2.5, least=2e-6):
    """Whether results of several images are as near to float64 as a library's own, given their RMS errors.

    In a deep network with ReLUs some value is so near to a kink that rounding decides on its side, and with it a
    gradient changes by up to a thousandth of its largest value: which images that happens to is chance, for a library's
    own runs of one row or several, in one layout or another, as well. So errors are compared on images without, of
    which there must be some, and the others must be no larger than such crossings are.
    """
    if len(errors) < 2:
        return "" if all(one <= max(2 * own, 2e-6) for one, own in zip(errors, theirs, strict=True)) else "too far"
    smooth, own = ([one for one in found if one <= CROSSED] for found in (errors, theirs))
    if not smooth:  # each is as far as the library's own
        each = all(one <= times * own for one, own in zip(errors, theirs, strict=True))
        return "" if each else "every result has crossed a kink"
    if max(smooth) > max(times * max(own, default=CROSSED), least):
        return f"{max(smooth):.1e} from float64, and the library {own}"
    if max(errors) > max(times * max(theirs), CROSSING):
        return f"{max(errors):.1e} from float64, which is no crossing, and the library {max(theirs):.1e}"
    return ""
