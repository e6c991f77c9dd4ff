// SPDX-License-Identifier: Apache-2.0
#include "worker/train/memory.h"

#include <sys/mman.h>

#include <cstdint>

namespace ballast::worker {

void PreferHugePages(const at::Tensor& tensor) {
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  if (!tensor.is_cpu()) return;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const uintptr_t end = (begin + tensor.nbytes()) / kHugePage * kHugePage;
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address rounded up to a page.
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}

}  // namespace ballast::worker
