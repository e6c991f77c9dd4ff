// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_CHECKPOINT_UPLOADER_H_
#define BALLAST_WORKER_AGENT_CHECKPOINT_UPLOADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/agent/lease_session.h"
#include "worker/agent/worker_client.h"
#include "worker/vector_vault.h"

namespace ballast::worker::agent {

// Seals checkpoints to workers and writes them on a thread of its own, so that training does not
// wait. A checkpoint holds moments of gradients taken with the vector on (S3): it is sealed with
// the vault's key and bound to its job and base, so that neither the server nor a customer can read
// it.
//
// Where training is faster than writing, only the newest waiting checkpoint is kept.
// Thread safety: thread-safe. Start once; Stop is idempotent, drops what waits and
// ends the write that is under way.
class CheckpointUploader {
 public:
  // All must outlive the uploader.
  CheckpointUploader(WorkerClient& client, VectorVault& vault, LeaseSession& session,
                     std::string base_digest);
  ~CheckpointUploader();
  CheckpointUploader(const CheckpointUploader&) = delete;
  CheckpointUploader& operator=(const CheckpointUploader&) = delete;

  void Start();
  void Stop();

  // Takes a checkpoint; returns at once.
  void Add(int64_t step, std::string bytes);

  // Waits until everything added is written or has failed. Not to be called beside Stop.
  void Flush();

  // The engine's bytes from a sealed checkpoint of the same job and base. DATA_LOSS
  // (VECTOR_CORRUPT) or FAILED_PRECONDITION (VAULT_KEY_WRONG).
  static absl::StatusOr<std::string> Open(VectorVault& vault, std::string_view sealed,
                                          const std::string& resource,
                                          const std::string& base_digest);

 private:
  struct Checkpoint {
    int64_t step = 0;
    std::string bytes;
  };
  void Run();
  // Tells the session how it went.
  void Upload(const Checkpoint& checkpoint);
  absl::StatusOr<std::string> Write(const Checkpoint& checkpoint);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || waiting_.has_value();
  }
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || (!waiting_.has_value() && !uploading_);
  }

  WorkerClient& client_;
  VectorVault& vault_;
  LeaseSession& session_;
  const std::string base_digest_;
  Cancellation stop_;  // ends the write that is under way

  absl::Mutex mutex_;
  std::optional<Checkpoint> waiting_ ABSL_GUARDED_BY(mutex_);
  bool uploading_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_CHECKPOINT_UPLOADER_H_
