// byte_hash: 64 bits per tensor that tell whether any byte of its memory has changed, at the speed of reading
// it.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../ops.h"

namespace xai_fast {
namespace {

constexpr uint64_t kFactor =
    0x9E3779B97F4A7C15u;  // 2^64 over the golden ratio; odd, so that products are unique
constexpr int kTurn = 29;
constexpr int kLanes = 32, kSteps = 16;
constexpr int64_t kWords = kLanes * kSteps;  // of a block
constexpr int64_t kBytes = kWords * 8;
constexpr int kLine = 64;          // bytes that come from memory together
constexpr int64_t kSmallest = 64;  // blocks below which threads cost more than they save

inline uint64_t turned(uint64_t word) { return (word << kTurn | word >> (64 - kTurn)) * kFactor; }

// Tells the processor that memory `ahead` bytes behind `bytes` will be read: a hash waits for its lanes, and
// what fetches memory by itself stops at the end of each page. An address beyond the data is no error.
inline void fetch(const void* bytes, int64_t ahead) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(bytes) + ahead));
#endif
}

// Every step is a bijection of the lane and of what enters it: one changed word changes the result for
// certain.
uint64_t hash_block(const uint64_t* words) {
  return vectorised_widely([words]() XAI_FAST_INLINED {
    uint64_t lane[kLanes];
    for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<uint64_t>(i + 1) * kFactor;
    for (int step = 0; step < kSteps; ++step) {
      for (int i = 0; i < kLanes; i += kLine / 8) fetch(words + step * kLanes + i, kBytes);
      for (int i = 0; i < kLanes; ++i) lane[i] = turned(lane[i] ^ words[step * kLanes + i]);
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lane[i] = turned(lane[i]) ^ lane[i + half];
    }
    return (lane[0] ^ lane[0] >> 32) * kFactor;
  });
}

// The block at `bytes`, of which `count` belong to the data; the rest counts as zeros.
uint64_t hash_bytes(const char* bytes, int64_t count) {
  uint64_t words[kWords];
  if (count < kBytes || reinterpret_cast<uintptr_t>(bytes) % alignof(uint64_t) != 0) {
    const int64_t taken = std::min(count, kBytes);
    std::memcpy(words, bytes, taken);
    std::memset(reinterpret_cast<char*>(words) + taken, 0, kBytes - taken);
    return hash_block(words);
  }
  return hash_block(reinterpret_cast<const uint64_t*>(bytes));
}

int64_t blocks_of(int64_t bytes) { return (bytes + kBytes - 1) / kBytes; }

// The hashes of blocks are data again, until one is left.
uint64_t root(std::vector<uint64_t> level) {
  while (level.size() > 1) {
    const int64_t bytes = static_cast<int64_t>(level.size()) * 8;
    std::vector<uint64_t> next(blocks_of(bytes));
    for (size_t block = 0; block < next.size(); ++block) {
      const int64_t start = static_cast<int64_t>(block) * kBytes;
      next[block] = hash_bytes(reinterpret_cast<const char*>(level.data()) + start, bytes - start);
    }
    level = std::move(next);
  }
  return level.empty() ? 0 : level[0];
}

}  // namespace

void byte_hash(const Tensor& spans, const Tensor& out) {
  const auto* const span = spans.as<const int64_t>();
  auto* const result = out.as<uint64_t>();
  const int64_t count = out.size();
  std::vector<std::vector<uint64_t>> words(count);
  std::vector<std::pair<int64_t, int64_t>> blocks;  // of which tensor, where in it
  const auto bytes_of = [span](int64_t i) { return span[2 * i] ? span[2 * i + 1] : 0; };  // or given back
  for (int64_t i = 0; i < count; ++i) {
    words[i].resize(blocks_of(bytes_of(i)));
    for (size_t block = 0; block < words[i].size(); ++block) blocks.emplace_back(i, block);
  }
  const int64_t n = static_cast<int64_t>(blocks.size());
#pragma omp parallel for schedule(static) if (n > kSmallest)
  for (int64_t k = 0; k < n; ++k) {
    const auto [i, block] = blocks[k];
    const int64_t start = block * kBytes;
    words[i][block] = hash_bytes(reinterpret_cast<const char*>(span[2 * i]) + start, span[2 * i + 1] - start);
  }
  for (int64_t i = 0; i < count; ++i) {
    // The length tells data from the same data with zeros behind it.
    result[i] = (root(std::move(words[i])) ^ static_cast<uint64_t>(bytes_of(i))) * kFactor;
  }
}

}  // namespace xai_fast
