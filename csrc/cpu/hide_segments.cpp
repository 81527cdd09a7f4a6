// hide_segments: rows of a batch become their input with some of its segments replaced by the baseline.
#include <vector>

#include "../ops.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: all that is read and written stays in cache
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

// Which elements of a tile keep the input: those of kept segments, and those of none.
void read_kept(const TileOf& labels, const uint8_t* keep, uint8_t* kept) {
  for (int64_t plane = 0; plane < labels.planes; ++plane) {
    const int64_t* const from =
        labels.tensor.as<const int64_t>() + labels.offset + plane * labels.plane_stride;
    for (int64_t i = 0; i < labels.length; ++i) {
      const int64_t label = from[i * labels.line_stride];
      kept[plane * labels.length + i] = label < 0 || keep[label];
    }
  }
}

template <typename Real>
void choose(const Real* inputs, const Real* baseline, const uint8_t* kept, Real* chosen, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) chosen[i] = kept[i] ? inputs[i] : baseline[i];
  });
}

template <typename Real>
void hide(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const int64_t* sample,
          const Tensor& keep, const Tensor& out) {
  const Tiling<4> tiling({&inputs, &baseline, &labels, &out}, kCapacity, &out);
  const int64_t n_rows = out.shape[0];

#pragma omp parallel if (n_rows * tiling.elements > kSmallestBatch)
  {
    const int64_t capacity = tiling.planes * tiling.length;
    std::vector<Real> shown(capacity), hidden(capacity), chosen(capacity);
    std::vector<uint8_t> kept(capacity);
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < n_rows; ++row) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        read_kept(tile_of(tiling, tile, 2, labels, sample[row]),
                  keep.as<const uint8_t>() + row * keep.shape[1], kept.data());
        const Real* const from = tile_of(tiling, tile, 0, inputs, sample[row]).read(shown.data());
        const Real* const instead = tile_of(tiling, tile, 1, baseline, sample[row]).read(hidden.data());
        const TileOf target = tile_of(tiling, tile, 3, out, row);
        const bool direct = target.dense<Real>();
        Real* const written = direct ? out.as<Real>() + target.offset : chosen.data();
        choose(from, instead, kept.data(), written, tile.planes * tile.length);
        if (!direct) target.write(written);
      }
    }
  }
}

}  // namespace

void hide_segments(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const Tensor& sample,
                   const Tensor& keep, const Tensor& out) {
  if (out.size() == 0) return;
  const auto run = inputs.dtype == Dtype::kFloat64 ? hide<double> : hide<float>;
  run(inputs, baseline, labels, sample.as<const int64_t>(), keep, out);
}

}  // namespace xai_fast
