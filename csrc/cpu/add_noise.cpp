// add_noise: rows of a batch become their input plus normal noise; rows that share a draw share its numbers.
#include <algorithm>
#include <utility>
#include <vector>

#include "../ops.h"
#include "philox.h"
#include "shared_rows.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: noise and sums stay in the second-level cache

template <typename Real, typename To>
void add_scaled(const Real* values, const Real* noise, Real scale, To* sums, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) sums[i] = convert<To>(values[i] + scale * noise[i]);
  });
}

template <typename Real, typename To>
void add(const Tensor& inputs, const double* scale, const int64_t* sample, const int64_t* key,
         const int64_t* draw, uint64_t seed, const Tensor& out) {
  const Tiling<2> tiling({&inputs, &out}, kCapacity);
  const SharedRows shared(
      out.shape[0], [key, draw](int64_t row) { return std::make_pair(key[row], draw[row]); }, out.shape[0]);
  const int64_t pitch = tiling.length + 8;  // a plane's noise starts anywhere in its first block
  const int64_t capacity = tiling.planes * tiling.length;

#pragma omp parallel if (out.shape[0] * tiling.elements > kCapacity)
  {
    std::vector<Real> noise(tiling.planes * pitch), values(capacity);
    std::vector<To> sums(capacity);
    Writer<To> writer(out);
#pragma omp for schedule(static) collapse(2)
    for (int64_t piece = 0; piece < shared.pieces(); ++piece) {
      for (int64_t index = 0; index < tiling.count; ++index) {
        const auto tile = tiling[index];
        const int64_t start = shared.starts[piece], stop = shared.starts[piece + 1];
        const int64_t first = shared.rows[start];
        const Stream stream(seed, static_cast<uint64_t>(key[first]), static_cast<uint64_t>(draw[first]));
        for (int64_t plane = 0; plane < tile.planes; ++plane) {
          const int64_t element = tile.element + plane * tiling.plane_elements;
          const int64_t block = element / 4, end = (element + tile.length + 3) / 4;
          normals(stream, block, end - block, noise.data() + plane * pitch);
        }
        for (int64_t i = start; i < stop; ++i) {
          const int64_t row = shared.rows[i];
          const Real* const read = tile_of(tiling, tile, 0, inputs, sample[row]).read(values.data());
          const Real by = static_cast<Real>(scale[row]);
          writer.fill(tile_of(tiling, tile, 1, out, row), sums.data(), [&](int64_t at, int64_t n, To* to) {
            for (const int64_t stop_at = at + n; at < stop_at;) {  // plane by plane
              const int64_t plane = at / tile.length, place = at % tile.length;
              const int64_t skipped = (tile.element + plane * tiling.plane_elements) % 4;
              const int64_t count = std::min(tile.length - place, stop_at - at);
              add_scaled(read + at, noise.data() + plane * pitch + skipped + place, by, to, count);
              to += count;
              at += count;
            }
          });
        }
      }
    }
  }
}

}  // namespace

void add_noise(const Tensor& inputs, const Tensor& scale, const Tensor& sample, const Tensor& key,
               const Tensor& draw, uint64_t seed, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(out.dtype, [&](auto value) {
    using To = decltype(value);
    const auto run = inputs.dtype == Dtype::kFloat64 ? add<double, To> : add<float, To>;
    run(inputs, scale.as<const double>(), sample.as<const int64_t>(), key.as<const int64_t>(),
        draw.as<const int64_t>(), seed, out);
  });
}

}  // namespace xai_fast
