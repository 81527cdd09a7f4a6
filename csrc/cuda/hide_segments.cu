// hide_segments on GPUs: rows become their input with some of its segments replaced by the baseline.
#include "hidden.h"
#include "ops.h"

namespace xai_fast::cuda {
namespace {

// Positions of kept segments, and those of none, show the input.
template <typename Index>
struct InKept {
  const int64_t* labels;
  const uint8_t* keep;
  int64_t segments;
  Rows<Index> rows;

  struct Here {
    const int64_t* labels;
    const uint8_t* keep;
    const Rows<Index>& rows;

    XAI_FAST_BOTH bool at(const Index (&position)[kAxes]) const {
      const int64_t label = labels[rows.offset(position)];
      return label < 0 || keep[label] != 0;
    }

    XAI_FAST_BOTH bool throughout(const Index (&)[kAxes], const Index (&)[kAxes]) const { return false; }
  };

  XAI_FAST_BOTH Here of(int64_t row, int64_t source) const {
    return {labels + source * rows.row, keep + row * segments, rows};
  }
};

}  // namespace

void hide_segments(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const Tensor& sample,
                   const Tensor& keep, const Tensor& out, int device, uint64_t stream) {
  if (out.size() == 0) return;
  const Order order(out);
  const bool narrow = narrow_rows(order, {&inputs, &baseline, &labels, &out});
  const auto make = [&](auto index) {
    return InKept<decltype(index)>{labels.as<const int64_t>(), keep.as<const uint8_t>(), keep.shape[1],
                                   Rows<decltype(index)>(order, labels)};
  };
  hide<InKept>(inputs, baseline, sample, out, narrow, order, make, {device, stream});
}

}  // namespace xai_fast::cuda
