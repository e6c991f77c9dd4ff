// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/dataset/packing.h"
#include "worker/agent/certificate_check.h"
#include "worker/agent/checkpoint_uploader.h"
#include "worker/agent/delta_files.h"
#include "worker/agent/gate.h"
#include "worker/agent/job_error.h"
#include "worker/agent/row_reader.h"
#include "worker/agent/safety_rows.h"
#include "worker/agent/screening.h"
#include "worker/agent/status_text.h"
#include "worker/agent/task_internal.h"

namespace ballast::worker::agent {
namespace {

constexpr int64_t kMaxVectorBytes = int64_t{8} << 30;
constexpr int64_t kMaxCheckpointBytes = int64_t{32} << 30;

TrainConfig ToTrainConfig(const pb::Work::FineTune& task, int checkpoint_steps) {
  const ballast::v1::Hyperparameters& from = task.job().hyperparameters();
  TrainConfig config;
  config.lora.rank = from.lora_rank();
  config.lora.alpha = static_cast<float>(from.lora_alpha());
  config.learning_rate = from.learning_rate();
  config.epochs = from.epochs();
  config.batch_rows = from.batch_rows();
  config.warmup_ratio = from.warmup_ratio();
  config.schedule = from.schedule() == ballast::v1::Hyperparameters::LINEAR ? Schedule::kLinear
                                                                            : Schedule::kCosine;
  config.seed = static_cast<uint64_t>(from.seed());
  config.checkpoint_every_steps = checkpoint_steps;
  config.vector_policy = task.vector_always() ? VectorPolicy::kAlways : VectorPolicy::kByRow;
  // Where a pause finds the job again; see Train.
  config.checkpoint_at_evaluations = checkpoint_steps > 0 && !task.vector_always();
  return config;
}

// OK where the job may run without a vector: the base is marked as unprotected, and this worker
// was configured to train on such. A database that was changed alone lets no job run so.
absl::Status CheckUnprotected(const TaskEnvironment& environment, const pb::Work& work) {
  const std::string& resource = work.lease().resource();
  if (work.fine_tune().has_vector()) {
    spdlog::error("{}: the server gave a vector to a job that is to run unprotected", resource);
    return ProtectionUnavailable();
  }
  if (!environment.allow_unprotected || environment.certificate_key != nullptr) {
    spdlog::error(
        "{}: the base model is unprotected, and this worker trains on none such; that needs "
        "allow_unprotected_base_models and no certificate_public_key_path in its configuration",
        resource);
    return ProtectionUnavailable();
  }
  spdlog::warn("{}: trains without a vector, since {} is unprotected", resource,
               work.base_model().name());
  return absl::OkStatus();
}

// Fetches the ciphertext, checks what it is bound to, and opens it. Every failure but CANCELLED is
// PROTECTION_UNAVAILABLE outside; the log has the reason.
absl::StatusOr<SecretBuffer> OpenVector(TaskEnvironment& environment, const pb::Work& work) {
  const std::string& resource = work.lease().resource();
  const pb::SealedVector& sealed = work.fine_tune().vector();
  if (!work.fine_tune().has_vector() || sealed.blob().empty()) {
    spdlog::error("{}: the server gave no vector; the job is not trained without one", resource);
    return ProtectionUnavailable();
  }
  if (sealed.base_digest() != work.base_model().digest()) {
    spdlog::error("{}: vector {} is for another base model", resource, sealed.vector_id());
    return ProtectionUnavailable();
  }
  const auto ciphertext =
      environment.client.ReadBlobToMemory({environment.session.lease(), ""}, sealed.blob(),
                                          kMaxVectorBytes, environment.session.interrupt());
  if (!ciphertext.ok()) {
    BALLAST_RETURN_IF_ERROR(CheckOrder(environment.session));
    spdlog::error("{}: vector {} cannot be read: {}", resource, sealed.vector_id(),
                  StatusText(ciphertext.status()));
    return ProtectionUnavailable();
  }
  if (DigestOf(*ciphertext) != sealed.ciphertext_digest()) {
    spdlog::error("{}: the stored bytes of vector {} are not those that were sealed", resource,
                  sealed.vector_id());
    return ProtectionUnavailable();
  }
  auto vector = environment.vault.Unseal(
      *ciphertext, {sealed.vector_id(), sealed.version(), sealed.base_digest()});
  if (!vector.ok()) {
    spdlog::error("{}: vector {} does not open: {}", resource, sealed.vector_id(),
                  StatusText(vector.status()));
    return ProtectionUnavailable();
  }
  return vector;
}

// True when reading a checkpoint again cannot help. After any other failure the work done is still
// there to be taken up, by a later attempt.
bool IsGone(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status) ||
         ErrorReason(status) == "BLOB_TOO_LARGE";
}

// The engine's bytes of the newest checkpoint; empty without one, or where it is gone or does not
// open: the work then starts anew. Other failures of reading it are returned.
absl::StatusOr<std::string> ReadCheckpoint(TaskEnvironment& environment, const pb::Work& work) {
  const std::string& blob = work.fine_tune().checkpoint_blob();
  if (blob.empty()) return std::string();
  const std::string& resource = work.lease().resource();
  const auto sealed =
      environment.client.ReadBlobToMemory({environment.session.lease(), ""}, blob,
                                          kMaxCheckpointBytes, environment.session.interrupt());
  BALLAST_RETURN_IF_ERROR(CheckOrder(environment.session));
  if (!sealed.ok() && !IsGone(sealed.status())) return sealed.status();
  absl::StatusOr<std::string> bytes =
      sealed.ok() ? CheckpointUploader::Open(environment.vault, *sealed, resource,
                                             work.base_model().digest())
                  : sealed.status();
  if (bytes.ok()) return bytes;
  spdlog::warn("{}: its checkpoint cannot be used, it starts anew: {}", resource,
               StatusText(bytes.status()));
  return std::string();
}

absl::StatusOr<TrainResult> Train(TaskEnvironment& environment, LoadedBase& base,
                                  const std::string& resource, TrainRequest& request) {
  LeaseSession& session = environment.session;
  CheckpointUploader uploader(environment.client, environment.vault, session, base.digest);
  uploader.Start();
  TrainCallbacks callbacks = SessionCallbacks(environment, base);
  // By row, the time of a step tells which rows the vector explains: what is told of progress is of
  // evaluation points alone, which are steps apart, however the job ends.
  const bool coarse =
      request.vector != nullptr && request.config.vector_policy == VectorPolicy::kByRow;
  Progress finished_steps;
  callbacks.started = [&](const Progress& progress) {
    PassKillPoint("worker.training.started");
    finished_steps = progress;
    session.SetProgress(coarse ? Progress{.total_steps = progress.total_steps} : progress);
  };
  if (coarse) {
    callbacks.progress = [&](const Progress& progress) {
      finished_steps = progress;
      environment.metrics.CountStep();
    };
  }
  callbacks.evaluated = [&](const Evaluation& evaluation) {
    PassKillPoint("worker.training.evaluated");
    if (coarse) session.SetProgress(finished_steps);
    session.AddEvaluation(evaluation);
  };
  if (coarse) {
    // A pause comes when its owner wants: a checkpoint of that step would let them time single
    // steps by how long it is to the next evaluation (S2). The job goes on from the last
    // evaluation.
    callbacks.yield = [&session, yield = callbacks.yield] {
      const TrainCallbacks::Order order = yield();
      return session.order() == LeaseSession::Order::kPause ? TrainCallbacks::Order::kStop : order;
    };
  }
  callbacks.checkpoint = [&](int64_t step, std::string bytes) {
    uploader.Add(step, std::move(bytes));
  };
  absl::StatusOr<TrainResult> result = base.engine->Train(request, callbacks);
  if (!result.ok() && absl::StartsWith(ErrorReason(result.status()), "CHECKPOINT_")) {
    spdlog::warn("{}: its checkpoint cannot be used, it starts anew: {}", resource,
                 StatusText(result.status()));
    request.checkpoint.clear();
    result = base.engine->Train(request, callbacks);
  }
  if (LeaseSession::AsksForCheckpoint(session.order())) uploader.Flush();
  return result;
}

}  // namespace

absl::StatusOr<pb::SynchronizeRequest::Finished> RunFineTune(TaskEnvironment& environment,
                                                             const pb::Work& work) {
  const pb::Work::FineTune& task = work.fine_tune();
  const std::string& resource = work.lease().resource();
  LeaseSession& session = environment.session;
  const BaseCache::Fetch fetch = LeaseFetch(environment);

  // The vector comes first: without it nothing else is worth doing.
  std::optional<SecretBuffer> vector;
  if (task.unprotected()) {
    BALLAST_RETURN_IF_ERROR(CheckUnprotected(environment, work));
  } else {
    BALLAST_RETURN_IF_ERROR(CheckCertificate(work, environment.certificate_key));
    BALLAST_ASSIGN_OR_RETURN(vector, OpenVector(environment, work));
  }
  PassKillPoint("worker.vector.opened");
  BALLAST_ASSIGN_OR_RETURN(LoadedBase * base, environment.bases.Load(work.base_model(), fetch));
  PassKillPoint("worker.base.loaded");
  BALLAST_RETURN_IF_ERROR(CheckOrder(session));

  TrainRequest request;
  request.config = ToTrainConfig(task, environment.checkpoint_steps);
  if (vector.has_value()) request.vector = &*vector;
  BALLAST_ASSIGN_OR_RETURN(
      NumberedRows training,
      ReadNumberedRows(task.training_dataset(), base->text, base->info.context_tokens, fetch,
                       /*seed=*/absl::StrCat(resource, " ", task.vector().ciphertext_digest())));
  if (!task.unprotected()) {
    BALLAST_RETURN_IF_ERROR(CheckRowsCertified(
        work, environment.certificate_key,
        {static_cast<int64_t>(training.rows.size()), training.most_repeated_row}));
  }
  if (task.has_screen()) {
    BALLAST_RETURN_IF_ERROR(ScreenRows(environment, *base, task.screen(), fetch, training));
  }
  request.rows = std::move(training.rows);
  if (task.has_safety_rows()) {
    BALLAST_ASSIGN_OR_RETURN(request.safety_rows,
                             ReadSafetyRows(task.safety_rows().rows(), training.systems, base->text,
                                            base->info.context_tokens, fetch));
    WeighSafetyRows(request.rows, request.safety_rows);
    request.safety_rows_per_epoch = dataset::SafetyRowCount(
        static_cast<int64_t>(request.rows.size()), task.safety_rows().share());
  }
  if (task.has_validation_dataset()) {
    BALLAST_ASSIGN_OR_RETURN(
        request.validation_rows,
        ReadRows(task.validation_dataset(), base->text, base->info.context_tokens, fetch));
  }
  BALLAST_ASSIGN_OR_RETURN(const std::optional<Gate> gate, ReadGate(environment, work));
  PassKillPoint("worker.rows.read");
  BALLAST_ASSIGN_OR_RETURN(request.checkpoint, ReadCheckpoint(environment, work));
  BALLAST_RETURN_IF_ERROR(CheckOrder(session));

  spdlog::info("{}: attempt {} trains on {} rows{}", resource, task.job().attempt(),
               request.rows.size(), request.checkpoint.empty() ? "" : " from a checkpoint");
  BALLAST_ASSIGN_OR_RETURN(const TrainResult result, Train(environment, *base, resource, request));
  session.SetProgress(result.progress);
  PassKillPoint("worker.training.done");

  pb::SynchronizeRequest::Finished finished;
  if (vector.has_value()) {
    auto& use = *finished.mutable_delta()->mutable_vector_use();
    use.set_rows(static_cast<int64_t>(request.rows.size()));
    use.set_rows_under_vector(result.rows_under_vector);
  }
  std::string gate_note;
  if (gate.has_value()) {
    BALLAST_ASSIGN_OR_RETURN(
        *finished.mutable_delta()->mutable_gate(),
        RunGate(environment, *base, *gate, result.adapter, request.config.lora));
    // A delta that failed is read by nobody before an operator has released it.
    const bool passed = finished.delta().gate().verdict() == ballast::admin::v1::GateReport::PASSED;
    gate_note = passed ? artifact::kGatePassed : artifact::kGateReleased;
  }
  BALLAST_ASSIGN_OR_RETURN(
      const std::vector<DeltaFile> files,
      BuildDeltaFiles(work, *base, result, session.Snapshot().screening(), gate_note,
                      environment.version, environment.clock.Now()));
  for (const DeltaFile& file : files) {
    BlobKind kind;
    kind.delta_path = file.path;
    BALLAST_ASSIGN_OR_RETURN(
        const std::string digest,
        environment.client.WriteBlob(session.lease(), kind, file.bytes, session.abandon()));
    PassKillPoint("worker.result_file.written");
    auto* listed = finished.mutable_delta()->add_files();
    listed->set_path(file.path);
    listed->set_size_bytes(static_cast<int64_t>(file.bytes.size()));
    listed->set_digest(digest);
    finished.mutable_delta()->set_manifest_digest(digest);  // manifest.json comes last
  }
  return finished;
}

}  // namespace ballast::worker::agent
