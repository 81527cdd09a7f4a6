// Rows of a batch that are made from the same values, which are read once for all of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace xai_fast {

// The rows in an order in which those of one key follow each other; piece p of them is rows[starts[p]] up to
// rows[starts[p + 1]], and has one key.
struct SharedRows {
  std::vector<int64_t> rows, starts;

  // `key(row)` can be compared; `most`: rows of a piece, so that there is work for every thread.
  template <typename Key>
  SharedRows(int64_t n, const Key& key, int64_t most) : rows(n) {
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&key](int64_t a, int64_t b) { return key(a) < key(b); });
    for (int64_t i = 0; i < n; ++i) {
      const bool another = i == 0 || key(rows[i - 1]) < key(rows[i]);
      if (another || i - starts.back() == most) starts.push_back(i);
    }
    starts.push_back(n);
  }

  int64_t pieces() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// Pieces of a batch whose rows cost the same: some for each thread, as long as what they share is read for
// enough of them.
inline int64_t rows_of_a_piece(int64_t n_rows, int64_t n_threads) {
  constexpr int64_t fewest = 8;
  return std::max(fewest, (n_rows + 2 * n_threads - 1) / (2 * n_threads));
}

}  // namespace xai_fast
