// SPDX-License-Identifier: Apache-2.0
#include "server/testing/test_object_store.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_split.h"
#include "common/base/file.h"

namespace ballast::server::testing {

TestObjectStore TestObjectStore::Find() {
  const char* file = std::getenv("BALLAST_OBJECT_STORE_FILE");
  if (file == nullptr) {
    // With keys, or it would ask the machine for a role.
    return {
        "s3://nowhere",
        {{"endpoint", "https://127.0.0.1:1"}, {"access_key_id", "x"}, {"secret_access_key", "x"}}};
  }
  TestObjectStore found;
  const std::string text = ReadFile(file).value();
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> told = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    found.options.insert(told);
  }
  found.url = found.options["url"];
  found.options.erase("url");
  found.options.erase("folder");
  return found;
}

}  // namespace ballast::server::testing
