// SPDX-License-Identifier: Apache-2.0
// A race on purpose: two threads add to one counter without a lock. scripts/nightly runs it with
// the suppressions of tsan.supp and expects ThreadSanitizer to report it; if it ends in peace, the
// suppressions hide too much. It calls gRPC and abseil, as our code does, so that their
// suppressions are in play.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <thread>

#include "absl/synchronization/mutex.h"

namespace {

int unguarded_counter = 0;
absl::Mutex mutex;
int guarded_counter = 0;

void Count() {
  for (int i = 0; i < 100000; ++i) {
    ++unguarded_counter;
    absl::MutexLock lock(&mutex);
    ++guarded_counter;
  }
}

}  // namespace

int main() {
  auto channel = grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials());
  channel->GetState(/*try_to_connect=*/false);
  std::thread first(Count);
  std::thread second(Count);
  first.join();
  second.join();
  std::printf("%d %d\n", unguarded_counter, guarded_counter);
  return 0;
}
