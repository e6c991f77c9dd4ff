// SPDX-License-Identifier: Apache-2.0
// clang-format off: the macros come before the include on purpose.
#define BALLAST_KERNELS_NAMESPACE kernels_generic
#define BALLAST_KERNELS_NAME "generic"
#include "worker/train/kernels_impl.h"
