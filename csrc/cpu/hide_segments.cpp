// hide_segments: rows of a batch become their input with some of its segments replaced by the baseline.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../ops.h"
#include "scratch.h"
#include "shared_rows.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: all that is read and written stays in cache
constexpr int64_t kRegister = 32;    // bytes
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

// Elements of a tile that follow each other and lie in one segment, or in none, which is below 0.
struct Run {
  int64_t stop, segment;
};

void read_runs(const TileOf& labels, std::vector<Run>& runs) {
  runs.clear();
  for (int64_t plane = 0; plane < labels.planes; ++plane) {
    const int64_t* const from =
        labels.tensor.as<const int64_t>() + labels.offset + plane * labels.plane_stride;
    for (int64_t i = 0; i < labels.length; ++i) {
      const int64_t segment = from[i * labels.line_stride], at = plane * labels.length + i;
      if (runs.empty() || runs.back().segment != segment) runs.push_back({at, segment});
      runs.back().stop = at + 1;
    }
  }
}

// Writes elements `at` up to `stop`, the runs from `run` on, from what is shown or hidden of them; returns
// the run to go on with. By whole registers, as long as what they write beyond a run is written again by the
// next one.
template <typename T>
const Run* choose(const Run* run, const uint8_t* keep, const T* shown, const T* hidden, int64_t at,
                  int64_t stop, T* to) {
  return vectorised([=]() XAI_FAST_INLINED {
    constexpr int64_t step = kRegister / sizeof(T);
    const Run* current = run;
    for (int64_t i = at; i < stop;) {
      const T* const from = current->segment < 0 || keep[current->segment] ? shown : hidden;
      const int64_t end = std::min(current->stop, stop);
      if (end + step <= stop) {
        for (; i < end; i += step) {
          char values[kRegister];
          std::memcpy(values, from + i, kRegister);
          std::memcpy(to + i - at, values, kRegister);
        }
      } else {
        std::memcpy(to + i - at, from + i, (end - i) * sizeof(T));
      }
      i = end;
      if (current->stop <= stop) ++current;
    }
    return current;
  });
}

template <typename T>
void hide(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const int64_t* sample,
          const Tensor& keep, const Tensor& out) {
  const Tiling<4> tiling({&inputs, &baseline, &labels, &out}, kCapacity, &out);
  const int64_t n_rows = out.shape[0], capacity = tiling.planes * tiling.length;
  const SharedRows shared(
      n_rows, [sample](int64_t row) { return sample[row]; }, rows_of_a_piece(n_rows, threads()));

#pragma omp parallel if (n_rows * tiling.elements > kSmallestBatch)
  {
    const int64_t room = capacity + kRegister / static_cast<int64_t>(sizeof(T));
    std::vector<T> shown(room), hidden(room), chosen(capacity);  // registers are read beyond a run's end
    std::vector<Run> runs;
    Writer<T> writer(out);
#pragma omp for schedule(static) collapse(2)
    for (int64_t piece = 0; piece < shared.pieces(); ++piece) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const int64_t start = shared.starts[piece], stop = shared.starts[piece + 1];
        const int64_t common = sample[shared.rows[start]];
        read_runs(tile_of(tiling, tile, 2, labels, common), runs);
        tile_of(tiling, tile, 0, inputs, common).copied(shown.data());
        tile_of(tiling, tile, 1, baseline, common).copied(hidden.data());
        for (int64_t i = start; i < stop; ++i) {
          const int64_t row = shared.rows[i];
          const uint8_t* const kept = keep.as<const uint8_t>() + row * keep.shape[1];
          writer.fill(tile_of(tiling, tile, 3, out, row), chosen.data(),
                      [&, run = static_cast<const Run*>(runs.data())](int64_t at, int64_t n, T* to) mutable {
                        run = choose<T>(run, kept, shown.data(), hidden.data(), at, at + n, to);
                      });
        }
      }
    }
  }
}

}  // namespace

void hide_segments(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const Tensor& sample,
                   const Tensor& keep, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(out.dtype, [&](auto value) {
    hide<decltype(value)>(inputs, baseline, labels, sample.as<const int64_t>(), keep, out);
  });
}

}  // namespace xai_fast
