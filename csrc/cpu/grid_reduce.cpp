// grid_reduce: the grid of each row, times the row's weights, added to the bins of its shift.
#include "../ops.h"

namespace xai_fast {
namespace {

constexpr int64_t kSmallestBatch = 1 << 16;  // below, threads cost more than they save

void add_kept(const uint8_t* grid, double weight, double* bin, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) bin[i] += grid[i] ? weight : 0.0;
  });
}

}  // namespace

void grid_reduce(const Tensor& grids, const Tensor& bin, const Tensor& weights, const Tensor& bins) {
  const int64_t n_rows = grids.shape[0], cells = grids.shape[1], targets = weights.shape[1];
  const int64_t* const own = bin.as<const int64_t>();

  // A target's sums belong to one thread, which meets the rows in their order.
#pragma omp parallel for schedule(static) if (n_rows * targets * cells > kSmallestBatch)
  for (int64_t target = 0; target < targets; ++target) {
    for (int64_t row = 0; row < n_rows; ++row) {
      add_kept(grids.as<const uint8_t>() + row * cells, weights.as<const double>()[row * targets + target],
               bins.as<double>() + (own[row] * targets + target) * cells, cells);
    }
  }
}

}  // namespace xai_fast
