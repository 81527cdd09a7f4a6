// Linear resizing of lines: where a resized axis reads (align_corners=False), and how two lines become one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../instructions.h"

namespace xai_fast {

// Where the elements of a resized axis read (align_corners=False): between `low` and `high`, `share` of the
// latter.
template <typename Sum>
struct Taps {
  std::vector<int32_t> low, high;
  std::vector<Sum> share;

  Taps(int64_t from, int64_t to) : low(to), high(to), share(to) {
    for (int64_t i = 0; i < to; ++i) {
      // (i + 0.5) * from / to - 0.5 as a fraction of integers, which is exact
      const int64_t numerator = std::max<int64_t>((2 * i + 1) * from - to, 0), denominator = 2 * to;
      low[i] = static_cast<int32_t>(numerator / denominator);
      high[i] = static_cast<int32_t>(std::min<int64_t>(low[i] + 1, from - 1));
      share[i] =
          static_cast<Sum>(static_cast<double>(numerator % denominator) / static_cast<double>(denominator));
    }
  }
};

template <typename Sum>
inline void blend_lines(const Sum* low, const Sum* high, Sum share, Sum* line, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) line[i] = low[i] * (1 - share) + high[i] * share;
  });
}

template <typename Sum>
inline void stretch_line(const Sum* line, const int32_t* low, const int32_t* high, const Sum* share, Sum* out,
                         int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) out[i] = line[low[i]] * (1 - share[i]) + line[high[i]] * share[i];
  });
}

}  // namespace xai_fast
