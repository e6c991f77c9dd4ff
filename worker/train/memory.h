// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_MEMORY_H_
#define BALLAST_WORKER_TRAIN_MEMORY_H_

#include <ATen/core/Tensor.h>

namespace ballast::worker {

// Asks for large pages under a tensor of the CPU: fewer faults while it is first filled, and fewer
// misses when a product walks over it. A hint; no effect on small tensors or other devices.
void PreferHugePages(const at::Tensor& tensor);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_MEMORY_H_
