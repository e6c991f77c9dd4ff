// SPDX-License-Identifier: Apache-2.0
#include "worker/thread_waiting.h"

#include <unistd.h>

#include <cstdlib>

namespace ballast::worker {

void ShortenThreadWaits(char** argv) {
  if (getenv("OMP_WAIT_POLICY") != nullptr || getenv("GOMP_SPINCOUNT") != nullptr) return;
  // Some tens of microseconds: longer than the gap between two products, far shorter than a time
  // slice.
  setenv("GOMP_SPINCOUNT", "5000", /*overwrite=*/1);
  execv("/proc/self/exe", argv);
}

}  // namespace ballast::worker
