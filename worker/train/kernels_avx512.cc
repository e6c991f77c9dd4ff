// SPDX-License-Identifier: Apache-2.0
// clang-format off: the macros come before the include on purpose.
#define BALLAST_KERNELS_NAMESPACE kernels_avx512
#define BALLAST_KERNELS_NAME "avx512"
#include "worker/train/kernels_impl.h"
