// hide_windows on GPUs: rows become their input with one box replaced by the baseline.
#include "hidden.h"
#include "ops.h"

namespace xai_fast::cuda {
namespace {

// Everything outside the box of a row shows its input.
template <typename Index>
struct OutsideBox {
  const int64_t* boxes;
  int axes;
  int column[kAxes];
  Index length[kAxes];

  struct Here {
    Index start[kAxes], stop[kAxes];

    XAI_FAST_BOTH bool at(const Index (&position)[kAxes]) const {
      bool inside = true;
      for (int i = 0; i < kAxes; ++i) inside &= position[i] >= start[i] && position[i] < stop[i];
      return !inside;
    }

    // Of consecutive elements, those axes on which both ends agree are asked; on the next, everything
    // between.
    XAI_FAST_BOTH bool throughout(const Index (&first)[kAxes], const Index (&last)[kAxes]) const {
      for (int i = 0; i < kAxes; ++i) {
        if (last[i] < start[i] || first[i] >= stop[i]) return true;
        if (first[i] != last[i]) return false;
      }
      return false;
    }
  };

  XAI_FAST_BOTH Here of(int64_t row, int64_t) const {
    Here here;
    for (int i = 0; i < kAxes; ++i) {
      const int64_t* const range = boxes + (row * axes + (column[i] < 0 ? 0 : column[i])) * 2;
      here.start[i] = column[i] < 0 ? 0 : static_cast<Index>(range[0]);
      here.stop[i] = column[i] < 0 ? length[i] : static_cast<Index>(range[1]);
    }
    return here;
  }
};

}  // namespace

void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out, int device, uint64_t stream) {
  if (out.size() == 0) return;
  const Order order(out);
  const bool narrow = narrow_rows(order, {&inputs, &baseline, &out});
  const auto make = [&](auto index) {
    OutsideBox<decltype(index)> shown{boxes.as<const int64_t>(), out.axes - 1, {}, {}};
    for (int i = 0; i < kAxes; ++i) {
      shown.column[i] = order.column(i);
      shown.length[i] = static_cast<decltype(index)>(order.length(out, i));
    }
    return shown;
  };
  hide<OutsideBox>(inputs, baseline, sample, out, narrow, order, make, {device, stream});
}

}  // namespace xai_fast::cuda
