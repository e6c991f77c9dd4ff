// SPDX-License-Identifier: Apache-2.0
// SHA-256 and random ids, over OpenSSL. Digests are written "sha256:<64 hex digits>".
#ifndef BALLAST_COMMON_BASE_DIGEST_H_
#define BALLAST_COMMON_BASE_DIGEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ballast {

// SHA-256 of a stream of bytes. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(std::string_view bytes);
  // "sha256:<hex>" of all bytes so far. Requires: called once, last.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// "sha256:<hex>" of `bytes`.
std::string DigestOf(std::string_view bytes);

// "sha256:<hex>" of a file, read in pieces. NOT_FOUND or the error of the read.
absl::StatusOr<std::string> DigestOfFile(const std::string& path);

// True for "sha256:" and 64 lower-case hex digits.
bool IsDigest(std::string_view text);

// `bits` random bits (a multiple of 8) from the system's source, as lower-case hex. Unguessable.
std::string RandomHex(int bits);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_DIGEST_H_
