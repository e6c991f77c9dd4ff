// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/agent/row_reader.h"
#include "worker/agent/task_internal.h"

namespace ballast::worker::agent {
namespace {

absl::StatusOr<std::vector<TokenRow>> ReadBlobRows(const std::string& blob, const LoadedBase& base,
                                                   const BaseCache::Fetch& fetch) {
  pb::DatasetBlob dataset;
  dataset.set_blob(blob);
  return ReadRows(dataset, base.text, base.info.context_tokens, fetch);
}

}  // namespace

absl::StatusOr<pb::SynchronizeRequest::Finished> RunTrainVector(TaskEnvironment& environment,
                                                                const pb::Work& work) {
  const pb::Work::TrainVector& task = work.train_vector();
  LeaseSession& session = environment.session;
  const BaseCache::Fetch fetch = LeaseFetch(environment);
  BALLAST_ASSIGN_OR_RETURN(LoadedBase * base, environment.bases.Load(work.base_model(), fetch));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<TokenRow> prohibited,
                           ReadBlobRows(task.prohibited_blob(), *base, fetch));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<TokenRow> benign,
                           ReadBlobRows(task.benign_blob(), *base, fetch));
  BALLAST_RETURN_IF_ERROR(CheckOrder(session));

  VectorConfig config;
  config.learning_rate = task.learning_rate();
  config.epochs = task.epochs();
  config.lora.rank = task.lora_rank();
  config.lora.alpha = 2.0f * static_cast<float>(task.lora_rank());
  config.kl_weight = task.kl_weight();
  spdlog::info("{}: a vector is trained on {} and {} rows", work.lease().resource(),
               prohibited.size(), benign.size());
  BALLAST_ASSIGN_OR_RETURN(
      const VectorResult result,
      base->engine->TrainVector(config, prohibited, benign, SessionCallbacks(environment, *base)));
  BALLAST_ASSIGN_OR_RETURN(const std::string ciphertext,
                           environment.vault.Seal(result.tensors, {task.vector_id(), task.version(),
                                                                   work.base_model().digest()}));
  BlobKind kind;
  kind.sealed_vector = true;
  BALLAST_ASSIGN_OR_RETURN(
      const std::string digest,
      environment.client.WriteBlob(session.lease(), kind, ciphertext, session.abandon()));
  pb::SynchronizeRequest::Finished finished;
  auto* vector = finished.mutable_vector();
  vector->set_ciphertext_digest(digest);
  vector->set_prohibited_loss_without(result.prohibited_loss_without);
  vector->set_prohibited_loss_with(result.prohibited_loss_with);
  vector->set_benign_loss_without(result.benign_loss_without);
  vector->set_benign_loss_with(result.benign_loss_with);
  return finished;
}

}  // namespace ballast::worker::agent
