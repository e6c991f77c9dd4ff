// SPDX-License-Identifier: Apache-2.0
#include "server/core/work_result.h"

#include <cctype>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using worker::v1::SynchronizeRequest;

constexpr size_t kMaxPathBytes = 200;
constexpr size_t kMaxPathParts = 4;
constexpr int kMaxDeltaFiles = 1000;

// True for "adapter/adapter_config.json" and the like: nothing that could leave its folder.
bool IsPlainPath(const std::string& path) {
  if (path.empty() || path.size() > kMaxPathBytes) return false;
  const std::vector<std::string> parts = absl::StrSplit(path, '/');
  if (parts.size() > kMaxPathParts) return false;
  for (const std::string& part : parts) {
    if (part.empty() || part.front() == '.') return false;
    for (const char c : part) {
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') {
        return false;
      }
    }
  }
  return true;
}

absl::Status ResultInvalid(const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID", why);
}

absl::Status KindInvalid(const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BLOB_KIND_INVALID", why);
}

}  // namespace

absl::StatusOr<Leased> ParseLeased(const std::string& resource) {
  Leased leased;
  if (absl::StartsWith(resource, "vectors/")) {
    leased.is_vector = true;
    BALLAST_ASSIGN_OR_RETURN(leased.id, ParseVectorName(resource, "lease.resource"));
    return leased;
  }
  BALLAST_ASSIGN_OR_RETURN(const TenantName name, ParseJobName(resource, "lease.resource"));
  leased.tenant = name.tenant;
  leased.id = name.id;
  return leased;
}

std::string AttemptPrefix(const Leased& leased, int64_t epoch) {
  return absl::StrCat(
      leased.is_vector ? VectorBlobs(leased.id) : JobBlobs(leased.tenant, leased.id), "/attempts/",
      epoch);
}

absl::StatusOr<std::string> BlobOfWrite(const worker::v1::WriteBlobRequest& first) {
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(first.lease().resource()));
  const std::string prefix = AttemptPrefix(leased, first.lease().epoch());
  switch (first.kind_case()) {
    case worker::v1::WriteBlobRequest::kDeltaPath:
      if (leased.is_vector) return KindInvalid("a vector has no delta");
      if (!IsPlainPath(first.delta_path())) {
        return KindInvalid(
            "delta_path must be relative: at most 4 parts of letters, digits, \"-\", \"_\" and "
            "\".\", "
            "none beginning with \".\"");
      }
      return absl::StrCat(prefix, "/delta/", first.delta_path());
    case worker::v1::WriteBlobRequest::kCheckpointStep:
      if (leased.is_vector || first.checkpoint_step() < 0) {
        return KindInvalid("only jobs have checkpoints, at a step of 0 or more");
      }
      return absl::StrCat(prefix, "/checkpoints/", first.checkpoint_step());
    case worker::v1::WriteBlobRequest::kSealedVector:
      if (!leased.is_vector) return KindInvalid("a job has no sealed vector");
      return absl::StrCat(prefix, "/sealed");
    case worker::v1::WriteBlobRequest::KIND_NOT_SET:
      break;
  }
  return KindInvalid("the first message must say what the blob is");
}

absl::StatusOr<std::vector<BlobFile>> FilesOfResult(const SynchronizeRequest::Finished& finished) {
  BALLAST_ASSIGN_OR_RETURN(const Leased leased, ParseLeased(finished.lease().resource()));
  const std::string prefix = AttemptPrefix(leased, finished.lease().epoch());
  std::vector<BlobFile> files;
  switch (finished.outcome_case()) {
    case SynchronizeRequest::Finished::kDelta: {
      if (leased.is_vector) return ResultInvalid("a vector's training has no delta");
      const auto& delta = finished.delta();
      if (delta.files_size() > kMaxDeltaFiles) return ResultInvalid("the delta has too many files");
      std::set<std::string> seen;
      bool manifest = false;
      for (const auto& file : delta.files()) {
        if (!IsPlainPath(file.path()) || !seen.insert(file.path()).second ||
            !IsDigest(file.digest()) || file.size_bytes() < 0) {
          return ResultInvalid(absl::StrCat("the file ", file.path(),
                                            " has a bad path, size or digest, or is there twice"));
        }
        if (file.path() == "manifest.json") manifest = file.digest() == delta.manifest_digest();
        BlobFile& out = files.emplace_back();
        out.set_path(file.path());
        out.set_blob(absl::StrCat(prefix, "/delta/", file.path()));
        out.set_size_bytes(file.size_bytes());
        out.set_digest(file.digest());
      }
      if (!manifest) {
        return ResultInvalid(
            "manifest.json is missing from the delta, or manifest_digest is not its digest");
      }
      return files;
    }
    case SynchronizeRequest::Finished::kVector: {
      if (!leased.is_vector) return ResultInvalid("a job's result is a delta, not a vector");
      if (!IsDigest(finished.vector().ciphertext_digest())) {
        return ResultInvalid("ciphertext_digest is no digest");
      }
      BlobFile& out = files.emplace_back();
      out.set_path("sealed");
      out.set_blob(absl::StrCat(prefix, "/sealed"));
      out.set_size_bytes(-1);
      out.set_digest(finished.vector().ciphertext_digest());
      return files;
    }
    case SynchronizeRequest::Finished::kError:
    case SynchronizeRequest::Finished::kCancelled:
    case SynchronizeRequest::Finished::kHandedBack:
      return files;
    case SynchronizeRequest::Finished::OUTCOME_NOT_SET:
      break;
  }
  return ResultInvalid("Finished must say how the lease ended");
}

bool IsNewScreening(const JobRecord& record, const SynchronizeRequest::Busy& busy) {
  // A later attempt finds the same, unless the screen was changed.
  return busy.has_screening() &&
         busy.screening().SerializeAsString() != record.job().screening().SerializeAsString();
}

absl::StatusOr<bool> RecordProgress(Transaction& tx, JobRecord& record,
                                    const SynchronizeRequest::Busy& busy, absl::Time now) {
  v1::JobProgress& progress = *record.mutable_job()->mutable_progress();
  progress.set_total_steps(busy.total_steps());
  // An attempt that was taken up again tells its step at an evaluation; until then it has told less
  // than is known.
  if (busy.step() >= progress.step()) {
    progress.set_step(busy.step());
    progress.set_trained_tokens(busy.trained_tokens());
  }
  bool told = false;
  if (IsNewScreening(record, busy)) {
    v1::JobEvent event;
    *event.mutable_screening() = busy.screening();
    BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx, record, std::move(event), now));
    *record.mutable_job()->mutable_screening() = busy.screening();
    told = true;
  }
  for (const v1::Evaluation& evaluation : busy.evaluations()) {
    // A later attempt passes the same points again; each is told once, so that a curve never goes
    // back.
    if (evaluation.step() < record.evaluated_until_step()) continue;
    v1::JobEvent event;
    *event.mutable_evaluation() = evaluation;
    BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx, record, std::move(event), now));
    record.set_evaluated_until_step(evaluation.step() + 1);
    *progress.add_evaluations() = evaluation;
    told = true;
  }
  return told;
}

}  // namespace ballast::server
