// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_ROW_CHECKS_H_
#define BALLAST_SERVER_CORE_ROW_CHECKS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/dataset_service.pb.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// The check of one file of rows against one base model. Thread safety: not thread-safe.
class RowCheck {
 public:
  virtual ~RowCheck() = default;
  // The next bytes of the file, split anywhere.
  virtual absl::Status Feed(std::string_view bytes) = 0;
  // After the last byte.
  virtual absl::StatusOr<v1::ValidationReport> Finish() = 0;
};

// What a base model's folder says about text.
struct TextFacts {
  std::string tokenizer_digest;
  std::string template_digest;
  int64_t vocabulary = 0;  // token ids are below it
};

// Starts row checks. Thread safety: thread-safe.
class RowChecks {
 public:
  virtual ~RowChecks() = default;
  // Loads tokenizer and chat template from a local folder and renders a chat. INVALID_ARGUMENT
  // (FILE_MISSING, TOKENIZER_INVALID, TEMPLATE_INVALID, and the template's own failures).
  virtual absl::StatusOr<TextFacts> Inspect(const std::string& folder) = 0;
  // UNAVAILABLE or DATA_LOSS when the base model's text files cannot be read.
  virtual absl::StatusOr<std::unique_ptr<RowCheck>> Begin(const BaseModelRecord& base,
                                                          v1::Dataset::Format format) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_ROW_CHECKS_H_
