// hide_windows: rows of a batch become their input with one box replaced by the baseline.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "scratch.h"
#include "shared_rows.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kTaskBytes = 32 * 1024;  // a piece that is read again from the first-level cache

// Writes inputs[sample[m]] to out[m]: every piece of an input is converted once for all rows that it is
// copied to.
template <typename To>
void copy_rows(const Tensor& inputs, const int64_t* sample, const Tensor& out) {
  const Tiling<2> tiling({&inputs, &out}, kTaskBytes / static_cast<int64_t>(sizeof(To)), &out);
  const int64_t n_rows = out.shape[0], capacity = tiling.planes * tiling.length;
  const SharedRows shared(
      n_rows, [sample](int64_t row) { return sample[row]; }, rows_of_a_piece(n_rows, threads()));

#pragma omp parallel if (out.size() * static_cast<int64_t>(sizeof(To)) > kTaskBytes)
  {
    std::vector<To> values(capacity);
    const Writer<To> writer(out);
#pragma omp for schedule(static) collapse(2)
    for (int64_t piece = 0; piece < shared.pieces(); ++piece) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const int64_t start = shared.starts[piece], stop = shared.starts[piece + 1];
        const To* const read =
            tile_of(tiling, tile, 0, inputs, sample[shared.rows[start]]).read(values.data());
        for (int64_t i = start; i < stop; ++i) {
          writer.put(tile_of(tiling, tile, 1, out, shared.rows[i]), read);
        }
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
  with_floating(out.dtype, [&](auto to) {
    copy_rows<decltype(to)>(inputs, sample.as<const int64_t>(), out);
    with_floating(baseline.dtype, [&](auto from) {
      write_boxes<decltype(to), decltype(from)>(baseline, sample.as<const int64_t>(),
                                                boxes.as<const int64_t>(), out);
    });
  });
}

}  // namespace xai_fast
