// SPDX-License-Identifier: Apache-2.0
// clang-format off: the macros come before the include on purpose.
#define BALLAST_KERNELS_NAMESPACE kernels_avx2
#define BALLAST_KERNELS_NAME "avx2"
#include "worker/train/kernels_impl.h"
