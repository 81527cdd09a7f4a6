// add_noise: rows of a batch become their input plus normal noise; rows that share a draw share its numbers.
#include <numeric>
#include <utility>
#include <vector>

#include "../ops.h"
#include "philox.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: noise and sums stay in the second-level cache

// The rows in an order in which those that share a key and a draw follow each other, and where these runs
// start.
struct Runs {
  std::vector<int64_t> rows, starts;

  Runs(int64_t n, const int64_t* key, const int64_t* draw) : rows(n) {
    const auto address = [key, draw](int64_t row) { return std::make_pair(key[row], draw[row]); };
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(),
                     [&address](int64_t a, int64_t b) { return address(a) < address(b); });
    for (int64_t i = 0; i < n; ++i) {
      if (i == 0 || address(rows[i]) != address(rows[i - 1])) starts.push_back(i);
    }
    starts.push_back(n);
  }
};

template <typename Real>
void add_scaled(const Real* values, const Real* noise, Real scale, Real* sums, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) sums[i] = values[i] + scale * noise[i];
  });
}

template <typename Real>
void add(const Tensor& inputs, const double* scale, const int64_t* sample, const int64_t* key,
         const int64_t* draw, uint64_t seed, const Tensor& out) {
  const Tiling<2> tiling({&inputs, &out}, kCapacity);
  const Runs runs(out.shape[0], key, draw);
  const int64_t n_runs = static_cast<int64_t>(runs.starts.size()) - 1;
  const int64_t pitch = tiling.length + 8;  // a plane's noise starts anywhere in its first block

#pragma omp parallel if (out.shape[0] * tiling.elements > kCapacity)
  {
    std::vector<Real> noise(tiling.planes * pitch), values(tiling.planes * tiling.length),
        sums(values.size());
#pragma omp for schedule(static) collapse(2)
    for (int64_t run = 0; run < n_runs; ++run) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const int64_t start = runs.starts[run], stop = runs.starts[run + 1], first = runs.rows[start];
        const Stream stream(seed, static_cast<uint64_t>(key[first]), static_cast<uint64_t>(draw[first]));
        for (int64_t plane = 0; plane < tile.planes; ++plane) {
          const int64_t element = tile.element + plane * tiling.plane_elements;
          const int64_t block = element / 4, end = (element + tile.length + 3) / 4;
          normals(stream, block, end - block, noise.data() + plane * pitch);
        }
        for (int64_t i = start; i < stop; ++i) {
          const int64_t row = runs.rows[i];
          const TileOf target = tile_of(tiling, tile, 1, out, row);
          const bool direct = target.dense<Real>();
          Real* const written = direct ? out.as<Real>() + target.offset : sums.data();
          const Real* const read = tile_of(tiling, tile, 0, inputs, sample[row]).read(values.data());
          for (int64_t plane = 0; plane < tile.planes; ++plane) {
            const int64_t skipped = (tile.element + plane * tiling.plane_elements) % 4;
            add_scaled(read + plane * tile.length, noise.data() + plane * pitch + skipped,
                       static_cast<Real>(scale[row]), written + plane * tile.length, tile.length);
          }
          if (!direct) target.write(written);
        }
      }
    }
  }
}

}  // namespace

void add_noise(const Tensor& inputs, const Tensor& scale, const Tensor& sample, const Tensor& key,
               const Tensor& draw, uint64_t seed, const Tensor& out) {
  if (out.size() == 0) return;
  const auto run = inputs.dtype == Dtype::kFloat64 ? add<double> : add<float>;
  run(inputs, scale.as<const double>(), sample.as<const int64_t>(), key.as<const int64_t>(),
      draw.as<const int64_t>(), seed, out);
}

}  // namespace xai_fast
