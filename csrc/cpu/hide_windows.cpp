// hide_windows: rows of a batch become their input with one box replaced by the baseline.
#include <algorithm>
#include <numeric>
#include <vector>

#include "../ops.h"
#include "copy.h"

namespace xai_fast {
namespace {

constexpr int64_t kTaskBytes = 32 * 1024;  // a piece that is read again from the first-level cache

// Positions in `rows` where a run of equal samples starts, and the end.
std::vector<int64_t> group_starts(const std::vector<int64_t>& rows, const int64_t* sample) {
  std::vector<int64_t> starts;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 || sample[rows[i]] != sample[rows[i - 1]]) starts.push_back(static_cast<int64_t>(i));
  }
  starts.push_back(static_cast<int64_t>(rows.size()));
  return starts;
}

// Writes inputs[sample[m]] to out[m]. The first row of a sample is converted; the other rows of that sample
// copy it piece by piece while it is in cache, so dtype and layout conversion cost little when rows share
// their input.
template <typename To, typename From>
void copy_rows(const Tensor& inputs, const int64_t* sample, const Tensor& out) {
  const int64_t n_rows = out.shape[0];
  Block convert;
  for (int axis = 1; axis < out.axes; ++axis) {
    convert.add(out.shape[axis], inputs.strides[axis], out.strides[axis]);
  }
  convert = convert.simplified();
  Block repeat = convert;  // cut along the same axis, so that a part is the same elements
  std::copy(repeat.to, repeat.to + 4, repeat.from);

  std::vector<int64_t> rows(n_rows);
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(),
                   [sample](int64_t a, int64_t b) { return sample[a] < sample[b]; });
  const std::vector<int64_t> starts = group_starts(rows, sample);
  const int64_t n_groups = static_cast<int64_t>(starts.size()) - 1;
  const int64_t row_bytes = convert.elements() * static_cast<int64_t>(sizeof(To));
  const int64_t parts = std::max<int64_t>(1, row_bytes / kTaskBytes);

#pragma omp parallel for schedule(static) collapse(2) if (n_rows * row_bytes > kTaskBytes)
  for (int64_t group = 0; group < n_groups; ++group) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = rows[starts[group]];
      To* const source = out.as<To>() + first * out.strides[0];
      copy_part(inputs.as<const From>() + sample[first] * inputs.strides[0], source, convert, part, parts);
      for (int64_t i = starts[group] + 1; i < starts[group + 1]; ++i) {
        copy_part(static_cast<const To*>(source), out.as<To>() + rows[i] * out.strides[0], repeat, part,
                  parts);
      }
    }
  }
}

// Writes baseline[sample[m]] inside boxes[m].
template <typename To, typename From>
void write_boxes(const Tensor& baseline, const int64_t* sample, const int64_t* boxes, const Tensor& out) {
  const int64_t n_rows = out.shape[0];
  int64_t hidden = 0;
  std::vector<Block> blocks(n_rows);
  std::vector<const From*> from(n_rows);
  std::vector<To*> to(n_rows);
  for (int64_t row = 0; row < n_rows; ++row) {
    from[row] = baseline.as<const From>() + sample[row] * baseline.strides[0];
    to[row] = out.as<To>() + row * out.strides[0];
    for (int axis = 1; axis < out.axes; ++axis) {
      const int64_t* const range = boxes + (row * (out.axes - 1) + axis - 1) * 2;
      blocks[row].add(range[1] - range[0], baseline.strides[axis], out.strides[axis]);
      from[row] += range[0] * baseline.strides[axis];
      to[row] += range[0] * out.strides[axis];
    }
    hidden += blocks[row].elements();
    blocks[row] = blocks[row].simplified();
  }
  const int64_t bytes = hidden * static_cast<int64_t>(sizeof(To));
  const int64_t parts = std::max<int64_t>(1, bytes / std::max<int64_t>(n_rows, 1) / kTaskBytes);

#pragma omp parallel for schedule(static) collapse(2) if (bytes > kTaskBytes)
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t part = 0; part < parts; ++part) copy_part(from[row], to[row], blocks[row], part, parts);
  }
}

}  // namespace

void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(inputs.dtype, [&](auto from) {
    with_floating(out.dtype, [&](auto to) {
      copy_rows<decltype(to), decltype(from)>(inputs, sample.as<const int64_t>(), out);
      write_boxes<decltype(to), decltype(from)>(baseline, sample.as<const int64_t>(),
                                                boxes.as<const int64_t>(), out);
    });
  });
}

}  // namespace xai_fast
