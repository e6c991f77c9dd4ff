// SPDX-License-Identifier: Apache-2.0
#include "server/blob/object_store_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/rust/rust_call.h"
#include "server/blob/blob_rules.h"

namespace ballast::server {
namespace {

// The beginning of an answer that may be a page of XML.
std::string OneLine(std::string words) {
  constexpr size_t kMostBytes = 500;
  words.resize(std::min(words.size(), kMostBytes));
  std::replace(words.begin(), words.end(), '\n', ' ');
  return words;
}

// What `code` of a call on `path` means; takes `error`, which is set where the code is not OK.
absl::Status StatusOf(int32_t code, BallastTextBuffer error, const char* what,
                      const std::string& path) {
  if (code == BALLAST_OBJECTS_OK) return absl::OkStatus();
  const std::string words = OneLine(TakeBuffer(error));
  switch (code) {
    case BALLAST_OBJECTS_NOT_FOUND:
      return BlobNotFound(path);
    case BALLAST_OBJECTS_EXISTS:
      return MakeError(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS",
                       absl::StrCat("the object ", path, " exists"));
    case BALLAST_OBJECTS_CHANGED:
      return MakeError(absl::StatusCode::kAborted, "BLOB_REPLACED",
                       absl::StrCat("the blob ", path, " was replaced while it was read"));
    default:
      spdlog::warn("the object store did not {} {}: {}", what, path, words);
      return MakeError(absl::StatusCode::kUnavailable, "OBJECT_STORE",
                       absl::StrCat("the object store did not ", what, " ", path,
                                    code == BALLAST_OBJECTS_DENIED ? ": access is denied" : ""));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ObjectStoreClient>> ObjectStoreClient::Open(
    const std::string& url, const std::map<std::string, std::string>& options) {
  std::vector<BallastText> pairs;
  for (const auto& [name, value] : options) {
    pairs.push_back(ToRust(name));
    pairs.push_back(ToRust(value));
  }
  BallastObjects* store = nullptr;
  BallastTextBuffer error{};
  if (ballast_objects_open(ToRust(url), pairs.data(), options.size(), &store, &error) !=
      BALLAST_OBJECTS_OK) {
    return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                     absl::StrCat("object_store: ", TakeBuffer(error)));
  }
  return std::unique_ptr<ObjectStoreClient>(new ObjectStoreClient(store));
}

absl::Status ObjectStoreClient::PutObject(const std::string& path, std::string_view bytes,
                                          bool only_new) {
  bool done = false;
  BallastTextBuffer error{};
  const int32_t code =
      ballast_objects_put(store_.get(), ToRust(path), ToRust(bytes), only_new, &done, &error);
  return StatusOf(code, error, "write", path);
}

absl::Status ObjectStoreClient::Put(const std::string& path, std::string_view bytes) {
  return PutObject(path, bytes, /*only_new=*/false);
}

absl::Status ObjectStoreClient::PutNew(const std::string& path, std::string_view bytes) {
  return PutObject(path, bytes, /*only_new=*/true);
}

absl::StatusOr<ObjectStoreClient::Info> ObjectStoreClient::Head(const std::string& path) {
  BallastObjectInfo info{};
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_head(store_.get(), ToRust(path), &info, &error);
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "look up", path));
  return Info{static_cast<int64_t>(info.size), TakeBuffer(info.tag)};
}

absl::StatusOr<std::string> ObjectStoreClient::Get(const std::string& path, const std::string& tag,
                                                   int64_t offset, int64_t size) {
  BallastTextBuffer bytes{}, error{};
  const int32_t code =
      ballast_objects_get(store_.get(), ToRust(path), ToRust(tag), static_cast<uint64_t>(offset),
                          static_cast<uint64_t>(size), &bytes, &error);
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "read", path));
  return TakeBuffer(bytes);
}

absl::StatusOr<std::vector<ObjectStoreClient::Listed>> ObjectStoreClient::List(
    const std::string& path) {
  BallastTextBuffer lines{}, error{};
  const int32_t code = ballast_objects_list(store_.get(), ToRust(path), &lines, &error);
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "list", path));
  std::vector<Listed> listed;
  const std::string text = TakeBuffer(lines);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits('\t', 1));
    Listed& one = listed.emplace_back();
    if (!absl::SimpleAtoi(fields.first, &one.size_bytes)) {
      return MakeError(absl::StatusCode::kInternal, "OBJECT_STORE", "a list cannot be read");
    }
    one.name = std::string(fields.second);
  }
  return listed;
}

absl::Status ObjectStoreClient::DeletePrefix(const std::string& path) {
  uint64_t deleted = 0;
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_delete_prefix(store_.get(), ToRust(path), &deleted, &error);
  return StatusOf(code, error, "delete", path);
}

absl::StatusOr<std::unique_ptr<ObjectStoreClient::Upload>> ObjectStoreClient::StartUpload(
    const std::string& path) {
  BallastObjectUpload* upload = nullptr;
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_upload_new(store_.get(), ToRust(path), &upload, &error);
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "write", path));
  return std::unique_ptr<Upload>(new Upload(upload, path));
}

absl::Status ObjectStoreClient::Upload::Part(std::string_view bytes) {
  bool done = false;
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_upload_part(upload_.get(), ToRust(bytes), &done, &error);
  return StatusOf(code, error, "write", path_);
}

absl::Status ObjectStoreClient::Upload::Finish() {
  bool done = false;
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_upload_finish(upload_.get(), &done, &error);
  return StatusOf(code, error, "write", path_);
}

}  // namespace ballast::server
