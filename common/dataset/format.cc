// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/format.h"

#include <array>
#include <string>
#include <utility>

#include "common/base/error.h"

namespace ballast::dataset {
namespace {

constexpr std::array<std::pair<Format, std::string_view>, 5> kNames = {{
    {Format::kAuto, "auto"},
    {Format::kOpenAiChat, "openai_chat"},
    {Format::kPromptCompletion, "prompt_completion"},
    {Format::kAlpaca, "alpaca"},
    {Format::kShareGpt, "sharegpt"},
}};

}  // namespace

std::string_view FormatName(Format format) {
  for (const auto& [value, name] : kNames) {
    if (value == format) return name;
  }
  return "auto";
}

absl::StatusOr<Format> ParseFormat(std::string_view name) {
  std::string known;
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
    known += known.empty() ? "" : ", ";
    known += text;
  }
  return FieldError("format", "FORMAT_UNKNOWN",
                    "unknown format \"" + std::string(name) + "\"; use one of " + known);
}

}  // namespace ballast::dataset
