// SPDX-License-Identifier: Apache-2.0
// Errors with a reason that a program can test. Every failure that reaches a user is an
// absl::Status made here: a canonical code, a message that says what to do, and one
// google.rpc.ErrorInfo (domain "ballast", reason in capitals) as payload. common/rpc carries the
// payloads over gRPC (AIP-193).
#ifndef BALLAST_COMMON_BASE_ERROR_H_
#define BALLAST_COMMON_BASE_ERROR_H_

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ballast {

// Type URLs of the payloads, as in google.rpc.Status.details.
inline constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
inline constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
inline constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// A failure with its reason, for example
//   MakeError(absl::StatusCode::kInvalidArgument, "LEARNING_RATE_OUT_OF_RANGE",
//             "learning_rate is 0; give a value in (0, 0.01]", {{"field", "learning_rate"}});
// `reason` is UPPER_SNAKE, at most 63 characters; dynamic parts of the message belong in `metadata`
// too. What is no UTF-8 in message, metadata and fields is replaced: it would cost the payloads.
absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       const std::map<std::string, std::string>& metadata = {});

// As MakeError with code INVALID_ARGUMENT, and a BadRequest.FieldViolation for `field`.
absl::Status FieldError(std::string_view field, std::string_view reason, std::string_view message);

// INVALID_ARGUMENT with one violation per (field, description) pair.
absl::Status FieldErrors(std::string_view reason, std::string_view message,
                         const std::vector<std::pair<std::string, std::string>>& violations);

// Adds RetryInfo: waiting `delay` may help.
absl::Status WithRetry(absl::Status status, absl::Duration delay);

// The same failure (code, payloads) with "<context>: " before its message. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The ErrorInfo reason of `status`, or empty.
std::string ErrorReason(const absl::Status& status);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_ERROR_H_
