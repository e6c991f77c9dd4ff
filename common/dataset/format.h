// SPDX-License-Identifier: Apache-2.0
// Names of data-set formats as people write them: "auto", "openai_chat", "prompt_completion",
// "alpaca", "sharegpt".
#ifndef BALLAST_COMMON_DATASET_FORMAT_H_
#define BALLAST_COMMON_DATASET_FORMAT_H_

#include <string_view>

#include "absl/status/statusor.h"

namespace ballast::dataset {

// Shape of the rows of a file. kAuto decides by the keys of each row.
enum class Format { kAuto, kOpenAiChat, kPromptCompletion, kAlpaca, kShareGpt };

std::string_view FormatName(Format format);

// INVALID_ARGUMENT FORMAT_UNKNOWN with the names that exist.
absl::StatusOr<Format> ParseFormat(std::string_view name);

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_FORMAT_H_
