// path_points: rows of a batch become points on the straight path from a baseline to an input.
#include <utility>
#include <vector>

#include "../ops.h"
#include "scratch.h"
#include "shared_rows.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: all that is read and written stays in cache
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

template <typename Real, typename To>
void step_from(const Real* near, const Real* far, Real share, To* points, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) points[i] = convert<To>(near[i] + share * (far[i] - near[i]));
  });
}

template <typename Real, typename To>
void walk(const Tensor& inputs, const Tensor& baseline, const int64_t* sample, const int64_t* reference,
          const double* alpha, const Tensor& out) {
  const Tiling<3> tiling({&inputs, &baseline, &out}, kCapacity, &out);
  const int64_t n_rows = out.shape[0], capacity = tiling.planes * tiling.length;
  const auto ends = [sample, reference](int64_t row) { return std::make_pair(sample[row], reference[row]); };
  const SharedRows shared(n_rows, ends, rows_of_a_piece(n_rows, threads()));

#pragma omp parallel if (n_rows * tiling.elements > kSmallestBatch)
  {
    std::vector<Real> last(capacity), first(capacity);
    std::vector<To> points(capacity);
    Writer<To> writer(out);
#pragma omp for schedule(static) collapse(2)
    for (int64_t piece = 0; piece < shared.pieces(); ++piece) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const int64_t begin = shared.starts[piece], stop = shared.starts[piece + 1];
        const auto [input, start_of] = ends(shared.rows[begin]);
        // In place what is read is kept apart from what is written: loops with one array are slower.
        const TileOf from = tile_of(tiling, tile, 0, inputs, input);
        const Real* const end = out.data == inputs.data ? from.copied(last.data()) : from.read(last.data());
        const Real* const start = tile_of(tiling, tile, 1, baseline, start_of).read(first.data());
        for (int64_t i = begin; i < stop; ++i) {
          const int64_t row = shared.rows[i];
          // From the nearer end: either of them is then reached exactly.
          const bool early = alpha[row] < 0.5;
          const Real share = static_cast<Real>(early ? alpha[row] : 1 - alpha[row]);
          const Real *const near = early ? start : end, *const far = early ? end : start;
          writer.fill(tile_of(tiling, tile, 2, out, row), points.data(),
                      [=](int64_t at, int64_t n, To* to) { step_from(near + at, far + at, share, to, n); });
        }
      }
    }
  }
}

}  // namespace

void path_points(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& reference,
                 const Tensor& alpha, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(out.dtype, [&](auto value) {
    using To = decltype(value);
    const auto run = inputs.dtype == Dtype::kFloat64 ? walk<double, To> : walk<float, To>;
    run(inputs, baseline, sample.as<const int64_t>(), reference.as<const int64_t>(), alpha.as<const double>(),
        out);
  });
}

}  // namespace xai_fast
