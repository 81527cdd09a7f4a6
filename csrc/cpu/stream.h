// Writes past the caches: a batch larger than they are would be read from memory before it is written over,
// and push out of them what is read again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../instructions.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {

// Of a batch that no cache keeps: what systems tell of theirs is anything from one core's share to a whole
// machine's.
constexpr int64_t kPastCaches = int64_t{32} << 20;

#ifdef XAI_FAST_SETS
namespace detail {
XAI_FAST_AVX2 inline void stream_bytes(const char* from, char* to, int64_t bytes) {
  constexpr int64_t line = 64;  // whole ones: parts of lines are read from memory after all
  const int64_t head = std::min<int64_t>(-reinterpret_cast<uintptr_t>(to) % line, bytes);
  std::memcpy(to, from, head);
  int64_t at = head;
  for (; at + line <= bytes; at += line) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at), low);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at + 32), high);
  }
  std::memcpy(to + at, from + at, bytes - at);
}
}  // namespace detail
#endif

// Copies n values, past the caches where the processor can; `streamed()` has to follow.
template <typename T>
void stream(const T* from, T* to, int64_t n) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx2) {
    return detail::stream_bytes(reinterpret_cast<const char*>(from), reinterpret_cast<char*>(to),
                                n * static_cast<int64_t>(sizeof(T)));
  }
#endif
  std::memcpy(to, from, n * sizeof(T));
}

// Once after a thread's last `stream`: other threads see such writes only then.
inline void streamed() {
#ifdef XAI_FAST_SETS
  _mm_sfence();
#endif
}

}  // namespace xai_fast
