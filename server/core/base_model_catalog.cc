// SPDX-License-Identifier: Apache-2.0
#include "server/core/base_model_catalog.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/blob_hold.h"
#include "server/core/job_catalog.h"
#include "server/core/paging.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

// Whether a base model has these files.
absl::StatusOr<bool> IsNamed(Transaction& tx, const std::string& digest) {
  bool named = false;
  BALLAST_RETURN_IF_ERROR(ForEachInState<BaseModelRecord>(
      tx, 0, [&](const BaseModelRecord& record) -> absl::StatusOr<bool> {
        named = record.model().digest() == digest;
        return !named;
      }));
  return named;
}

}  // namespace

absl::StatusOr<v1::BaseModel> BaseModelCatalog::ToModel(Transaction& tx,
                                                        const BaseModelRecord& record) const {
  v1::BaseModel model = record.model();
  BALLAST_ASSIGN_OR_RETURN(const auto protection, serving_.Find(tx, record));
  model.set_ready(protection.has_value());
  *model.mutable_limits() = LimitsUnder(record, protection);
  return model;
}

absl::StatusOr<BaseModelRecord> BaseModelCatalog::GetRecordOf(const std::string& id) {
  std::optional<BaseModelRecord> record;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(record, GetRecord<BaseModelRecord>(tx, "", id));
    return absl::OkStatus();
  }));
  if (!record.has_value()) return BaseModelNotFound(id);
  return *std::move(record);
}

absl::StatusOr<v1::BaseModel> BaseModelCatalog::Get(const std::string& id) {
  v1::BaseModel model;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<BaseModelRecord>(tx, "", id));
    if (!record.has_value()) return BaseModelNotFound(id);
    BALLAST_ASSIGN_OR_RETURN(model, ToModel(tx, *record));
    return absl::OkStatus();
  }));
  return model;
}

absl::StatusOr<v1::ListBaseModelsResponse> BaseModelCatalog::List(
    const v1::ListBaseModelsRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const int size, PageSize(request.page_size()));
  BALLAST_ASSIGN_OR_RETURN(const int64_t skip, ParsePageToken("baseModels", request.page_token()));
  v1::ListBaseModelsResponse response;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    // There are few base models: sorted here, and the token is the number of those already listed.
    std::vector<v1::BaseModel> models;
    BALLAST_RETURN_IF_ERROR(ForEachInState<BaseModelRecord>(
        tx, 0, [&](const BaseModelRecord& record) -> absl::StatusOr<bool> {
          BALLAST_ASSIGN_OR_RETURN(models.emplace_back(), ToModel(tx, record));
          return true;
        }));
    std::sort(models.begin(), models.end(),
              [](const auto& a, const auto& b) { return a.name() < b.name(); });
    const auto count = static_cast<int64_t>(models.size());
    // A forged token may name any position.
    const int64_t begin = std::min(count, skip);
    const int64_t end = std::min(count, begin + size);
    for (int64_t i = begin; i < end; ++i) *response.add_base_models() = std::move(models[i]);
    if (end < count) response.set_next_page_token(MakePageToken("baseModels", end));
    return absl::OkStatus();
  }));
  return response;
}

absl::Status BaseModelCatalog::Expect(const std::string& digest) {
  return store_.Update([&](Transaction& tx) -> absl::Status {
    // First, so that it waits for an Add of the same files and sees its record.
    BALLAST_RETURN_IF_ERROR(HoldBlobs(tx, BaseModelBlobs(digest)));
    BALLAST_ASSIGN_OR_RETURN(const bool named, IsNamed(tx, digest));
    return named ? tx.RemoveGarbage(BaseModelBlobs(digest)) : absl::OkStatus();
  });
}

absl::Status BaseModelCatalog::CheckUnprotectedAllowed() const {
  return serving_.allow_unprotected() ? absl::OkStatus() : UnprotectedNotAllowed();
}

absl::StatusOr<v1::BaseModel> BaseModelCatalog::Add(const BaseModelRecord& record) {
  if (record.model().unprotected()) BALLAST_RETURN_IF_ERROR(CheckUnprotectedAllowed());
  v1::BaseModel model;
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const auto existing, GetRecord<BaseModelRecord>(tx, "", record.id()));
    if (existing.has_value() && existing->model().digest() != record.model().digest()) {
      return MakeError(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS",
                       absl::StrCat(record.model().name(), " is another model (",
                                    existing->model().digest(), "); choose another id"),
                       {{"digest", existing->model().digest()}});
    }
    if (existing.has_value() && existing->model().unprotected() != record.model().unprotected()) {
      return MakeError(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS",
                       absl::StrCat(record.model().name(), " is there and is ",
                                    existing->model().unprotected() ? "un" : "",
                                    "protected, which does not change; choose another id"));
    }
    if (existing.has_value() && record.vector_policy() != admin::v1::VECTOR_POLICY_UNSPECIFIED &&
        record.vector_policy() != PolicyOf(*existing)) {
      return MakeError(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS",
                       absl::StrCat(record.model().name(), " is there with the vector policy ",
                                    admin::v1::VectorPolicy_Name(PolicyOf(*existing)),
                                    ", which does not change; leave the policy out, or choose "
                                    "another id"));
    }
    // Added first, so that it waits for an Expect of the same files.
    const std::string blobs = BaseModelBlobs(record.model().digest());
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(blobs));
    BALLAST_ASSIGN_OR_RETURN(const bool named, IsNamed(tx, record.model().digest()));
    BALLAST_RETURN_IF_ERROR(named ? tx.RemoveGarbage(blobs) : NameBlobs(tx, blobs));
    BaseModelRecord kept = existing.value_or(record);
    if (!existing.has_value()) {
      if (record.vector_policy() == admin::v1::VECTOR_POLICY_UNSPECIFIED) {
        kept.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW);
      }
      BALLAST_RETURN_IF_ERROR(InsertRecord(tx, kept));
    }
    BALLAST_ASSIGN_OR_RETURN(model, ToModel(tx, kept));
    return absl::OkStatus();
  }));
  return model;
}

}  // namespace ballast::server
