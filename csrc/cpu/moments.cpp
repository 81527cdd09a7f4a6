// moments: weighted sums of rows and of their squares, per group, in the order of the rows.
#include <vector>

#include "../ops.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 2048;          // elements of a tile: its sums stay in cache from row to row
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

template <typename Real>
void add_values(const Real* values, double weight, double* total, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) total[i] += weight * static_cast<double>(values[i]);
  });
}

template <typename Real>
void add_squares(const Real* values, double weight, double* squares, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) {
      const double value = static_cast<double>(values[i]);
      squares[i] += weight * (value * value);
    }
  });
}

template <typename Real>
void accumulate(const Tensor& values, const double* weight, const int64_t* group, const Tensor& total,
                const Tensor& squares) {
  const Tensor& sums = total.data ? total : squares;
  const Tiling<2> tiling({&values, &sums}, kCapacity);

#pragma omp parallel if (values.size() > kSmallestBatch)
  {
    std::vector<Real> buffer(tiling.planes * tiling.length);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < tiling.count; ++index) {
      const auto tile = tiling[index];
      for (int64_t row = 0; row < values.shape[0]; ++row) {
        const Real* const read = tile_of(tiling, tile, 0, values, row).read(buffer.data());
        const double factor = weight ? weight[row] : 1.0;
        for (int64_t plane = 0; plane < tile.planes; ++plane) {
          const Real* const line = read + plane * tile.length;
          const int64_t at = group[row] * tiling.elements + tile.element + plane * tiling.plane_elements;
          if (total.data) add_values(line, factor, total.as<double>() + at, tile.length);
          if (squares.data) add_squares(line, factor, squares.as<double>() + at, tile.length);
        }
      }
    }
  }
}

}  // namespace

void moments(const Tensor& values, const Tensor& weight, const Tensor& group, const Tensor& total,
             const Tensor& squares) {
  if (values.size() == 0) return;
  const auto run = values.dtype == Dtype::kFloat64 ? accumulate<double> : accumulate<float>;
  run(values, weight.as<const double>(), group.as<const int64_t>(), total, squares);
}

}  // namespace xai_fast
