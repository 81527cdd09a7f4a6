// Which instruction set kernels use: chosen per call among those that the processor has, so that wheels stay
// portable and every form of a kernel can be tested on one machine.
#pragma once

#include <atomic>
#include <string>

// GCC and Clang compile a function for more than the library's own processor; others get the plain form.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define XAI_FAST_SETS
#define XAI_FAST_AVX2 __attribute__((target("avx2,fma,bmi,bmi2")))
#define XAI_FAST_AVX512 \
  __attribute__((target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")))
#define XAI_FAST_AVX512_BF16 \
  __attribute__((target("avx2,fma,bmi,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")))
#endif
#if defined(__GNUC__) || defined(__clang__)
#define XAI_FAST_INLINED __attribute__((always_inline))
#else
#define XAI_FAST_INLINED
#endif

namespace xai_fast {

// Each knows what those before it know.
enum class Instructions { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

namespace detail {
extern std::atomic<Instructions> in_use;
}

// What a call may use now.
inline Instructions instructions() { return detail::in_use.load(std::memory_order_relaxed); }

// The largest set of this processor, by name.
std::string best_instructions();

// From now on calls use a set of at most this name, which `best_instructions` may give.
void limit_instructions(const std::string& name);

#ifdef XAI_FAST_SETS
// By value: what a loop writes could change a closure that is referred to, which would then be read every
// time.
namespace detail {
template <typename Body>
XAI_FAST_AVX2 auto in_avx2(Body body) {
  return body();
}
template <typename Body>
XAI_FAST_AVX512 auto in_avx512(Body body) {
  return body();
}
}  // namespace detail
#endif

// Runs a loop, a lambda that is XAI_FAST_INLINED, compiled for AVX2 where the processor has it. Only for
// loops without OpenMP pragmas (an outlined parallel body would keep the oldest instruction set).
template <typename Body>
inline auto vectorised(Body body) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx2) return detail::in_avx2(body);
#endif
  return body();
}

// The same for loops that compute more than they read and write: AVX-512 knows arithmetic on 64-bit integers.
template <typename Body>
inline auto vectorised_widely(Body body) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx512) return detail::in_avx512(body);
#endif
  return vectorised(body);
}

}  // namespace xai_fast
