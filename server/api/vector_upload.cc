// SPDX-License-Identifier: Apache-2.0
#include "server/api/vector_upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/dataset/topics.h"
#include "server/api/write_blob.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

absl::Status StreamOrder(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "STREAM_ORDER", what);
}

}  // namespace

VectorUpload::VectorUpload(const ApiContext& api, grpc::CallbackServerContext* context,
                           const AdminService::Parts& parts, admin::v1::Vector* response)
    : ClientStream(api, "AdminService/TrainVector", context), parts_(parts), response_(response) {}

void VectorUpload::Forget() {
  const UnnamedBlobs::Hold ended = std::move(hold_);
  if (queued_ || id_.empty()) return;
  // Rows of a request that came to nothing are not kept.
  prohibited_.writer.reset();
  benign_.writer.reset();
  const absl::Status status = parts_.blobs.DeletePrefix(VectorBlobs(id_));
  if (!status.ok())
    spdlog::warn("rows of a refused vector could not be deleted: {}", ErrorReason(status));
  id_.clear();
}

absl::StatusOr<bool> VectorUpload::OnMessage(admin::v1::TrainVectorRequest& request) {
  switch (request.part_case()) {
    case admin::v1::TrainVectorRequest::kOptions:
      BALLAST_RETURN_IF_ERROR(Start(request.options()));
      return false;
    case admin::v1::TrainVectorRequest::kProhibitedData:
      BALLAST_RETURN_IF_ERROR(Append(prohibited_, request.prohibited_data()));
      return false;
    case admin::v1::TrainVectorRequest::kBenignData:
      BALLAST_RETURN_IF_ERROR(Append(benign_, request.benign_data()));
      return false;
    case admin::v1::TrainVectorRequest::kTopicsData:
      BALLAST_RETURN_IF_ERROR(AppendTopics(request.topics_data()));
      return false;
    case admin::v1::TrainVectorRequest::PART_NOT_SET:
      break;
  }
  return StreamOrder("a message must have options, prohibited_data, benign_data or topics_data");
}

absl::Status VectorUpload::Start(const admin::v1::VectorOptions& options) {
  if (options_.has_value()) return StreamOrder("options come once, in the first message");
  admin::v1::VectorOptions complete = options;
  BALLAST_ASSIGN_OR_RETURN(const std::string base_id,
                           ParseBaseModelName(options.base_model(), "options.base_model"));
  BALLAST_RETURN_IF_ERROR(VectorCatalog::CompleteOptions(&complete));
  BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, parts_.models.GetRecordOf(base_id));
  if (base.model().unprotected()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "BASE_MODEL_UNPROTECTED",
                     absl::StrCat(base.model().name(),
                                  " is unprotected, so no vector would ever serve it; import the "
                                  "model under another id without that"));
  }
  id_ = absl::StrCat("vec-", parts_.ids.NewId());
  for (Rows* rows : {&prohibited_, &benign_}) {
    rows->blob = absl::StrCat(VectorBlobs(id_), "/rows/", rows->name);
    BALLAST_ASSIGN_OR_RETURN(rows->writer, parts_.blobs.Create(rows->blob));
    BALLAST_ASSIGN_OR_RETURN(rows->check,
                             parts_.row_checks.Begin(base, v1::Dataset::FORMAT_UNSPECIFIED));
  }
  options_ = std::move(complete);
  return absl::OkStatus();
}

absl::Status VectorUpload::Append(Rows& rows, const std::string& data) {
  if (!options_.has_value()) return StreamOrder("the first message must have options");
  if (data.size() > kMaxChunkBytes) {
    return FieldError(absl::StrCat(rows.name, "_data"), "CHUNK_TOO_LARGE",
                      absl::StrCat("send at most ", kMaxChunkBytes, " bytes in a message"));
  }
  if (rows.writer->size_bytes() + static_cast<int64_t>(data.size()) > parts_.max_rows_bytes) {
    return FieldError(absl::StrCat(rows.name, "_data"), "FILE_TOO_LARGE",
                      absl::StrCat("at most ", parts_.max_rows_bytes, " bytes of rows are taken"));
  }
  BALLAST_RETURN_IF_ERROR(rows.writer->Append(data));
  return rows.check->Feed(data);
}

absl::Status VectorUpload::AppendTopics(const std::string& data) {
  if (!options_.has_value()) return StreamOrder("the first message must have options");
  if (topics_.size() + data.size() > dataset::kMaxTopicsBytes) {
    return FieldError(
        "topics_data", "TOPICS_INVALID",
        absl::StrCat("at most ", dataset::kMaxTopicsBytes, " bytes of topics are taken"));
  }
  topics_ += data;
  return absl::OkStatus();
}

absl::Status VectorUpload::CheckRows(Rows& rows) {
  BALLAST_ASSIGN_OR_RETURN(const v1::ValidationReport report, rows.check->Finish());
  const std::string field = absl::StrCat(rows.name, "_data");
  if (report.rows_rejected() > 0) {
    std::map<std::string, int64_t> counts(report.counts_by_reason().begin(),
                                          report.counts_by_reason().end());
    std::string reasons;
    for (const auto& [reason, count] : counts) {
      absl::StrAppend(&reasons, reasons.empty() ? "" : ", ", count, " ", reason);
    }
    return FieldError(
        field, "ROWS_INVALID",
        absl::StrCat(report.rows_rejected(), " ", rows.name, " rows were rejected (", reasons,
                     "); correct or remove them: `ballast dataset check` shows each"));
  }
  if (report.rows_accepted() < rows.min_rows) {
    return FieldError(field, "TOO_FEW_ROWS",
                      absl::StrCat("there are ", report.rows_accepted(), " ", rows.name,
                                   " rows; at least ", rows.min_rows, " are needed"));
  }
  return absl::OkStatus();
}

absl::Status VectorUpload::OnEnd() {
  if (!options_.has_value()) return StreamOrder("the first message must have options");
  if (topics_.empty()) {
    for (Rows* rows : {&prohibited_, &benign_}) BALLAST_RETURN_IF_ERROR(CheckRows(*rows));
  } else {
    if (prohibited_.writer->size_bytes() > 0 || benign_.writer->size_bytes() > 0) {
      return FieldError("topics_data", "TOPICS_INVALID",
                        "a vector is trained on rows or on what is made of topics; send one of "
                        "the two");
    }
    BALLAST_RETURN_IF_ERROR(dataset::ParseTopics(topics_).status());
  }
  // A crash before the record is there must leave nothing for good.
  hold_ = {parts_.unnamed, VectorBlobs(id_)};
  BALLAST_RETURN_IF_ERROR(parts_.vectors.Expect(id_));
  BALLAST_ASSIGN_OR_RETURN(const VectorCatalog::Data data, Commit());
  BALLAST_ASSIGN_OR_RETURN(*response_, parts_.vectors.Create(call().Now(), id_, *options_, data));
  queued_ = true;
  return absl::OkStatus();
}

absl::StatusOr<VectorCatalog::Data> VectorUpload::Commit() {
  if (!topics_.empty()) {
    VectorCatalog::Data data;
    data.topics_blob = absl::StrCat(VectorBlobs(id_), "/rows/topics");
    BALLAST_RETURN_IF_ERROR(WriteBlob(parts_.blobs, data.topics_blob, topics_).status());
    return data;
  }
  for (Rows* rows : {&prohibited_, &benign_}) {
    BALLAST_RETURN_IF_ERROR(rows->writer->Commit("").status());
  }
  return VectorCatalog::Data{prohibited_.blob, benign_.blob, ""};
}

}  // namespace ballast::server
