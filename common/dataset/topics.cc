// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/topics.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/utf8.h"

namespace ballast::dataset {
namespace {

absl::Status Invalid(const std::string& message) {
  return FieldError("topics_data", "TOPICS_INVALID", message);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseTopics(std::string_view text) {
  std::vector<std::string> topics;
  size_t line = 0;
  for (const absl::string_view raw :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++line;
    const std::string topic(absl::StripAsciiWhitespace(raw));
    if (topic.empty()) continue;
    if (topic.size() > kMaxTopicBytes) {
      return Invalid(absl::StrCat("line ", line, " has ", topic.size(),
                                  " bytes; name a topic in at most ", kMaxTopicBytes));
    }
    const auto control = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
    if (ValidUtf8(topic) != topic || std::any_of(topic.begin(), topic.end(), control)) {
      return Invalid(absl::StrCat("line ", line, " is not plain text in UTF-8"));
    }
    topics.push_back(topic);
    if (topics.size() > kMaxTopics) {
      return Invalid(absl::StrCat("there are more than ", kMaxTopics, " topics"));
    }
  }
  if (topics.empty()) return Invalid("there is no topic; name one on each line");
  return topics;
}

}  // namespace ballast::dataset
