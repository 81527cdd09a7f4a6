"""The rule by which a float32 run is compared with a library's, both against the formula in float64.

Errors are relative to max|map| of the truth. The largest is at most max(4 times the library's, 1e-5), the root mean
square at most max(2.5 times the library's, 1e-6). Where the library's own run is off by over 1e-3 at some element (a
ReLU fell on the other side), only the root mean square counts.

A method that asks at many points meets one at which a ReLU, or a maximum, lies within rounding of its kink. On which
side a float32 run falls is then luck, the library's and ours alike; so there is a bound for where kinks are many, and
the rule is held to on networks without kinks.
"""

from __future__ import annotations


def errors(actual, expected):
    """(largest, root mean square) error as a share of max|map|."""
    assert actual.shape == expected.shape
    error = (actual.detach().double() - expected).abs() / expected.abs().max()
    return error.max().item(), error.square().mean().sqrt().item()


def compare(expected, in_double, single, theirs, record_property, *, kinks=False):
    """Asserts the rule for our float32 run `single`, and that `in_double` is the truth to 1e-10.

    With many `kinks` the root mean square may be 5e-3 of max|map|, and single elements what they like.
    """
    assert expected.abs().max() > 1e-5, "the network sleeps"
    in_float64, _ = errors(in_double, expected)
    largest, rms = errors(single, expected)
    their_largest, their_rms = errors(theirs, expected)
    record_property("ours", (largest, rms))
    record_property("theirs", (their_largest, their_rms))
    print(f"max {largest:.1e} ({their_largest:.1e})  rms {rms:.1e} ({their_rms:.1e})  float64 {in_float64:.1e}")
    assert in_float64 <= 1e-10
    assert rms <= max(2.5 * their_rms, 5e-3 if kinks else 1e-6)
    if not kinks and their_largest <= 1e-3:
        assert largest <= max(4 * their_largest, 1e-5)
