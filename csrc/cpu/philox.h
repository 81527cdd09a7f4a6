// Philox4x32-10 (Salmon et al. 2011) and normal numbers from it: each a function of where it is asked for, so
// that no order and no thread count changes it. Written so that compilers vectorise over blocks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../half.h"
#include "../instructions.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {

// Everything that addresses a block of four words but its number: the rest of the counter, and the key.
struct Stream {
  uint32_t draw, key_low, key_high, seed_low, seed_high;

  Stream(uint64_t seed, uint64_t key, uint64_t number)
      : draw(static_cast<uint32_t>(number)),
        key_low(static_cast<uint32_t>(key)),
        key_high(static_cast<uint32_t>(key >> 32)),
        seed_low(static_cast<uint32_t>(seed)),
        seed_high(static_cast<uint32_t>(seed >> 32)) {}
};

namespace philox {

constexpr int kBlocks = 64;  // that are computed together: all in the first-level cache

constexpr int kRounds = 10;
constexpr uint32_t kEven = 0xD2511F53u, kOdd = 0xCD9E8D57u;     // factors
constexpr uint32_t kStep0 = 0x9E3779B9u, kStep1 = 0xBB67AE85u;  // of the keys

#ifdef XAI_FAST_SETS
namespace avx2 {
#define XAI_FAST_TARGET XAI_FAST_AVX2
constexpr int kSlots = 4;
using Register = __m256i;
XAI_FAST_TARGET inline Register product(Register a, Register b) { return _mm256_mul_epu32(a, b); }
#include "philox_slots.h"
#undef XAI_FAST_TARGET
}  // namespace avx2

namespace avx512 {
#define XAI_FAST_TARGET XAI_FAST_AVX512
constexpr int kSlots = 8;
using Register = __m512i;
XAI_FAST_TARGET inline Register product(Register a, Register b) {
  return _mm512_maskz_mul_epu32(0xff, a, b);  // the plain one warns of what it does not read
}
#include "philox_slots.h"
#undef XAI_FAST_TARGET
}  // namespace avx512
#endif

// The same one block at a time.
inline void plain_words(const Stream& stream, uint32_t first, int n, uint32_t (*words)[kBlocks]) {
  for (int i = 0; i < n; ++i) {
    uint32_t c[4] = {first + static_cast<uint32_t>(i), stream.draw, stream.key_low, stream.key_high};
    uint32_t k0 = stream.seed_low, k1 = stream.seed_high;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t product0 = static_cast<uint64_t>(kEven) * c[0],
                     product2 = static_cast<uint64_t>(kOdd) * c[2];
      c[0] = static_cast<uint32_t>(product2 >> 32) ^ c[1] ^ k0;
      c[1] = static_cast<uint32_t>(product2);
      c[2] = static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ k1;
      c[3] = static_cast<uint32_t>(product0);
      k0 += kStep0;
      k1 += kStep1;
    }
    for (int j = 0; j < 4; ++j) words[j][i] = c[j];
  }
}

// words[j][i]: word j of the block `first` + i.
inline void words(const Stream& stream, uint32_t first, int n, uint32_t (*words)[kBlocks]) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx512) return avx512::words(stream, first, n, words);
  if (instructions() >= Instructions::kAvx2) return avx2::words(stream, first, n, words);
#endif
  plain_words(stream, first, n, words);
}

// What the formulas below need to know of a floating type, with the number of terms that its precision takes.
template <typename Real>
struct Format;

template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr Bits kSqrtHalf = 0x3f3504f3;
  static constexpr int kMantissa = 23, kLogTerms = 4, kSinTerms = 4, kCosTerms = 5;
};

template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr Bits kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr int kMantissa = 52, kLogTerms = 10, kSinTerms = 8, kCosTerms = 9;
};

// sqrt(-2 log u) with u = (word | 1) / 2^32, which is neither 0 nor 1. Below 1 the distance from it is what
// has to be precise, and the word read as a signed integer is that distance.
template <typename Real>
inline Real radius(uint32_t word) {
  using F = Format<Real>;
  using Bits = typename F::Bits;
  const Real signed_part = static_cast<Real>(static_cast<int32_t>(word | 1u)) * Real(0x1p-32);
  const Real u = signed_part < 0 ? 1 + signed_part : signed_part;
  // u = 2^exponent * m with m in [sqrt(1/2), sqrt(2)), and log(m) = 2 artanh(s).
  const Bits bits = bit_cast<Bits>(u);
  const Bits exponent = (bits - F::kSqrtHalf) >> F::kMantissa;
  const Real m = bit_cast<Real>(bits - exponent * (Bits(1) << F::kMantissa));
  const Real from_one = exponent == 0 ? signed_part : m - 1;
  const Real s = from_one / (2 + from_one), square = s * s;
  Real series = 0;
#pragma GCC unroll 10
  for (int n = F::kLogTerms; n > 0; --n) series = (series + Real(1) / (2 * n + 1)) * square;
  const Real log = static_cast<Real>(exponent) * Real(0.6931471805599453) + (2 * s + 2 * s * series);
  return std::sqrt(-2 * log);
}

// Cosine and sine of 2 pi word / 2^32: the quarter turn is taken off exactly, as integers.
template <typename Real>
inline void turn(uint32_t word, Real& cosine, Real& sine) {
  using F = Format<Real>;
  const uint32_t quarter = (word + (1u << 29)) >> 30;
  const Real angle = static_cast<Real>(static_cast<int32_t>(word - (quarter << 30))) *
                     Real(1.5707963267948966 * 0x1p-30);  // in [-pi/4, pi/4)
  const Real square = angle * angle;
  Real s = 1, c = 1;
#pragma GCC unroll 10
  for (int n = F::kSinTerms; n > 0; --n) s = 1 - square * (Real(1) / (2 * n * (2 * n + 1))) * s;
#pragma GCC unroll 10
  for (int n = F::kCosTerms; n > 0; --n) c = 1 - square * (Real(1) / ((2 * n - 1) * 2 * n)) * c;
  s *= angle;
  const bool swapped = quarter & 1u;
  const Real x = swapped ? s : c, y = swapped ? c : s;
  cosine = (quarter + 1) & 2u ? -x : x;
  sine = quarter & 2u ? -y : y;
}

// Box and Muller's two normal numbers per pair of words.
template <typename Real>
void pairs(const uint32_t* lengths, const uint32_t* angles, int n, Real* first, Real* second) {
  vectorised_widely([=]() XAI_FAST_INLINED {
    for (int i = 0; i < n; ++i) {
      Real cosine, sine;
      const Real length = radius<Real>(lengths[i]);
      turn(angles[i], cosine, sine);
      first[i] = length * cosine;
      second[i] = length * sine;
    }
  });
}

template <typename Real>
void interleave(const Real (*planes)[kBlocks], int n, Real* out) {
  vectorised_widely([=]() XAI_FAST_INLINED {
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < 4; ++j) out[4 * i + j] = planes[j][i];
    }
  });
}

}  // namespace philox

// The normal numbers of `count` blocks of a stream, four per block.
template <typename Real>
void normals(const Stream& stream, int64_t first, int64_t count, Real* out) {
  alignas(64) uint32_t words[4][philox::kBlocks];
  alignas(64) Real planes[4][philox::kBlocks];
  for (int64_t done = 0; done < count; done += philox::kBlocks) {
    const int n = static_cast<int>(std::min<int64_t>(philox::kBlocks, count - done));
    philox::words(stream, static_cast<uint32_t>(first + done), n, words);
    for (int j = 0; j < 4; j += 2) philox::pairs(words[j], words[j + 1], n, planes[j], planes[j + 1]);
    philox::interleave(planes, n, out + 4 * done);
  }
}

}  // namespace xai_fast
