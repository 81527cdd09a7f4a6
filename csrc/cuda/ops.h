// The kernels for GPUs, by the contracts of ../ops.h on memory of the device, queued on a stream of it.
#pragma once

#include <cstdint>
#include <string>

#include "../tensor.h"

namespace xai_fast::cuda {

void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out, int device, uint64_t stream);

void hide_segments(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const Tensor& sample,
                   const Tensor& keep, const Tensor& out, int device, uint64_t stream);

void region_gather(const Tensor& base, const Tensor& patch, const Tensor& patch_at, const Tensor& sample,
                   const Tensor& at, const Tensor& out, const std::string& border, double fill, int device,
                   uint64_t stream);

}  // namespace xai_fast::cuda
