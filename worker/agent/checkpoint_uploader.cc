// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/checkpoint_uploader.h"

#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/agent/status_text.h"

namespace ballast::worker::agent {
namespace {

// Vectors' ids begin with "vec-", so a checkpoint never opens as a vector or the other way round.
VectorBinding Binding(const std::string& resource, const std::string& base_digest) {
  return {absl::StrCat("checkpoint of ", resource), 1, base_digest};
}

}  // namespace

CheckpointUploader::CheckpointUploader(WorkerClient& client, VectorVault& vault,
                                       LeaseSession& session, std::string base_digest)
    : client_(client), vault_(vault), session_(session), base_digest_(std::move(base_digest)) {}

CheckpointUploader::~CheckpointUploader() { Stop(); }

void CheckpointUploader::Start() {
  thread_ = std::thread([this] { Run(); });
}

void CheckpointUploader::Stop() {
  stop_.Cancel();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    waiting_.reset();
  }
  if (thread_.joinable()) thread_.join();
}

void CheckpointUploader::Add(int64_t step, std::string bytes) {
  absl::MutexLock lock(&mutex_);
  waiting_ = Checkpoint{step, std::move(bytes)};
}

void CheckpointUploader::Flush() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointUploader::IsIdle));
}

void CheckpointUploader::Run() {
  while (true) {
    Checkpoint checkpoint;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &CheckpointUploader::HasWork));
      if (stopping_) return;
      checkpoint = *std::exchange(waiting_, std::nullopt);
      uploading_ = true;
    }
    Upload(checkpoint);
    absl::MutexLock lock(&mutex_);
    uploading_ = false;
  }
}

void CheckpointUploader::Upload(const Checkpoint& checkpoint) {
  const auto digest = Write(checkpoint);
  if (digest.ok()) {
    PassKillPoint("worker.checkpoint.written");
    session_.SetCheckpoint(*digest, checkpoint.step);
    return;
  }
  spdlog::warn("the checkpoint of step {} could not be written: {}", checkpoint.step,
               StatusText(digest.status()));
  session_.SetCheckpointFailed();
}

absl::StatusOr<std::string> CheckpointUploader::Write(const Checkpoint& checkpoint) try {
  BALLAST_ASSIGN_OR_RETURN(const std::string sealed,
                           vault_.Seal(SecretBuffer::CopyOf(checkpoint.bytes),
                                       Binding(session_.lease().resource(), base_digest_)));
  PassKillPoint("worker.checkpoint.sealed");
  BlobKind kind;
  kind.checkpoint_step = checkpoint.step;
  return client_.WriteBlob(session_.lease(), kind, sealed, stop_);
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError("there is no memory for it");
}

absl::StatusOr<std::string> CheckpointUploader::Open(VectorVault& vault, std::string_view sealed,
                                                     const std::string& resource,
                                                     const std::string& base_digest) {
  BALLAST_ASSIGN_OR_RETURN(const SecretBuffer opened,
                           vault.Unseal(sealed, Binding(resource, base_digest)));
  return std::string(opened.view());
}

}  // namespace ballast::worker::agent
