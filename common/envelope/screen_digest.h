// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_ENVELOPE_SCREEN_DIGEST_H_
#define BALLAST_COMMON_ENVELOPE_SCREEN_DIGEST_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"

namespace ballast::envelope {

// By what certificates name a screen: the digest of the digests of its two files of examples. The
// server computes it when the screen is set, and workers from the files that they get.
inline std::string ScreenDigest(const std::string& prohibited_digest,
                                const std::string& benign_digest) {
  return DigestOf(absl::StrCat(prohibited_digest, "\n", benign_digest, "\n"));
}

}  // namespace ballast::envelope

#endif  // BALLAST_COMMON_ENVELOPE_SCREEN_DIGEST_H_
