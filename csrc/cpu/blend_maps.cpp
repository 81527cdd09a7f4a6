// blend_maps: rows of a batch become their input times a small map, which is resized line by line.
#include <vector>

#include "../ops.h"
#include "masked_rows.h"
#include "taps.h"

namespace xai_fast {
namespace {

template <typename To, typename Sum>
void multiply(const Sum* from, const Sum* factors, To* to, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) to[i] = convert<To>(from[i] * factors[i]);
  });
}

template <typename Sum>
void scale_line(Sum* line, Sum by, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) line[i] *= by;
  });
}

template <typename To, typename Sum>
void blend(const Tensor& inputs, const Tensor& maps, const int64_t* sample, const int64_t* number,
           const double* scale, const Tensor& out) {
  const int64_t height = maps.shape[1], width = maps.shape[2];
  const Taps<Sum> rows(height, out.shape[2]), columns(width, out.shape[3]);

  const auto line = [&](const MaskPart& part, Sum* factors) {
    thread_local std::vector<Sum> blended;
    blended.resize(width);
    const Sum* const map = maps.as<const Sum>() + number[part.row] * height * width;
    blend_lines(map + rows.low[part.y] * width, map + rows.high[part.y] * width, rows.share[part.y],
                blended.data(), width);
    columns.stretch(blended.data(), part.x, factors, part.length);
    scale_line(factors, static_cast<Sum>(scale[part.row]), part.length);
  };
  write_masked_rows<To, Sum>({&inputs}, sample, out, line,
                             [](const Sum* factors, const Sum* const(&from)[1], To* to, int64_t n) {
                               multiply(from[0], factors, to, n);
                             });
}

}  // namespace

void blend_maps(const Tensor& inputs, const Tensor& maps, const Tensor& sample, const Tensor& number,
                const Tensor& scale, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(out.dtype, [&](auto value) {
    using To = decltype(value);
    const auto run = maps.dtype == Dtype::kFloat64 ? blend<To, double> : blend<To, float>;
    run(inputs, maps, sample.as<const int64_t>(), number.as<const int64_t>(), scale.as<const double>(), out);
  });
}

}  // namespace xai_fast
