// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_TEMP_DIR_H_
#define BALLAST_SERVER_TESTING_TEMP_DIR_H_

#include <filesystem>
#include <string>
#include <system_error>

#include "common/base/digest.h"
#include "gtest/gtest.h"

namespace ballast::server::testing {

// A folder of its own that goes with the object.
class TempDir {
 public:
  TempDir() : path_(::testing::TempDir() + "/ballast-" + RandomHex(64)) {
    std::filesystem::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_TEMP_DIR_H_
