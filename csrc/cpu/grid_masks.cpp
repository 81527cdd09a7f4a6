// grid_masks: rows of a batch become their input where an enlarged grid keeps it, and the baseline elsewhere.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "masked_rows.h"
#include "taps.h"

namespace xai_fast {
namespace {

// One of three spatial axes; those that a signal or an image lacks have one position and one cell.
template <typename Real>
struct Axis {
  int64_t extent = 1, cells = 1;
  std::vector<int32_t> low = {0};    // of two neighbouring cells, for every position of the enlarged grid
  std::vector<Real> share = {0};     // of the second one
  std::vector<int32_t> until = {1};  // the first position with another `low`

  Axis() = default;
  Axis(int64_t extent, int64_t cells, const double* places) : extent(extent), cells(cells) {
    const int64_t length = (cells + 1) * std::max<int64_t>((extent + cells - 1) / cells, 1);
    const int32_t last = static_cast<int32_t>(std::max<int64_t>(cells - 2, 0));
    low.resize(length);
    share.resize(length);
    for (int64_t i = 0; i < length; ++i) {
      low[i] = std::min(static_cast<int32_t>(places[i]), last);
      share[i] = static_cast<Real>(places[i] - low[i]);
    }
    until = run_ends(low);
  }

  int64_t high(int64_t position) const { return std::min<int64_t>(low[position] + 1, cells - 1); }
};

template <typename Real>
Real between(Real first, Real second, Real share) {
  return first + share * (second - first);
}

// The grid, interpolated along its first two axes at positions z and y of the enlarged one: a value per cell
// of the last axis, and how far it is from there to the next.
template <typename Real>
void read_line(const uint8_t* grid, const Axis<Real> (&axes)[3], int64_t z, int64_t y, Real* value,
               Real* rise) {
  const int64_t cells = axes[2].cells, plane = axes[1].cells * cells;
  const uint8_t* const corner[2] = {grid + axes[0].low[z] * plane, grid + axes[0].high(z) * plane};
  const int64_t line[2] = {axes[1].low[y] * cells, axes[1].high(y) * cells};
  for (int64_t i = 0; i < cells; ++i) {
    Real ends[2];
    for (int side = 0; side < 2; ++side) {
      ends[side] = between<Real>(corner[0][line[side] + i], corner[1][line[side] + i], axes[0].share[z]);
    }
    value[i] = between<Real>(ends[0], ends[1], axes[1].share[y]);
  }
  for (int64_t i = 0; i < cells; ++i) rise[i] = i + 1 < cells ? value[i + 1] - value[i] : Real(0);
}

// The part of the line from position `start` on, n values.
template <typename Real>
void enlarge(const Real* value, const Real* rise, const Axis<Real>& axis, int64_t start, Real* mask,
             int64_t n) {
  const int32_t *const low = axis.low.data() + start, *const until = axis.until.data() + start;
  const Real* const share = axis.share.data() + start;
  const bool lengthy = axis.extent >= kLongCell * axis.cells;
  vectorised([=]() XAI_FAST_INLINED {
    if (!lengthy) {
      for (int64_t i = 0; i < n; ++i) mask[i] = value[low[i]] + share[i] * rise[low[i]];
      return;
    }
    for (int64_t i = 0; i < n;) {
      const int64_t end = std::min(until[i] - start, n);
      const Real from = value[low[i]], by = rise[low[i]];
#pragma GCC ivdep
      for (; i < end; ++i) mask[i] = from + share[i] * by;
    }
  });
}

template <typename Real, typename To>
void mix(const Real* mask, const Real* shown, const Real* hidden, To* mixed, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) mixed[i] = convert<To>(mask[i] * shown[i] + (1 - mask[i]) * hidden[i]);
  });
}

template <typename Real, typename To>
void mask_rows(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const int64_t* shifts,
               const int64_t* sample, const double* places, const Tensor& out) {
  const int space = out.axes - 2;
  Axis<Real> axes[3];
  for (int axis = 0; axis < space; ++axis) {
    axes[3 - space + axis] = Axis<Real>(out.shape[2 + axis], grids.shape[1 + axis], places);
    places += axes[3 - space + axis].low.size();
  }
  const int64_t cells = grids.size() / out.shape[0];

  const auto line = [&](const MaskPart& part, Real* mask) {
    const int64_t* const shift = shifts + part.row * space;
    const int64_t moved[3] = {space > 2 ? shift[space - 3] : 0, space > 1 ? shift[space - 2] : 0,
                              shift[space - 1]};
    thread_local std::vector<Real> value, rise;
    value.resize(axes[2].cells);
    rise.resize(axes[2].cells);
    read_line(grids.as<const uint8_t>() + part.row * cells, axes, part.z + moved[0], part.y + moved[1],
              value.data(), rise.data());
    enlarge(value.data(), rise.data(), axes[2], part.x + moved[2], mask, part.length);
  };
  write_masked_rows<To, Real>({&inputs, &baseline}, sample, out, line,
                              [](const Real* mask, const Real* const(&from)[2], To* to, int64_t n) {
                                mix(mask, from[0], from[1], to, n);
                              });
}

}  // namespace

void grid_masks(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const Tensor& shifts,
                const Tensor& sample, const Tensor& places, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(out.dtype, [&](auto value) {
    using To = decltype(value);
    const auto run = inputs.dtype == Dtype::kFloat64 ? mask_rows<double, To> : mask_rows<float, To>;
    run(inputs, baseline, grids, shifts.as<const int64_t>(), sample.as<const int64_t>(),
        places.as<const double>(), out);
  });
}

}  // namespace xai_fast
