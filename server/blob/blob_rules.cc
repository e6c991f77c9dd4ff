// SPDX-License-Identifier: Apache-2.0
#include "server/blob/blob_rules.h"

#include <unistd.h>

#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {
constexpr size_t kMaxNameBytes = 500;
}  // namespace

absl::Status CheckBlobName(const std::string& name) {
  bool ok = !name.empty() && name.size() <= kMaxNameBytes;
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    ok = ok && !part.empty() && part != "." && part != "..";
    for (const char c : part) {
      ok = ok && (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
                  c == ':');
    }
  }
  if (ok) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BLOB_NAME_INVALID",
                   absl::StrCat("\"", name, "\" cannot be the name of a blob"));
}

absl::Status BlobNotFound(const std::string& name) {
  return MakeError(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND",
                   absl::StrCat("the blob ", name, " is not stored"), {{"blob", name}});
}

absl::Status LinksUnavailable() {
  return MakeError(absl::StatusCode::kFailedPrecondition, "LINKS_UNAVAILABLE",
                   "this server gives no links to its store; read and write through the server");
}

absl::Status CheckBlobDigest(const std::string& actual, std::string_view expected) {
  if (expected.empty() || expected == actual) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "DIGEST_MISMATCH",
                   absl::StrCat("the bytes have the digest ", actual, ", not ",
                                std::string(expected), "; send them again"));
}

absl::Status MoveThrough(BlobWriter& writer, const std::string& local_path) {
  absl::Status status;
  BALLAST_RETURN_IF_ERROR(ForEachChunk(local_path, 1 << 20, [&](std::string_view chunk) {
    status = writer.Append(chunk);
    return status.ok();
  }));
  BALLAST_RETURN_IF_ERROR(status);
  BALLAST_RETURN_IF_ERROR(writer.Commit("").status());
  unlink(local_path.c_str());
  return absl::OkStatus();
}

}  // namespace ballast::server
