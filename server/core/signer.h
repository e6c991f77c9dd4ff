// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_SIGNER_H_
#define BALLAST_SERVER_CORE_SIGNER_H_

#include <string>
#include <string_view>

#include "common/base/signature.h"

namespace ballast::server {

// Signs what the server vouches for: certificates of vectors. Thread safety: thread-safe.
class Signer {
 public:
  virtual ~Signer() = default;
  // As PrivateKey::Sign.
  virtual std::string Sign(std::string_view payload_type, std::string_view payload) const = 0;
  virtual const PublicKey& public_key() const = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_SIGNER_H_
