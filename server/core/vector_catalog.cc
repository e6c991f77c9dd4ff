// SPDX-License-Identifier: Apache-2.0
#include "server/core/vector_catalog.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"
#include "server/core/blob_hold.h"
#include "server/core/job_catalog.h"
#include "server/core/paging.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"
#include "server/core/transitions.h"

namespace ballast::server {
namespace {

using admin::v1::Vector;

constexpr double kMaxLearningRate = 0.1;
constexpr int32_t kMaxEpochs = 1000;
constexpr int32_t kMaxRank = 256;
constexpr double kMaxKlWeight = 100;
constexpr absl::Duration kMinSearch = absl::Minutes(1), kMaxSearch = absl::Hours(24);

// Whether it is in the form that protobuf asks for, and in the range.
bool IsSearchBudget(const google::protobuf::Duration& budget) {
  const absl::Duration duration = ToDuration(budget);
  return budget.nanos() >= 0 && budget.nanos() < 1'000'000'000 && duration >= kMinSearch &&
         duration <= kMaxSearch;
}

}  // namespace

absl::StatusOr<VectorRecord> FindVector(Transaction& tx, const std::string& id, Hold hold) {
  BALLAST_ASSIGN_OR_RETURN(auto record, GetRecord<VectorRecord>(tx, "", id, hold));
  if (record.has_value()) return *std::move(record);
  return MakeError(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND",
                   absl::StrCat(VectorName(id), " does not exist; list the vectors"));
}

absl::StatusOr<Vector> ToVector(Transaction& tx, const VectorRecord& record,
                                const ServingVectors& serving) {
  Vector vector = record.vector();
  vector.clear_certified();
  vector.clear_serving_problem();
  if (vector.state() != Vector::ACTIVE) return vector;
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(vector.base_model(), "base_model"));
  BALLAST_ASSIGN_OR_RETURN(const auto base, GetRecord<BaseModelRecord>(tx, "", base_id));
  if (!base.has_value()) return BaseModelNotFound(base_id);
  const auto judged = serving.Judge(record, *base);
  if (judged.ok()) {
    vector.set_certified(judged->certified);
  } else {
    vector.set_serving_problem(
        absl::StrCat(ErrorReason(judged.status()), ": ", judged.status().message()));
  }
  return vector;
}

absl::Status VectorCatalog::CompleteOptions(admin::v1::VectorOptions* options) {
  if (options->learning_rate() == 0) options->set_learning_rate(1e-3);
  if (options->epochs() == 0) options->set_epochs(8);
  if (options->lora_rank() == 0) options->set_lora_rank(16);
  if (!options->has_kl_weight()) options->set_kl_weight(1);
  if (!(options->learning_rate() > 0 && options->learning_rate() <= kMaxLearningRate)) {
    return FieldError("options.learning_rate", "LEARNING_RATE_OUT_OF_RANGE",
                      absl::StrCat("learning_rate is ", options->learning_rate(),
                                   "; give a value above 0 and at most ", kMaxLearningRate));
  }
  if (options->epochs() < 1 || options->epochs() > kMaxEpochs) {
    return FieldError(
        "options.epochs", "EPOCHS_OUT_OF_RANGE",
        absl::StrCat("epochs is ", options->epochs(), "; give a value from 1 to ", kMaxEpochs));
  }
  if (options->lora_rank() < 1 || options->lora_rank() > kMaxRank) {
    return FieldError(
        "options.lora_rank", "LORA_RANK_OUT_OF_RANGE",
        absl::StrCat("lora_rank is ", options->lora_rank(), "; give a value from 1 to ", kMaxRank));
  }
  if (!(options->kl_weight() >= 0 && options->kl_weight() <= kMaxKlWeight)) {
    return FieldError("options.kl_weight", "KL_WEIGHT_OUT_OF_RANGE",
                      absl::StrCat("kl_weight is ", options->kl_weight(),
                                   "; give a value from 0 to ", kMaxKlWeight));
  }
  if (options->has_search_budget() && !IsSearchBudget(options->search_budget())) {
    return FieldError("options.search_budget", "SEARCH_BUDGET_OUT_OF_RANGE",
                      absl::StrCat("search_budget is ",
                                   absl::FormatDuration(ToDuration(options->search_budget())),
                                   "; give a time from ", absl::FormatDuration(kMinSearch), " to ",
                                   absl::FormatDuration(kMaxSearch), ", or none for no search"));
  }
  return absl::OkStatus();
}

absl::Status VectorCatalog::Expect(const std::string& id) {
  return store_.Update([&](Transaction& tx) { return HoldBlobs(tx, VectorBlobs(id)); });
}

absl::StatusOr<Vector> VectorCatalog::Create(absl::Time now, const std::string& id,
                                             const admin::v1::VectorOptions& options,
                                             const Data& data) {
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(options.base_model(), "options.base_model"));
  VectorRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(auto base,
                             GetRecord<BaseModelRecord>(tx, "", base_id, Hold::kExclusive));
    if (!base.has_value()) return BaseModelNotFound(base_id);
    base->set_last_vector_version(base->last_vector_version() + 1);
    BALLAST_RETURN_IF_ERROR(ReplaceRecord(tx, *base));
    record.set_id(id);
    *record.mutable_options() = options;
    record.set_prohibited_blob(data.prohibited_blob);
    record.set_benign_blob(data.benign_blob);
    record.set_topics_blob(data.topics_blob);
    Vector& vector = *record.mutable_vector();
    vector.set_name(VectorName(id));
    vector.set_base_model(base->model().name());
    vector.set_base_digest(base->model().digest());
    vector.set_version(base->last_vector_version());
    vector.set_state(Vector::DRAFT);
    *vector.mutable_create_time() = ToTimestamp(now);
    BALLAST_RETURN_IF_ERROR(NameBlobs(tx, VectorBlobs(id)));
    return InsertRecord(tx, record);
  }));
  listener_.WorkAdded();
  return record.vector();
}

absl::StatusOr<Vector> VectorCatalog::Get(const std::string& id) {
  Vector vector;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const VectorRecord record, FindVector(tx, id));
    BALLAST_ASSIGN_OR_RETURN(vector, ToVector(tx, record, serving_));
    return absl::OkStatus();
  }));
  return vector;
}

absl::StatusOr<admin::v1::ListVectorsResponse> VectorCatalog::List(
    const admin::v1::ListVectorsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t before, ParsePageToken("vectors", request.page_token()));
  admin::v1::ListVectorsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto rows, tx.ListByScope(Kind::kVector, "", before, size + 1));
    for (const Row& row : rows) {
      if (response.vectors_size() == size) {
        response.set_next_page_token(MakePageToken("vectors", rows[size - 1].sequence));
        break;
      }
      BALLAST_ASSIGN_OR_RETURN(const auto record, FromRow<VectorRecord>(row));
      BALLAST_ASSIGN_OR_RETURN(*response.add_vectors(), ToVector(tx, record, serving_));
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<Vector> VectorCatalog::Retire(const std::string& id) {
  VectorRecord record;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, FindVector(tx, id, Hold::kExclusive));
    if (record.vector().state() != Vector::ACTIVE) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, "VECTOR_NOT_ACTIVE",
          absl::StrCat(VectorName(id), " is ", Vector::State_Name(record.vector().state()),
                       "; only an ACTIVE vector can be retired"),
          {{"state", Vector::State_Name(record.vector().state())}});
    }
    return DecideVector(tx, record, VectorDecision::kRetired, "");
  }));
  return std::move(*record.mutable_vector());
}

}  // namespace ballast::server
