// Memory that a thread keeps between calls, because fresh pages would cost as much as what is computed in
// them; and how many threads there are.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace xai_fast {

// Grows as it is needed.
class Scratch {
 public:
  template <typename Value>
  Value* of(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(Value)) + 63) / 64 * 64;
    if (bytes > capacity_) {
      memory_.reset(std::aligned_alloc(64, bytes));
      if (!memory_) throw std::bad_alloc();
      capacity_ = bytes;
    }
    return static_cast<Value*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  int64_t capacity_ = 0;
};

inline int64_t threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

}  // namespace xai_fast
