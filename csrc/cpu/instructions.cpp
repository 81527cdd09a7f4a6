// Which instruction sets the processor has, and which of them kernels use.
#include "../instructions.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "../ops.h"

namespace xai_fast {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512_bf16"};

Instructions best() {
#ifdef XAI_FAST_SETS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512 && __builtin_cpu_supports("avx512bf16")) return Instructions::kAvx512Bf16;
  if (avx2) return avx512 ? Instructions::kAvx512 : Instructions::kAvx2;
#endif
  return Instructions::kBaseline;
}

}  // namespace

std::atomic<Instructions> detail::in_use{best()};

std::string best_instructions() { return kNames[static_cast<int>(best())]; }

void limit_instructions(const std::string& name) {
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) throw std::invalid_argument("no instruction set is named " + name);
  detail::in_use = std::min(best(), static_cast<Instructions>(found - kNames));
}

int64_t register_panel() {  // kernels assert that they agree
  return instructions() >= Instructions::kAvx512 ? 32 : instructions() >= Instructions::kAvx2 ? 16 : 0;
}

int64_t register_panel_of_halves() { return instructions() >= Instructions::kAvx512Bf16 ? 32 : 0; }

}  // namespace xai_fast
