// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_DATASET_TOPICS_H_
#define BALLAST_COMMON_DATASET_TOPICS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ballast::dataset {

inline constexpr size_t kMaxTopics = 500, kMaxTopicBytes = 200;
// Of the whole list, blank lines included.
inline constexpr size_t kMaxTopicsBytes = size_t{1} << 20;

// Topics that a vector's rows are made of, a line each; white space around them and empty lines do
// not count. INVALID_ARGUMENT (TOPICS_INVALID, of the field topics_data) with the line: one that is
// too long, is not UTF-8 or has control characters; none at all, or too many. No message quotes a
// topic.
absl::StatusOr<std::vector<std::string>> ParseTopics(std::string_view text);

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_TOPICS_H_
