// Launches of kernels that write rows piece by piece. Where no CUDA compiler builds this, the same threads
// run one after the other on the host: so tests run what a GPU runs, without one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../half.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

#ifndef XAI_FAST_MAX_BLOCKS
#define XAI_FAST_MAX_BLOCKS 2147483647  // of a grid along its first axis; tests set it lower
#endif

namespace xai_fast::cuda {

constexpr uint32_t kThreads = 256;

// Where a launch goes: the device that holds the tensors, and torch's current stream there.
struct Queue {
  int device;
  uint64_t stream;
};

// What one thread does. A body says how many `pieces` a row has, and writes one.
template <typename Body>
XAI_FAST_BOTH inline void run_thread(const Body& body, int64_t first_row, uint32_t blocks_per_row,
                                     uint32_t block, uint32_t thread) {
  const int64_t piece = static_cast<int64_t>(block % blocks_per_row) * kThreads + thread;
  if (piece < body.pieces) body.write(first_row + block / blocks_per_row, piece);
}

#ifdef __CUDACC__

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(what) + " failed: " + cudaGetErrorString(status));
  }
}

// At least two blocks at once: told that, nvcc 13 keeps 64-bit divisions from spilling on sm_100.
template <typename Body>
__global__ void __launch_bounds__(kThreads, 2)
    run_grid(const __grid_constant__ Body body, int64_t first_row, uint32_t blocks_per_row) {
  run_thread(body, first_row, blocks_per_row, blockIdx.x, threadIdx.x);
}

// Makes a device the current one for a while.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = before_ != device;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

template <typename Body>
void launch_rows(const Body& body, int64_t first_row, uint32_t blocks_per_row, uint32_t blocks, Queue queue) {
  run_grid<<<blocks, kThreads, 0, reinterpret_cast<cudaStream_t>(queue.stream)>>>(body, first_row,
                                                                                  blocks_per_row);
  check(cudaGetLastError(), "the launch of a kernel");
}

#else

struct OnDevice {
  explicit OnDevice(int) {}
};

template <typename Body>
void launch_rows(const Body& body, int64_t first_row, uint32_t blocks_per_row, uint32_t blocks, Queue) {
  for (uint32_t block = 0; block < blocks; ++block) {
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      run_thread(body, first_row, blocks_per_row, block, thread);
    }
  }
}

#endif

// Writes every piece of every row; as many launches as it takes.
template <typename Body>
void launch(const Body& body, int64_t rows, Queue queue) {
  const int64_t blocks_per_row = (body.pieces + kThreads - 1) / kThreads;
  if (blocks_per_row > 2147483647)
    throw std::invalid_argument("a row has more elements than a kernel counts");
  if (blocks_per_row == 0) return;
  const OnDevice device(queue.device);
  const int64_t at_once = std::max<int64_t>(1, XAI_FAST_MAX_BLOCKS / blocks_per_row);
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t blocks = std::min(at_once, rows - row) * blocks_per_row;
    launch_rows(body, row, static_cast<uint32_t>(blocks_per_row), static_cast<uint32_t>(blocks), queue);
  }
}

}  // namespace xai_fast::cuda
