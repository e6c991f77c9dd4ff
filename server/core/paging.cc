// SPDX-License-Identifier: Apache-2.0
#include "server/core/paging.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/error.h"

namespace ballast::server {
namespace {
absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }
}  // namespace

absl::StatusOr<int> PageSize(int32_t asked, int default_size) {
  if (asked < 0) {
    return FieldError("page_size", "PAGE_SIZE_INVALID", "page_size must not be negative");
  }
  return asked == 0 ? default_size : std::min(asked, 1000);
}

std::string MakePageToken(std::string_view list, int64_t position) {
  return absl::WebSafeBase64Escape(absl::StrCat(View(list), ":", position));
}

absl::StatusOr<int64_t> ParsePageToken(std::string_view list, std::string_view token) {
  if (token.empty()) return 0;
  std::string plain;
  int64_t position = 0;
  if (absl::WebSafeBase64Unescape(View(token), &plain)) {
    absl::string_view rest = plain;
    if (absl::ConsumePrefix(&rest, absl::StrCat(View(list), ":")) &&
        absl::SimpleAtoi(rest, &position) && position > 0) {
      return position;
    }
  }
  return FieldError("page_token", "PAGE_TOKEN_INVALID",
                    "page_token is not one of this list; start again without it");
}

}  // namespace ballast::server
