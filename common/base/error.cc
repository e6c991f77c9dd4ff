// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"

#include "absl/strings/str_cat.h"
#include "common/base/utf8.h"
#include "google/rpc/error_details.pb.h"

namespace ballast {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

template <typename Message>
void SetPayload(absl::Status& status, const char* url, const Message& message) {
  status.SetPayload(url, absl::Cord(message.SerializeAsString()));
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, ValidUtf8(message));
  google::rpc::ErrorInfo info;
  info.set_domain("ballast");
  info.set_reason(std::string(reason));
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = ValidUtf8(value);
  SetPayload(status, kErrorInfoUrl, info);
  return status;
}

absl::Status FieldError(std::string_view field, std::string_view reason, std::string_view message) {
  absl::Status status = MakeError(absl::StatusCode::kInvalidArgument, reason, message,
                                  {{"field", std::string(field)}});
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field(ValidUtf8(field));
  violation->set_description(ValidUtf8(message));
  SetPayload(status, kBadRequestUrl, bad_request);
  return status;
}

absl::Status FieldErrors(std::string_view reason, std::string_view message,
                         const std::vector<std::pair<std::string, std::string>>& violations) {
  absl::Status status = MakeError(absl::StatusCode::kInvalidArgument, reason, message);
  google::rpc::BadRequest bad_request;
  for (const auto& [field, description] : violations) {
    auto* violation = bad_request.add_field_violations();
    violation->set_field(ValidUtf8(field));
    violation->set_description(ValidUtf8(description));
  }
  SetPayload(status, kBadRequestUrl, bad_request);
  return status;
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  google::rpc::RetryInfo retry;
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  SetPayload(status, kRetryInfoUrl, retry);
  return status;
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         ValidUtf8(absl::StrCat(View(context), ": ", status.message())));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

std::string ErrorReason(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrorInfoUrl);
  if (!payload.has_value()) return "";
  google::rpc::ErrorInfo info;
  if (!info.ParseFromString(std::string(*payload))) return "";
  return info.reason();
}

}  // namespace ballast
