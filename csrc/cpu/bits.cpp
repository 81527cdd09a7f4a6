// sign_bits and pass_bits: what a ReLU let through, remembered in one bit per element, and applied to
// gradients.
#include <algorithm>
#include <cstdint>

#include "../ops.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define XAI_FAST_WIDE_MASKS __attribute__((target("avx512f")))
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

#ifdef XAI_FAST_WIDE_MASKS
XAI_FAST_WIDE_MASKS uint64_t read_word_wide(const float* values) {
  uint64_t word = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512 lanes = _mm512_loadu_ps(values + 16 * part);
    word |= static_cast<uint64_t>(_mm512_cmp_ps_mask(lanes, _mm512_setzero_ps(), _CMP_NLE_UQ)) << (16 * part);
  }
  return word;
}

XAI_FAST_WIDE_MASKS void write_word_wide(const float* gradient, uint64_t word, float* out) {
  for (int part = 0; part < 4; ++part) {
    const auto mask = static_cast<__mmask16>(word >> (16 * part));
    _mm512_storeu_ps(out + 16 * part, _mm512_maskz_loadu_ps(mask, gradient + 16 * part));
  }
}

bool wide() { return __builtin_cpu_supports("avx512f"); }
#else
constexpr auto read_word_wide = read_word;
constexpr auto write_word_wide = write_word;
bool wide() { return false; }
#endif

}  // namespace

void sign_bits(const Tensor& values, const Tensor& bits) {
  const auto* const from = values.as<const float>();
  auto* const to = bits.as<uint64_t>();
  const int64_t n = values.size(), whole = n / kWord;
  const auto read = wide() ? read_word_wide : read_word;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) to[word] = read(from + word * kWord);
  if (n % kWord) to[whole] = read_some(from + whole * kWord, n % kWord);
}

void pass_bits(const Tensor& gradient, const Tensor& bits, const Tensor& out) {
  const auto* const from = gradient.as<const float>();
  const auto* const words = bits.as<const uint64_t>();
  auto* const to = out.as<float>();
  const int64_t n = gradient.size(), whole = n / kWord;
  const auto write = wide() ? write_word_wide : write_word;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) write(from + word * kWord, words[word], to + word * kWord);
  if (n % kWord) write_some(from + whole * kWord, words[whole], to + whole * kWord, n % kWord);
}

}  // namespace xai_fast
