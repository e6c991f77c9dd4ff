// SPDX-License-Identifier: Apache-2.0
#include "server/core/request_id.h"

#include <cctype>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace ballast::server {

absl::Status CheckRequestId(std::string_view request_id) {
  bool ok = request_id.size() <= 64;
  for (const char c : request_id)
    ok = ok && (std::isalnum(static_cast<unsigned char>(c)) || c == '-');
  if (ok) return absl::OkStatus();
  return FieldError("request_id", "REQUEST_ID_INVALID",
                    "request_id must be a UUID: at most 64 letters, digits and \"-\"");
}

std::string PayloadDigest(const google::protobuf::Message& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&coded);
  }
  return DigestOf(request.GetTypeName() + "\n" + bytes);
}

absl::StatusOr<std::string> FindEarlier(Transaction& tx, std::string_view tenant,
                                        std::string_view request_id, std::string_view digest) {
  if (request_id.empty()) return std::string();
  BALLAST_ASSIGN_OR_RETURN(const auto earlier, tx.GetRequest(tenant, request_id));
  if (!earlier.has_value()) return std::string();
  if (earlier->payload_digest != digest) {
    return MakeError(absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
                     "this request_id was used for another request; choose a new one");
  }
  return earlier->result_name;
}

absl::Status Remember(Transaction& tx, std::string_view tenant, std::string_view request_id,
                      std::string_view digest, std::string_view result_id) {
  if (request_id.empty()) return absl::OkStatus();
  return tx.PutRequest(tenant, request_id, {std::string(digest), std::string(result_id)});
}

}  // namespace ballast::server
