// Linear resizing of lines: where a resized axis reads (align_corners=False), and how two lines become one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../instructions.h"

namespace xai_fast {

// Positions of one cell for which a loop over them is faster than looking each of them up.
constexpr int64_t kLongCell = 16;

// For every position the first one beyond it with another cell.
inline std::vector<int32_t> run_ends(const std::vector<int32_t>& cells) {
  std::vector<int32_t> ends(cells.size());
  for (int64_t i = static_cast<int64_t>(cells.size()) - 1; i >= 0; --i) {
    const bool last = i + 1 == static_cast<int64_t>(cells.size()) || cells[i] != cells[i + 1];
    ends[i] = last ? static_cast<int32_t>(i + 1) : ends[i + 1];
  }
  return ends;
}

// Where the elements of a resized axis read (align_corners=False): between `low` and `high`, `share` of the
// latter.
template <typename Sum>
struct Taps {
  std::vector<int32_t> low, high, until;
  std::vector<Sum> share;
  bool lengthy;  // cells have many positions

  Taps(int64_t from, int64_t to) : low(to), high(to), share(to), lengthy(to >= kLongCell * from) {
    for (int64_t i = 0; i < to; ++i) {
      // (i + 0.5) * from / to - 0.5 as a fraction of integers, which is exact
      const int64_t numerator = std::max<int64_t>((2 * i + 1) * from - to, 0), denominator = 2 * to;
      low[i] = static_cast<int32_t>(numerator / denominator);
      high[i] = static_cast<int32_t>(std::min<int64_t>(low[i] + 1, from - 1));
      share[i] =
          static_cast<Sum>(static_cast<double>(numerator % denominator) / static_cast<double>(denominator));
    }
    until = run_ends(low);
  }

  // Elements `start` up to `start` + n of a line that is resized.
  void stretch(const Sum* line, int64_t start, Sum* out, int64_t n) const {
    const int32_t *const lows = low.data() + start, *const highs = high.data() + start;
    const int32_t* const ends = until.data() + start;
    const Sum* const shares = share.data() + start;
    vectorised([=, lengthy = lengthy]() XAI_FAST_INLINED {
      if (!lengthy) {
        for (int64_t i = 0; i < n; ++i) out[i] = line[lows[i]] * (1 - shares[i]) + line[highs[i]] * shares[i];
        return;
      }
      for (int64_t i = 0; i < n;) {
        const int64_t end = std::min(ends[i] - start, n);
        const Sum first = line[lows[i]], second = line[highs[i]];
#pragma GCC ivdep
        for (; i < end; ++i) out[i] = first * (1 - shares[i]) + second * shares[i];
      }
    });
  }
};

template <typename Sum>
inline void blend_lines(const Sum* low, const Sum* high, Sum share, Sum* line, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) line[i] = low[i] * (1 - share) + high[i] * share;
  });
}

}  // namespace xai_fast
