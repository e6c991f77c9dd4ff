// SPDX-License-Identifier: Apache-2.0
#include "server/core/leased_job.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/gate_result.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/serving_vector.h"
#include "server/core/transitions.h"
#include "server/core/work_of.h"

namespace ballast::server {
namespace {

using v1::FineTuningJob;
using worker::v1::SynchronizeRequest;

constexpr size_t kMaxPathBytes = 200;
constexpr size_t kMaxPathParts = 4;
constexpr int kMaxDeltaFiles = 1000;
// Weight of the newest job in the moving average of a base's speed.
constexpr double kSpeedWeight = 0.3;

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

LeasedWork::Wish LeasedJob::OwnersWish() const {
  switch (record_.job().state()) {
    case FineTuningJob::CANCELLING:
      return Wish::kCancel;
    case FineTuningJob::PAUSING:
      return Wish::kPause;
    default:
      return Wish::kGoOn;
  }
}

absl::StatusOr<std::optional<BaseModelRecord>> LeasedJob::Base(Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(const std::string id,
                           ParseBaseModelName(record_.job().base_model(), "base_model"));
  return GetRecord<BaseModelRecord>(tx_, "", id, hold);
}

absl::StatusOr<bool> LeasedJob::IsCoarse() {
  BALLAST_ASSIGN_OR_RETURN(const auto base, Base(Hold::kNone));
  return !base.has_value() ||
         (!base->model().unprotected() && PolicyOf(*base) == admin::v1::VECTOR_POLICY_BY_ROW);
}

absl::StatusOr<worker::v1::Work> LeasedJob::ToWork() { return WorkOf(tx_, record_); }

bool LeasedJob::IsNewScreening(const SynchronizeRequest::Busy& busy) const {
  // A later attempt finds the same, unless the screen was changed.
  return busy.has_screening() &&
         busy.screening().SerializeAsString() != record_.job().screening().SerializeAsString();
}

bool LeasedJob::IsScreened(const SynchronizeRequest::Busy& busy) const {
  return record_.job().state() == v1::FineTuningJob::SCREENING && busy.has_screening() &&
         busy.screening().action() != v1::ScreeningReport::REFUSED;
}

bool LeasedJob::HasNews(const SynchronizeRequest::Busy& busy) const {
  bool news = IsNewScreening(busy) || IsScreened(busy);
  for (const auto& evaluation : busy.evaluations()) {
    news = news || evaluation.step() >= record_.evaluated_until_step();
  }
  return news;
}

absl::Status LeasedJob::TakeProgress(const SynchronizeRequest::Busy& busy, absl::Time now) {
  v1::JobProgress& progress = *record_.mutable_job()->mutable_progress();
  // Until rows are read and screened there are no steps to tell of.
  if (busy.total_steps() > 0) progress.set_total_steps(busy.total_steps());
  // An attempt that was taken up again tells its step at an evaluation; until then it has told less
  // than is known.
  if (busy.total_steps() > 0 && busy.step() >= progress.step()) {
    progress.set_step(busy.step());
    progress.set_trained_tokens(busy.trained_tokens());
  }
  if (IsNewScreening(busy)) {
    v1::JobEvent event;
    *event.mutable_screening() = busy.screening();
    BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx_, record_, std::move(event), now));
    *record_.mutable_job()->mutable_screening() = busy.screening();
  }
  if (IsScreened(busy)) {
    BALLAST_RETURN_IF_ERROR(MoveJob(tx_, record_, WorkEvent::kScreened, {}, now));
  }
  for (const v1::Evaluation& evaluation : busy.evaluations()) {
    // A later attempt passes the same points again; each is told once, so that a curve never goes
    // back.
    if (evaluation.step() < record_.evaluated_until_step()) continue;
    v1::JobEvent event;
    *event.mutable_evaluation() = evaluation;
    BALLAST_RETURN_IF_ERROR(AppendJobEvent(tx_, record_, std::move(event), now));
    record_.set_evaluated_until_step(evaluation.step() + 1);
    *progress.add_evaluations() = evaluation;
  }
  return absl::OkStatus();
}

absl::Status LeasedJob::TakeCheckpoint(const std::string& blob, int64_t step) {
  const bool same_attempt = absl::StartsWith(record_.checkpoint_blob(),
                                             AttemptBlobs(record_, record_.lease().epoch()) + "/");
  if (same_attempt && step < record_.checkpoint_step()) return tx_.AddGarbage(blob);
  if (!record_.checkpoint_blob().empty() && record_.checkpoint_blob() != blob) {
    BALLAST_RETURN_IF_ERROR(tx_.AddGarbage(record_.checkpoint_blob()));
  }
  record_.set_checkpoint_blob(blob);
  record_.set_checkpoint_step(step);
  return absl::OkStatus();
}

bool LeasedJob::NamesBlob(const std::string& blob) const {
  return record_.checkpoint_blob() == blob ||
         std::any_of(record_.delta_files().begin(), record_.delta_files().end(),
                     [&](const BlobFile& file) { return file.blob() == blob; });
}

absl::StatusOr<std::string> LeasedJob::BlobOfWrite(
    const worker::v1::WriteBlobRequest& first) const {
  const std::string attempt = AttemptBlobs(record_, record_.lease().epoch());
  switch (first.kind_case()) {
    case worker::v1::WriteBlobRequest::kDeltaPath:
      if (!IsPlainPath(first.delta_path())) {
        return KindInvalid(
            "delta_path must be relative: at most 4 parts of letters, digits, \"-\", \"_\" and "
            "\".\", none beginning with \".\"");
      }
      return absl::StrCat(attempt, "/delta/", first.delta_path());
    case worker::v1::WriteBlobRequest::kCheckpointStep:
      if (first.checkpoint_step() < 0) return KindInvalid("checkpoint_step must be 0 or more");
      return absl::StrCat(attempt, "/checkpoints/", first.checkpoint_step());
    case worker::v1::WriteBlobRequest::kSealedVector:
      return KindInvalid("a job has no sealed vector");
    case worker::v1::WriteBlobRequest::KIND_NOT_SET:
      break;
  }
  return KindInvalid("the first message must say what the blob is");
}

absl::StatusOr<std::vector<BlobFile>> LeasedJob::ResultFiles(
    const SynchronizeRequest::Finished& finished) const {
  if (!finished.has_delta()) return ResultInvalid("a job's result is a delta, not a vector");
  const auto& delta = finished.delta();
  if (delta.files_size() > kMaxDeltaFiles) return ResultInvalid("the delta has too many files");
  const std::string attempt = AttemptBlobs(record_, record_.lease().epoch());
  std::vector<BlobFile> files;
  std::set<std::string> seen;
  bool manifest = false;
  for (const auto& file : delta.files()) {
    if (!IsPlainPath(file.path()) || !seen.insert(file.path()).second || !IsDigest(file.digest()) ||
        file.size_bytes() < 0) {
      return ResultInvalid(absl::StrCat("the file ", file.path(),
                                        " has a bad path, size or digest, or is there twice"));
    }
    if (file.path() == "manifest.json") manifest = file.digest() == delta.manifest_digest();
    BlobFile& out = files.emplace_back();
    out.set_path(file.path());
    out.set_blob(absl::StrCat(attempt, "/delta/", file.path()));
    out.set_size_bytes(file.size_bytes());
    out.set_digest(file.digest());
  }
  if (!manifest) {
    return ResultInvalid(
        "manifest.json is missing from the delta, or manifest_digest is not its digest");
  }
  return files;
}

absl::StatusOr<WorkEvent> LeasedJob::TakeResult(const SynchronizeRequest::Finished& finished,
                                                const std::vector<BlobFile>& files,
                                                const LiveLease& live, int withheld_budget,
                                                absl::Time now) {
  BALLAST_ASSIGN_OR_RETURN(const WorkEvent event,
                           TakeDelta(tx_, record_, finished.delta(), files, withheld_budget, now));
  if (finished.delta().has_vector_use()) {
    *record_.mutable_vector_use() = finished.delta().vector_use();
  }
  BALLAST_RETURN_IF_ERROR(LearnSpeed(live, now));
  return event;
}

// Speed of the job that has just succeeded, into its base's moving average.
absl::Status LeasedJob::LearnSpeed(const LiveLease& live, absl::Time now) {
  if (!live.measured) return absl::OkStatus();
  const double seconds = absl::ToDoubleSeconds(now - live.measured_from);
  const auto tokens =
      static_cast<double>(record_.job().progress().trained_tokens() - live.measured_tokens);
  if (seconds <= 0 || tokens <= 0) return absl::OkStatus();
  // After the job, against the order: nothing that holds a base goes on to a job.
  BALLAST_ASSIGN_OR_RETURN(auto base, Base(Hold::kExclusive));
  if (!base.has_value()) return absl::OkStatus();
  const double speed = tokens / seconds;
  const double before = base->tokens_per_second();
  base->set_tokens_per_second(before == 0 ? speed : before + kSpeedWeight * (speed - before));
  return ReplaceRecord(tx_, *base);
}

absl::Status LeasedJob::Store() { return ReplaceRecord(tx_, record_); }

absl::Status LeasedJob::Move(WorkEvent event, const v1::JobError& error, absl::Time now) {
  return MoveJob(tx_, record_, event, error, now);
}

}  // namespace ballast::server
