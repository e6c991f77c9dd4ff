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

// What a store has said, on one line and without the page of XML behind it, which may quote
// requests: of that the code.
std::string OneLine(const std::string& words) {
  constexpr size_t kMostBytes = 400;
  const size_t page = std::min(words.find('<'), words.find('\n'));
  std::string line = words.substr(0, std::min(page, kMostBytes));
  const size_t code = words.find("<Code>");
  if (code != std::string::npos) {
    line += words.substr(code + 6, std::min<size_t>(words.find('<', code + 6) - code - 6, 60));
  }
  return line;
}

// What `code` of a call on `path` means; takes `error`, which is set where the code is not OK.
// `telling`: the code that has a meaning of its own here, as no other has.
absl::Status StatusOf(int32_t code, BallastTextBuffer error, const char* what,
                      const std::string& path, int32_t telling = BALLAST_OBJECTS_OK) {
  if (code == BALLAST_OBJECTS_OK) return absl::OkStatus();
  const std::string words = OneLine(TakeBuffer(error));
  if (code == telling) {
    switch (code) {
      case BALLAST_OBJECTS_NOT_FOUND:
        return BlobNotFound(path);
      case BALLAST_OBJECTS_EXISTS:
        return MakeError(absl::StatusCode::kAlreadyExists, "OBJECT_EXISTS",
                         absl::StrCat("the object ", path, " exists"));
      default:
        return MakeError(absl::StatusCode::kAborted, "BLOB_REPLACED",
                         absl::StrCat("the blob ", path, " was replaced while it was read"));
    }
  }
  spdlog::warn("the object store did not {} {}: {}", what, path, words);
  if (code == BALLAST_OBJECTS_PANIC || code == BALLAST_OBJECTS_INVALID) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "a fault in the object store's client");
  }
  return MakeError(absl::StatusCode::kUnavailable, "OBJECT_STORE",
                   absl::StrCat("the object store did not ", what, " ", path,
                                code == BALLAST_OBJECTS_DENIED ? ": access is denied" : "",
                                code == BALLAST_OBJECTS_NOT_FOUND ? ": there is no bucket" : ""));
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
  return StatusOf(code, error, "write", path,
                  only_new ? BALLAST_OBJECTS_EXISTS : BALLAST_OBJECTS_OK);
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
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "look up", path, BALLAST_OBJECTS_NOT_FOUND));
  return Info{static_cast<int64_t>(info.size), TakeBuffer(info.etag)};
}

absl::StatusOr<std::string> ObjectStoreClient::Get(const std::string& path, const std::string& etag,
                                                   int64_t offset, int64_t size) {
  BallastTextBuffer bytes{}, error{};
  const int32_t code =
      ballast_objects_get(store_.get(), ToRust(path), ToRust(etag), static_cast<uint64_t>(offset),
                          static_cast<uint64_t>(size), &bytes, &error);
  const bool changed = code == BALLAST_OBJECTS_CHANGED;
  BALLAST_RETURN_IF_ERROR(
      StatusOf(code, error, "read", path, changed ? code : BALLAST_OBJECTS_NOT_FOUND));
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

absl::Status ObjectStoreClient::Copy(const std::string& from, const std::string& to) {
  bool done = false;
  BallastTextBuffer error{};
  const int32_t code = ballast_objects_copy(store_.get(), ToRust(from), ToRust(to), &done, &error);
  return StatusOf(code, error, "copy", from, BALLAST_OBJECTS_NOT_FOUND);
}

absl::StatusOr<std::string> ObjectStoreClient::Link(const std::string& path, LinkFor what,
                                                    absl::Duration valid) {
  BallastTextBuffer url{}, error{};
  const int32_t code =
      ballast_objects_link(store_.get(), ToRust(path), what == LinkFor::kPut,
                           static_cast<uint32_t>(absl::ToInt64Seconds(valid)), &url, &error);
  BALLAST_RETURN_IF_ERROR(StatusOf(code, error, "sign a link to", path));
  return TakeBuffer(url);
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
  return StatusOf(code, error, "write", path_, BALLAST_OBJECTS_NOT_FOUND);
}

}  // namespace ballast::server
