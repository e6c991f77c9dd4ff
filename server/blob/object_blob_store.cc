// SPDX-License-Identifier: Apache-2.0
#include "server/blob/object_blob_store.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "server/blob/blob_rules.h"

namespace ballast::server {
namespace {

// Read at once: callers read on, in pieces that are too small for a request each.
constexpr int64_t kReadBytes = int64_t{4} << 20;

// Part of a blob: an object, or a whole one.
struct Piece {
  std::string path;
  std::string tag;  // empty: objects of this name are never replaced
  int64_t offset = 0;
  int64_t size_bytes = 0;
};

int64_t SizeOf(const std::vector<Piece>& pieces) {
  return pieces.empty() ? 0 : pieces.back().offset + pieces.back().size_bytes;
}

// The objects of a blob that is appended to, in order; none where there is no such blob.
absl::StatusOr<std::vector<Piece>> AppendedPieces(ObjectStoreClient& client,
                                                  const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const std::vector<ObjectStoreClient::Listed> listed, client.List(name));
  std::vector<Piece> pieces;
  for (const ObjectStoreClient::Listed& object : listed) {
    if (object.name.front() != '@') continue;
    pieces.push_back({.path = absl::StrCat(name, "/", object.name),
                      .offset = SizeOf(pieces),
                      .size_bytes = object.size_bytes});
  }
  return pieces;
}

class ObjectReader : public BlobReader {
 public:
  ObjectReader(ObjectStoreClient& client, std::vector<Piece> pieces)
      : client_(client), pieces_(std::move(pieces)) {}

  absl::StatusOr<std::string> Read(int64_t offset, size_t max_bytes) override {
    std::string bytes;
    absl::MutexLock lock(&mutex_);
    while (bytes.size() < max_bytes && offset < size_bytes()) {
      if (offset < read_at_ || offset >= read_at_ + static_cast<int64_t>(read_.size())) {
        BALLAST_RETURN_IF_ERROR(ReadAt(offset));
      }
      const std::string_view found = std::string_view(read_).substr(
          static_cast<size_t>(offset - read_at_), max_bytes - bytes.size());
      bytes.append(found);
      offset += static_cast<int64_t>(found.size());
    }
    return bytes;
  }

  int64_t size_bytes() const override { return SizeOf(pieces_); }

 private:
  // Fills `read_` from `offset`, which the blob has, on.
  absl::Status ReadAt(int64_t offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                        [](int64_t wanted, const Piece& piece) {
                                          return wanted < piece.offset + piece.size_bytes;
                                        });
    const int64_t within = offset - after->offset;
    auto bytes = client_.Get(after->path, after->tag, within,
                             std::min(kReadBytes, after->size_bytes - within));
    if (absl::IsNotFound(bytes.status())) {
      return MakeError(absl::StatusCode::kAborted, "BLOB_REPLACED",
                       absl::StrCat("the blob ", after->path, " was deleted while it was read"));
    }
    BALLAST_RETURN_IF_ERROR(bytes.status());
    read_ = *std::move(bytes);
    read_at_ = offset;
    return absl::OkStatus();
  }

  ObjectStoreClient& client_;
  const std::vector<Piece> pieces_;
  absl::Mutex mutex_;
  int64_t read_at_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string read_ ABSL_GUARDED_BY(mutex_);
};

class ObjectWriter : public BlobWriter {
 public:
  ObjectWriter(ObjectStoreClient& client, std::string name)
      : client_(client), name_(std::move(name)) {}

  absl::Status Append(std::string_view bytes) override {
    sha_.Update(bytes);
    size_bytes_ += static_cast<int64_t>(bytes.size());
    while (!bytes.empty()) {
      const size_t taken = std::min(bytes.size(), ObjectStoreClient::kPartBytes - part_.size());
      part_.append(bytes.substr(0, taken));
      bytes.remove_prefix(taken);
      if (part_.size() == ObjectStoreClient::kPartBytes) BALLAST_RETURN_IF_ERROR(SendPart());
    }
    return absl::OkStatus();
  }

  // What is sent is durable; the rest, less than a part, goes with Commit.
  absl::Status Sync() override { return absl::OkStatus(); }

  absl::StatusOr<std::string> Commit(std::string_view digest) override {
    BALLAST_RETURN_IF_ERROR(failed_);
    std::string actual = sha_.Finish();
    BALLAST_RETURN_IF_ERROR(CheckBlobDigest(actual, digest));
    if (upload_ == nullptr) {
      BALLAST_RETURN_IF_ERROR(client_.Put(name_, part_));
    } else {
      if (!part_.empty()) BALLAST_RETURN_IF_ERROR(SendPart());
      BALLAST_RETURN_IF_ERROR(upload_->Finish());
    }
    return actual;
  }

  int64_t size_bytes() const override { return size_bytes_; }

 private:
  absl::Status SendPart() {
    BALLAST_RETURN_IF_ERROR(failed_);
    if (upload_ == nullptr) {
      BALLAST_ASSIGN_OR_RETURN(upload_, client_.StartUpload(name_));
    }
    failed_ = upload_->Part(part_);
    part_.clear();
    return failed_;
  }

  ObjectStoreClient& client_;
  const std::string name_;
  Sha256 sha_;
  int64_t size_bytes_ = 0;
  std::string part_;     // not sent yet
  absl::Status failed_;  // of a part: the blob cannot be made any more
  std::unique_ptr<ObjectStoreClient::Upload> upload_;
};

class ObjectAppender : public BlobAppender {
 public:
  ObjectAppender(ObjectStoreClient& client, std::string name, const std::vector<Piece>& pieces)
      : client_(client),
        name_(std::move(name)),
        next_(pieces.size()),
        stored_bytes_(SizeOf(pieces)) {
    if (stored_bytes_ == 0) sha_.emplace();
  }

  absl::Status Append(std::string_view bytes) override {
    if (unsent_.size() + bytes.size() > ObjectStoreClient::kPartBytes) {
      BALLAST_RETURN_IF_ERROR(Sync());
    }
    unsent_.append(bytes);
    if (sha_.has_value()) sha_->Update(bytes);
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (unsent_.empty()) return absl::OkStatus();
    const std::string path = PathOf(name_, next_);
    const absl::Status status = client_.PutNew(path, unsent_);
    if (absl::IsAlreadyExists(status)) {
      // Ours, where only the answer was lost.
      BALLAST_RETURN_IF_ERROR(CheckIsOurs(path));
    } else {
      BALLAST_RETURN_IF_ERROR(status);
    }
    ++next_;
    stored_bytes_ += static_cast<int64_t>(unsent_.size());
    unsent_.clear();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Digest() override {
    BALLAST_RETURN_IF_ERROR(Sync());
    if (sha_.has_value()) {
      std::string digest = sha_->Finish();
      sha_.reset();
      return digest;
    }
    BALLAST_ASSIGN_OR_RETURN(std::vector<Piece> pieces, AppendedPieces(client_, name_));
    ObjectReader reader(client_, std::move(pieces));
    Sha256 sha;
    for (int64_t offset = 0; offset < reader.size_bytes();) {
      BALLAST_ASSIGN_OR_RETURN(const std::string bytes,
                               reader.Read(offset, static_cast<size_t>(kReadBytes)));
      sha.Update(bytes);
      offset += static_cast<int64_t>(bytes.size());
    }
    return sha.Finish();
  }

  int64_t size_bytes() const override {
    return stored_bytes_ + static_cast<int64_t>(unsent_.size());
  }

  static std::string PathOf(const std::string& name, size_t number) {
    return absl::StrFormat("%s/@%08d", name, number);
  }

 private:
  absl::Status CheckIsOurs(const std::string& path) {
    BALLAST_ASSIGN_OR_RETURN(const ObjectStoreClient::Info info, client_.Head(path));
    if (info.size_bytes == static_cast<int64_t>(unsent_.size())) {
      BALLAST_ASSIGN_OR_RETURN(const std::string there,
                               client_.Get(path, info.tag, 0, info.size_bytes));
      if (there == unsent_) return absl::OkStatus();
    }
    return MakeError(absl::StatusCode::kAborted, "BLOB_BUSY",
                     absl::StrCat("another server appends to ", name_,
                                  "; ask for its size and go on from there"));
  }

  ObjectStoreClient& client_;
  const std::string name_;
  size_t next_;
  int64_t stored_bytes_;
  std::string unsent_;
  std::optional<Sha256> sha_;  // while every byte went through this object
};

}  // namespace

absl::StatusOr<std::unique_ptr<ObjectBlobStore>> ObjectBlobStore::Open(
    const std::string& url, const std::map<std::string, std::string>& options) {
  BALLAST_ASSIGN_OR_RETURN(auto client, ObjectStoreClient::Open(url, options));
  // "@" is in no blob's name.
  const std::string probe = absl::StrCat("@probe-", RandomHex(64));
  const absl::Status written = client->PutNew(probe, "probe");
  if (absl::IsNotFound(written)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "OBJECT_STORE_UNFIT",
                     absl::StrCat("object_store: there is no bucket of ", url, "; make it first"));
  }
  BALLAST_RETURN_IF_ERROR(written);
  const absl::Status again = client->PutNew(probe, "again");
  BALLAST_RETURN_IF_ERROR(client->DeletePrefix(probe));
  if (!absl::IsAlreadyExists(again)) {
    BALLAST_RETURN_IF_ERROR(again);
    return MakeError(absl::StatusCode::kFailedPrecondition, "OBJECT_STORE_UNFIT",
                     absl::StrCat("object_store: ", url,
                                  " replaces objects although it is asked not to (If-None-Match); "
                                  "Ballast needs a store with conditional puts"));
  }
  return std::unique_ptr<ObjectBlobStore>(new ObjectBlobStore(std::move(client)));
}

absl::StatusOr<std::unique_ptr<BlobWriter>> ObjectBlobStore::Create(const std::string& name) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  return std::make_unique<ObjectWriter>(*client_, name);
}

absl::StatusOr<std::unique_ptr<BlobAppender>> ObjectBlobStore::OpenAppend(const std::string& name) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  BALLAST_ASSIGN_OR_RETURN(std::vector<Piece> pieces, AppendedPieces(*client_, name));
  if (pieces.empty()) {
    const absl::Status made = client_->PutNew(ObjectAppender::PathOf(name, 0), "");
    if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
    BALLAST_ASSIGN_OR_RETURN(pieces, AppendedPieces(*client_, name));
  }
  return std::make_unique<ObjectAppender>(*client_, name, pieces);
}

absl::StatusOr<std::unique_ptr<BlobReader>> ObjectBlobStore::Open(const std::string& name) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  std::vector<Piece> pieces;
  const auto info = client_->Head(name);
  if (info.ok()) {
    pieces.push_back({.path = name, .tag = info->tag, .size_bytes = info->size_bytes});
  } else if (absl::IsNotFound(info.status())) {
    BALLAST_ASSIGN_OR_RETURN(pieces, AppendedPieces(*client_, name));
    if (pieces.empty()) return BlobNotFound(name);
  } else {
    return info.status();
  }
  return std::make_unique<ObjectReader>(*client_, std::move(pieces));
}

absl::StatusOr<int64_t> ObjectBlobStore::Size(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const auto reader, Open(name));
  return reader->size_bytes();
}

absl::Status ObjectBlobStore::Adopt(const std::string& name, const std::string& local_path) {
  BALLAST_ASSIGN_OR_RETURN(const auto writer, Create(name));
  absl::Status status;
  BALLAST_RETURN_IF_ERROR(ForEachChunk(local_path, 1 << 20, [&](std::string_view chunk) {
    status = writer->Append(chunk);
    return status.ok();
  }));
  BALLAST_RETURN_IF_ERROR(status);
  BALLAST_RETURN_IF_ERROR(writer->Commit("").status());
  unlink(local_path.c_str());
  return absl::OkStatus();
}

absl::Status ObjectBlobStore::DeletePrefix(const std::string& prefix) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(prefix));
  return client_->DeletePrefix(prefix);
}

}  // namespace ballast::server
