// path_points: rows of a batch become points on the straight path from a baseline to an input.
#include <vector>

#include "../ops.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: all that is read and written stays in cache
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

template <typename Real>
void step_from(const Real* near, const Real* far, Real share, Real* points, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) points[i] = near[i] + share * (far[i] - near[i]);
  });
}

template <typename Real>
void walk(const Tensor& inputs, const Tensor& baseline, const int64_t* sample, const int64_t* reference,
          const double* alpha, const Tensor& out) {
  const Tiling<3> tiling({&inputs, &baseline, &out}, kCapacity, &out);
  const int64_t n_rows = out.shape[0];

#pragma omp parallel if (n_rows * tiling.elements > kSmallestBatch)
  {
    std::vector<Real> ends(tiling.planes * tiling.length), starts(ends.size()), points(ends.size());
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < n_rows; ++row) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const Real* const end = tile_of(tiling, tile, 0, inputs, sample[row]).read(ends.data());
        const Real* const start = tile_of(tiling, tile, 1, baseline, reference[row]).read(starts.data());
        const TileOf target = tile_of(tiling, tile, 2, out, row);
        // In place the buffer keeps what is read apart from what is written: loops with one array are slower.
        const bool direct = target.dense<Real>() && out.data != inputs.data;
        Real* const written = direct ? out.as<Real>() + target.offset : points.data();
        // From the nearer end: either of them is then reached exactly.
        const bool early = alpha[row] < 0.5;
        const Real share = static_cast<Real>(early ? alpha[row] : 1 - alpha[row]);
        step_from(early ? start : end, early ? end : start, share, written, tile.planes * tile.length);
        if (!direct) target.write(written);
      }
    }
  }
}

}  // namespace

void path_points(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& reference,
                 const Tensor& alpha, const Tensor& out) {
  if (out.size() == 0) return;
  const auto run = inputs.dtype == Dtype::kFloat64 ? walk<double> : walk<float>;
  run(inputs, baseline, sample.as<const int64_t>(), reference.as<const int64_t>(), alpha.as<const double>(),
      out);
}

}  // namespace xai_fast
