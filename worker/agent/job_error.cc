// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/job_error.h"

#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;

JobError Make(JobError::Kind kind, std::string_view reason, std::string_view message) {
  JobError error;
  error.set_kind(kind);
  error.set_reason(std::string(reason));
  error.set_message(std::string(message));
  return error;
}

}  // namespace

JobError ToVectorError(const absl::Status& status) {
  std::string reason = ErrorReason(status);
  const bool operators = reason == "LOSS_NOT_FINITE" || reason == "DATASET_EMPTY" ||
                         reason == "VECTOR_CONFIG_INVALID" || reason == "TOPICS_UNUSABLE";
  if (reason.empty()) reason = "WORKER_FAILED";
  return Make(operators ? JobError::USER : JobError::PLATFORM, reason,
              std::string(status.message()));
}

absl::Status ProtectionUnavailable() {
  return MakeError(absl::StatusCode::kUnavailable, "PROTECTION_UNAVAILABLE",
                   "the platform's protection is not available");
}

JobError ToJobError(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  if (reason == "LOSS_NOT_FINITE") {
    return Make(
        JobError::USER, reason,
        "the training diverged: the loss is no longer a finite number. Lower the learning rate "
        "or raise the warm-up, look for odd rows in the data, and create a new job");
  }
  if (reason == "DATASET_EMPTY") {
    return Make(
        JobError::USER, reason,
        "no row of the data set can be trained on. Look at the data set's report, and create a "
        "new data set and job");
  }
  if (reason == "TRAIN_CONFIG_INVALID" || absl::StartsWith(reason, "LORA_")) {
    return Make(JobError::USER, "HYPERPARAMETERS_INVALID",
                absl::StrCat("the hyper-parameters cannot be trained with: ",
                             std::string(status.message())));
  }
  if (reason == "ROWS_FLAGGED") {
    return Make(JobError::REFUSED, reason,
                absl::StrCat(std::string(status.message()),
                             ". Their lines are in the job's screening report; take them out, or "
                             "ask the operator about rows that are harmless"));
  }
  if (reason == "OUT_OF_MEMORY" || absl::IsResourceExhausted(status)) {
    return Make(
        JobError::PLATFORM, "OUT_OF_MEMORY",
        "the platform ran out of memory or disk space for this job. Try again later, or with "
        "shorter rows");
  }
  if (reason == "PROTECTION_UNAVAILABLE" || absl::StartsWith(reason, "VAULT_") ||
      absl::StartsWith(reason, "VECTOR_")) {
    return Make(JobError::PLATFORM, "PROTECTION_UNAVAILABLE",
                "platform error. Nothing is wrong with the job; try again later");
  }
  if (absl::StartsWith(reason, "SAFETENSORS_") || absl::StartsWith(reason, "BASE_MODEL_") ||
      absl::StartsWith(reason, "TEMPLATE_") || absl::StartsWith(reason, "TOKENIZER_") ||
      reason == "TENSOR_MISMATCH" || reason == "UNSUPPORTED_ARCHITECTURE" ||
      reason == "CONFIG_INVALID") {
    return Make(JobError::PLATFORM, "BASE_MODEL_UNUSABLE",
                "platform error: the base model does not load. Tell the operator");
  }
  return Make(JobError::PLATFORM, "WORKER_FAILED",
              "platform error. Nothing is known to be wrong with the job; try again later");
}

}  // namespace ballast::worker::agent
