// SPDX-License-Identifier: Apache-2.0
#include "client/cli/error_report.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/format.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "google/rpc/error_details.pb.h"

namespace ballast::cli {
namespace {

constexpr char kExitCodeUrl[] = "ballast.cli/exit-code";

// The next command to type, for reasons whose message cannot know that a command line is used.
std::string HintOf(const std::string& reason) {
  static const std::map<std::string, std::string> kHints = {
      {"API_KEY_INVALID", "check --api-key-file, BALLAST_API_KEY or the profile in use"},
      {"API_KEY_MISSING", "give --api-key-file, BALLAST_API_KEY or --profile"},
      {"BASE_MODEL_NOT_FOUND", "ballast model list"},
      {"DATASET_BASE_MISMATCH", "ballast dataset upload FILE --base-model BASE_MODEL_OF_THE_JOB"},
      {"DATASET_NOT_FOUND", "ballast dataset list"},
      {"DATASET_NOT_READY", "ballast dataset show DATASET"},
      {"DELTA_NOT_FOUND", "ballast job list; only a job that SUCCEEDED has a delta"},
      {"GATE_NOT_FOUND", "ballast gate set --base-model BASE_MODEL --file FILE"},
      {"JOB_NOT_FOUND", "ballast job list"},
      {"JOB_NOT_WITHHELD", "ballast gate withheld"},
      {"JOB_PAUSED", "ballast job resume JOB"},
      {"JOB_WITHHELD", "ballast job show JOB tells when the operator has decided"},
      {"NO_ACTIVE_VECTOR",
       "an operator trains one (ballast vector train --base-model BASE_MODEL --prohibited FILE "
       "--benign FILE), then certifies it or, for development, activates it: ballast vector list"},
      {"NO_WORKER", "check that a ballast-worker runs and is connected: ballast model workers"},
      {"OPERATOR_ONLY", "use a profile or key of an operator"},
      {"OUTSIDE_ENVELOPE",
       "ballast job estimate with other numbers; it shows the limits of the base model"},
      {"SERVER_UNREACHABLE", "start a server with `ballast dev`, or check --server"},
      {"SIGNER_NOT_CONFIGURED",
       "openssl genpkey -algorithm ed25519 -out FILE, and certificate_key_file: FILE in the "
       "server's configuration"},
      {"UNPROTECTED_NOT_ALLOWED",
       "ballast dev --allow-unprotected, or allow_unprotected_base_models: true in the "
       "configuration of the server and of the workers"},
      {"USAGE", "add --help to see the options and examples"},
      {"VECTOR_NOT_FOUND", "ballast vector list"},
  };
  const auto hint = kHints.find(reason);
  return hint == kHints.end() ? "" : hint->second;
}

template <typename Message>
std::optional<Message> Payload(const absl::Status& status, const char* url) {
  const auto bytes = status.GetPayload(url);
  Message message;
  if (!bytes.has_value() || !message.ParseFromString(std::string(*bytes))) return std::nullopt;
  return message;
}

}  // namespace

absl::Status WithExitCode(absl::Status status, ExitCode code) {
  status.SetPayload(kExitCodeUrl, absl::Cord(absl::StrCat(static_cast<int>(code))));
  return status;
}

ExitCode ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  if (const auto payload = status.GetPayload(kExitCodeUrl)) {
    int code = 0;
    if (absl::SimpleAtoi(std::string(*payload), &code) && code > kExitOk &&
        code <= kExitNotAllowed) {
      return static_cast<ExitCode>(code);
    }
  }
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return kExitRefused;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return kExitUnavailable;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitNotAllowed;
    default:
      return kExitFailed;
  }
}

std::string DescribeError(const absl::Status& status) {
  const std::string message(status.message());
  std::string text = absl::StrCat("error: ", Printable(message), "\n");
  const std::string code = absl::StatusCodeToString(status.code());
  const std::string reason = ErrorReason(status);
  absl::StrAppend(&text, "reason: ", reason.empty() ? code : Printable(reason),
                  reason.empty() ? "" : absl::StrCat(" (", code, ")"), "\n");
  if (const auto bad = Payload<google::rpc::BadRequest>(status, kBadRequestUrl)) {
    for (const auto& violation : bad->field_violations()) {
      // The single violation of most errors says what the message says.
      if (bad->field_violations_size() == 1 && violation.description() == message) {
        absl::StrAppend(&text, "field: ", Printable(violation.field()), "\n");
      } else {
        absl::StrAppend(&text, "  ", Printable(violation.field()), ": ",
                        Printable(violation.description()), "\n");
      }
    }
  }
  if (const auto retry = Payload<google::rpc::RetryInfo>(status, kRetryInfoUrl)) {
    absl::StrAppend(&text,
                    absl::StrFormat("retry: waiting %.0f s may help\n",
                                    absl::ToDoubleSeconds(ToDuration(retry->retry_delay()))));
  }
  if (const std::string hint = HintOf(reason); !hint.empty()) {
    absl::StrAppend(&text, "try: ", hint, "\n");
  }
  return text;
}

std::string DescribeErrorJson(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  nlohmann::json error = {{"code", absl::StatusCodeToString(status.code())},
                          {"reason", reason},
                          {"message", std::string(status.message())},
                          {"exit_code", static_cast<int>(ExitCodeOf(status))}};
  if (const auto bad = Payload<google::rpc::BadRequest>(status, kBadRequestUrl)) {
    for (const auto& violation : bad->field_violations()) {
      error["violations"].push_back(
          {{"field", violation.field()}, {"description", violation.description()}});
    }
  }
  if (const auto retry = Payload<google::rpc::RetryInfo>(status, kRetryInfoUrl)) {
    error["retry_after_seconds"] = absl::ToDoubleSeconds(ToDuration(retry->retry_delay()));
  }
  if (const std::string hint = HintOf(reason); !hint.empty()) error["hint"] = hint;
  // Bytes that are no UTF-8 are replaced, never thrown over.
  return nlohmann::json{{"error", error}}.dump(-1, ' ', false,
                                               nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace ballast::cli
