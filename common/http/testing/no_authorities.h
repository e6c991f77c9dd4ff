// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_HTTP_TESTING_NO_AUTHORITIES_H_
#define BALLAST_COMMON_HTTP_TESTING_NO_AUTHORITIES_H_

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

namespace ballast::testing {

// While it lives, whoever looks for the system's certificate authorities finds none.
class NoAuthorities {
 public:
  NoAuthorities() {
    for (const char* name : {"SSL_CERT_FILE", "SSL_CERT_DIR"}) {
      const char* before = std::getenv(name);
      before_[name] = before == nullptr ? std::nullopt : std::optional<std::string>(before);
      setenv(name, "/there/is/none", 1);
    }
  }
  ~NoAuthorities() {
    for (const auto& [name, before] : before_) {
      if (before.has_value()) {
        setenv(name.c_str(), before->c_str(), 1);
      } else {
        unsetenv(name.c_str());
      }
    }
  }
  NoAuthorities(const NoAuthorities&) = delete;
  NoAuthorities& operator=(const NoAuthorities&) = delete;

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

}  // namespace ballast::testing

#endif  // BALLAST_COMMON_HTTP_TESTING_NO_AUTHORITIES_H_
