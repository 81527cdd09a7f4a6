// surrogate_normal: the weighted normal equations of a linear surrogate with an intercept.
//
// A line of the sums meets only the rows that show its segment, and what it adds is the rest of such a row
// times its weight, worked out once for all lines: nothing is multiplied here, and lines differ in which rows
// they skip. Only the upper triangle is summed.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.h"

namespace xai_fast {
namespace {

constexpr int64_t kRows = 64;              // weighted at once: they stay in cache from line to line
constexpr int64_t kSmallestSum = 1 << 16;  // additions below which threads cost more than they save

// Adds rows one after the other, however many are at hand.
void add_rows(const double* const* rows, int64_t n_rows, int64_t at, double* sums, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    int64_t row = 0;
    for (; row + 4 <= n_rows; row += 4) {
      const double *const a = rows[row] + at, *const b = rows[row + 1] + at;
      const double *const c = rows[row + 2] + at, *const d = rows[row + 3] + at;
      for (int64_t i = 0; i < n; ++i) sums[i] = (((sums[i] + a[i]) + b[i]) + c[i]) + d[i];
    }
    for (; row < n_rows; ++row) {
      const double* const a = rows[row] + at;
      for (int64_t i = 0; i < n; ++i) sums[i] += a[i];
    }
  });
}

// [w, w keep, w scores] of one row.
void weigh(const uint8_t* keep, int64_t n_segments, double weight, const double* scores, int64_t n_targets,
           double* weighted) {
  *weighted++ = weight;
  for (int64_t k = 0; k < n_segments; ++k) *weighted++ = keep[k] ? weight : 0.0;
  for (int64_t t = 0; t < n_targets; ++t) *weighted++ = weight * scores[t];
}

}  // namespace

void surrogate_normal(const Tensor& keep, const Tensor& weights, const Tensor& scores, const Tensor& gram,
                      const Tensor& moment) {
  const int64_t n_rows = keep.shape[0], n_segments = keep.shape[1], n_targets = scores.shape[1];
  const int64_t unknowns = n_segments + 1, width = unknowns + n_targets;
  const auto* const shown = keep.as<const uint8_t>();
  auto* const products = gram.as<double>();
  std::vector<double> weighted(std::min(kRows, n_rows) * width);

#pragma omp parallel if (n_rows * unknowns * width > kSmallestSum)
  for (int64_t first = 0; first < n_rows; first += kRows) {
    const int64_t count = std::min(kRows, n_rows - first);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < count; ++row) {
      weigh(shown + (first + row) * n_segments, n_segments, weights.as<const double>()[first + row],
            scores.as<const double>() + (first + row) * n_targets, n_targets, weighted.data() + row * width);
    }
#pragma omp for schedule(static, 1)  // later lines of a triangle are shorter
    for (int64_t line = 0; line < unknowns; ++line) {
      const double* rows[kRows];
      int64_t found = 0;
      for (int64_t row = 0; row < count; ++row) {
        rows[found] = weighted.data() + row * width;
        found += line == 0 || shown[(first + row) * n_segments + line - 1];
      }
      add_rows(rows, found, line, products + line * unknowns + line, unknowns - line);
      add_rows(rows, found, unknowns, moment.as<double>() + line * n_targets, n_targets);
    }
  }
  for (int64_t line = 0; line < unknowns; ++line) {
    for (int64_t k = 0; k < line; ++k) products[line * unknowns + k] = products[k * unknowns + line];
  }
}

}  // namespace xai_fast
