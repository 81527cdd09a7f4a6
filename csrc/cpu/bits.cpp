// sign_bits and pass_bits: what a ReLU let through, remembered in one bit per element, and applied to
// gradients.
#include <algorithm>
#include <cstdint>

#include "../ops.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {
namespace {

constexpr int64_t kWord = 64;
constexpr int64_t kSmallest = 1 << 12;  // words below which threads cost more than they save

// The first `count` elements of a word; NaN counts as let through, as in torch.
uint64_t read_some(const float* values, int64_t count) {
  uint64_t word = 0;
  for (int64_t i = 0; i < count; ++i) word |= static_cast<uint64_t>(!(values[i] <= 0)) << i;
  return word;
}

void write_some(const float* gradient, uint64_t word, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = word >> i & 1 ? gradient[i] : 0.0f;
}

uint64_t read_word(const float* values) { return read_some(values, kWord); }
void write_word(const float* gradient, uint64_t word, float* out) { write_some(gradient, word, out, kWord); }

// How one word is read and written.
struct Word {
  uint64_t (*read)(const float* values);
  void (*write)(const float* gradient, uint64_t word, float* out);
};

#ifdef XAI_FAST_SETS
namespace avx512 {
XAI_FAST_AVX512 uint64_t read_word(const float* values) {
  uint64_t word = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512 lanes = _mm512_loadu_ps(values + 16 * part);
    word |= static_cast<uint64_t>(_mm512_cmp_ps_mask(lanes, _mm512_setzero_ps(), _CMP_NLE_UQ)) << (16 * part);
  }
  return word;
}

XAI_FAST_AVX512 void write_word(const float* gradient, uint64_t word, float* out) {
  for (int part = 0; part < 4; ++part) {
    const auto mask = static_cast<__mmask16>(word >> (16 * part));
    _mm512_storeu_ps(out + 16 * part, _mm512_maskz_loadu_ps(mask, gradient + 16 * part));
  }
}
}  // namespace avx512

namespace avx2 {
XAI_FAST_AVX2 uint64_t read_word(const float* values) {
  uint64_t word = 0;
  for (int part = 0; part < 8; ++part) {
    const __m256 passed = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * part), _mm256_setzero_ps(), _CMP_NLE_UQ);
    word |= static_cast<uint64_t>(_mm256_movemask_ps(passed)) << (8 * part);
  }
  return word;
}

XAI_FAST_AVX2 void write_word(const float* gradient, uint64_t word, float* out) {
  const __m256i bit_of_lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  for (int part = 0; part < 8; ++part) {
    const __m256i byte = _mm256_set1_epi32(static_cast<int>(word >> (8 * part)));
    const __m256i passes = _mm256_cmpeq_epi32(_mm256_and_si256(byte, bit_of_lane), bit_of_lane);
    _mm256_storeu_ps(out + 8 * part,
                     _mm256_and_ps(_mm256_loadu_ps(gradient + 8 * part), _mm256_castsi256_ps(passes)));
  }
}
}  // namespace avx2
#endif

Word fastest() {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx512) return {avx512::read_word, avx512::write_word};
  if (instructions() >= Instructions::kAvx2) return {avx2::read_word, avx2::write_word};
#endif
  return {read_word, write_word};
}

}  // namespace

void sign_bits(const Tensor& values, const Tensor& bits) {
  const auto* const from = values.as<const float>();
  auto* const to = bits.as<uint64_t>();
  const int64_t n = values.size(), whole = n / kWord;
  const auto read = fastest().read;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) to[word] = read(from + word * kWord);
  if (n % kWord) to[whole] = read_some(from + whole * kWord, n % kWord);
}

void pass_bits(const Tensor& gradient, const Tensor& bits, const Tensor& out) {
  const auto* const from = gradient.as<const float>();
  const auto* const words = bits.as<const uint64_t>();
  auto* const to = out.as<float>();
  const int64_t n = gradient.size(), whole = n / kWord;
  const auto write = fastest().write;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) write(from + word * kWord, words[word], to + word * kWord);
  if (n % kWord) write_some(from + whole * kWord, words[whole], to + whole * kWord, n % kWord);
}

}  // namespace xai_fast
