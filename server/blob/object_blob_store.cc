// SPDX-License-Identifier: Apache-2.0
#include "server/blob/object_blob_store.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
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
constexpr int64_t kReadBytes = int64_t{1} << 20;
// The most parts that S3 makes an object of, with some to spare.
constexpr int64_t kMostParts = 9000;

// Part of a blob: an object, or a whole one.
struct Piece {
  std::string path;
  std::string etag;  // empty: objects of this name are never replaced
  int64_t offset = 0;
  int64_t size_bytes = 0;
};

int64_t SizeOf(const std::vector<Piece>& pieces) {
  return pieces.empty() ? 0 : pieces.back().offset + pieces.back().size_bytes;
}

std::string PieceName(size_t number) { return absl::StrFormat("@%08d", number); }

// The objects of a blob that is appended to, in order; none where there is no such blob. DATA_LOSS
// (BLOB_CORRUPT) where one is missing: a deletion that was cut off leaves some.
absl::StatusOr<std::vector<Piece>> AppendedPieces(ObjectStoreClient& client,
                                                  const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const std::vector<ObjectStoreClient::Listed> listed, client.List(name));
  std::vector<Piece> pieces;
  for (const ObjectStoreClient::Listed& object : listed) {
    if (object.name.front() != '@') continue;
    if (object.name != PieceName(pieces.size())) {
      return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                       absl::StrCat("a part of ", name, " is missing; tell the operator"));
    }
    pieces.push_back({.path = absl::StrCat(name, "/", object.name),
                      .offset = SizeOf(pieces),
                      .size_bytes = object.size_bytes});
  }
  return pieces;
}

// The objects of any blob, in order.
absl::StatusOr<std::vector<Piece>> PiecesOf(ObjectStoreClient& client, const std::string& name) {
  const auto info = client.Head(name);
  if (info.ok()) {
    return std::vector<Piece>{{.path = name, .etag = info->etag, .size_bytes = info->size_bytes}};
  }
  if (!absl::IsNotFound(info.status())) return info.status();
  BALLAST_ASSIGN_OR_RETURN(std::vector<Piece> pieces, AppendedPieces(client, name));
  if (pieces.empty()) return BlobNotFound(name);
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
    // Many readers are open at once, and most of them wait for a slow client.
    if (offset == read_at_ + static_cast<int64_t>(read_.size())) std::string().swap(read_);
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
    auto bytes = client_.Get(after->path, after->etag, within,
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
  // `part_bytes`: of every part but the last, at least kPartBytes.
  ObjectWriter(ObjectStoreClient& client, std::string name,
               size_t part_bytes = ObjectStoreClient::kPartBytes)
      : client_(client), name_(std::move(name)), part_bytes_(part_bytes) {}

  absl::Status Append(std::string_view bytes) override {
    sha_.Update(bytes);
    size_bytes_ += static_cast<int64_t>(bytes.size());
    while (!bytes.empty()) {
      const size_t taken = std::min(bytes.size(), part_bytes_ - part_.size());
      part_.append(bytes.substr(0, taken));
      bytes.remove_prefix(taken);
      if (part_.size() == part_bytes_) BALLAST_RETURN_IF_ERROR(SendPart());
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
      const absl::Status finished = upload_->Finish();
      // An earlier try has made the object, and its answer was lost.
      const bool is_there = absl::IsNotFound(finished) && IsThere();
      if (!finished.ok() && !is_there) {
        return absl::IsNotFound(finished) ? UploadLost() : finished;
      }
    }
    return actual;
  }

  int64_t size_bytes() const override { return size_bytes_; }

 private:
  bool IsThere() const {
    const auto info = client_.Head(name_);
    return info.ok() && info->size_bytes == size_bytes_;
  }
  absl::Status UploadLost() const {
    return MakeError(absl::StatusCode::kUnavailable, "OBJECT_STORE",
                     absl::StrCat("the object store has lost the parts of ", name_));
  }

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
  const size_t part_bytes_;
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
    return absl::StrCat(name, "/", PieceName(number));
  }

 private:
  absl::Status CheckIsOurs(const std::string& path) {
    const auto head = client_.Head(path);
    if (absl::IsNotFound(head.status())) {
      return MakeError(absl::StatusCode::kUnavailable, "OBJECT_STORE",
                       absl::StrCat("another write of ", path, " was under way"));
    }
    BALLAST_RETURN_IF_ERROR(head.status());
    const ObjectStoreClient::Info& info = *head;
    if (info.size_bytes == static_cast<int64_t>(unsent_.size())) {
      BALLAST_ASSIGN_OR_RETURN(const std::string there,
                               client_.Get(path, info.etag, 0, info.size_bytes));
      if (there == unsent_) return absl::OkStatus();
    }
    return WithRetry(
        MakeError(absl::StatusCode::kAborted, "BLOB_BUSY",
                  "another upload has appended to this one; ask for its size and go on "
                  "from there"),
        absl::Seconds(1));
  }

  ObjectStoreClient& client_;
  const std::string name_;
  size_t next_;
  int64_t stored_bytes_;
  std::string unsent_;
  std::optional<Sha256> sha_;  // while every byte went through this object
};

absl::Status Unfit(const std::string& url, const char* why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "OBJECT_STORE_UNFIT",
                   absl::StrCat("object_store: ", url, " ", why));
}

// Whether the store has what is relied on: puts that replace nothing, and gets of one version.
absl::Status CheckIsFit(ObjectStoreClient& client, const std::string& url) {
  // "@" is in no blob's name.
  const std::string probe = absl::StrCat("@probe-", RandomHex(64));
  const std::string bytes = "probe";
  BALLAST_RETURN_IF_ERROR(client.Put(probe, bytes));
  const absl::Status again = client.PutNew(probe, "again");
  const auto info = client.Head(probe);
  const auto of_version = info.ok() ? client.Get(probe, info->etag, 0, info->size_bytes)
                                    : absl::StatusOr<std::string>(info.status());
  const auto of_another = client.Get(probe, "\"another\"", 0, 1);
  BALLAST_RETURN_IF_ERROR(client.DeletePrefix(probe));
  for (const absl::Status& status : {again, info.status(), of_version.status()}) {
    if (absl::IsUnavailable(status)) return status;
  }
  if (!absl::IsAlreadyExists(again)) {
    return Unfit(url,
                 "does not refuse to replace objects when it is asked to (If-None-Match: *), which "
                 "keeps uploads whole; take a store that has this");
  }
  if (!info.ok() || info->etag.empty() || !of_version.ok() || *of_version != bytes ||
      !absl::IsAborted(of_another.status())) {
    return Unfit(url,
                 "does not tell versions of an object apart (If-Match), which keeps downloads "
                 "whole; take a store that has this");
  }
  return absl::OkStatus();
}

// Names under which the crate takes an endpoint. Some go before others.
constexpr const char* kEndpointNames[] = {
    "endpoint",       "endpoint_url",        "aws_endpoint",          "aws_endpoint_url",
    "azure_endpoint", "aws_endpoint_url_s3", "azure_storage_endpoint"};

// The options of who signs links.
std::map<std::string, std::string> SigningOptions(std::map<std::string, std::string> options,
                                                  const std::string& endpoint) {
  if (endpoint.empty()) return options;
  for (const char* name : kEndpointNames) options.erase(name);
  options["endpoint"] = endpoint;
  return options;
}

}  // namespace

absl::Status ObjectBlobStore::CheckLinks(const std::string& url, const LinkOptions& links) {
  const std::string& endpoint = links.endpoint;
  if (endpoint.empty()) return absl::OkStatus();
  if (!absl::StartsWith(endpoint, "https://") && !absl::StartsWith(endpoint, "http://")) {
    return FieldError("object_store.links.endpoint", "ENDPOINT_INVALID",
                      "object_store.links.endpoint must be a URL, for example "
                      "\"https://s3.example.com\"");
  }
  if (absl::StartsWithIgnoreCase(url, "gs:")) {
    return FieldError("object_store.links.endpoint", "ENDPOINT_INVALID",
                      "object_store.links.endpoint is for s3:// and az://; Google Cloud Storage "
                      "has one endpoint for everybody, leave it out");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ObjectBlobStore>> ObjectBlobStore::Open(
    const std::string& url, const std::map<std::string, std::string>& options,
    const std::optional<LinkOptions>& links) {
  if (links.has_value()) BALLAST_RETURN_IF_ERROR(CheckLinks(url, *links));
  BALLAST_ASSIGN_OR_RETURN(auto client, ObjectStoreClient::Open(url, options));
  std::optional<Signing> signing;
  if (links.has_value()) {
    signing.emplace().valid = links->valid;
    BALLAST_ASSIGN_OR_RETURN(
        signing->client, ObjectStoreClient::Open(url, SigningOptions(options, links->endpoint)));
    // A link does not say what Azure makes of the bytes.
    if (url[0] == 'a') signing->write_headers["x-ms-blob-type"] = "BlockBlob";
  }
  BALLAST_RETURN_IF_ERROR(CheckIsFit(*client, url));
  return std::unique_ptr<ObjectBlobStore>(
      new ObjectBlobStore(std::move(client), std::move(signing)));
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
  BALLAST_ASSIGN_OR_RETURN(std::vector<Piece> pieces, PiecesOf(*client_, name));
  return std::make_unique<ObjectReader>(*client_, std::move(pieces));
}

absl::StatusOr<int64_t> ObjectBlobStore::Size(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const auto reader, Open(name));
  return reader->size_bytes();
}

absl::Status ObjectBlobStore::Adopt(const std::string& name, const std::string& local_path) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  BALLAST_ASSIGN_OR_RETURN(const int64_t size, FileSize(local_path));
  const size_t part_bytes =
      std::max(ObjectStoreClient::kPartBytes, static_cast<size_t>(size / kMostParts));
  ObjectWriter writer(*client_, name, part_bytes);
  return MoveThrough(writer, local_path);
}

absl::Status ObjectBlobStore::DeletePrefix(const std::string& prefix) {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(prefix));
  return client_->DeletePrefix(prefix);
}

absl::StatusOr<BlobLinks> ObjectBlobStore::ReadLinks(const std::string& name) {
  if (!signing_.has_value()) return LinksUnavailable();
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<Piece> pieces, PiecesOf(*client_, name));
  BlobLinks links{.valid = signing_->valid};
  for (const Piece& piece : pieces) {
    if (piece.size_bytes == 0) continue;
    BlobLink& link = links.links.emplace_back();
    link.offset = piece.offset;
    link.size_bytes = piece.size_bytes;
    BALLAST_ASSIGN_OR_RETURN(
        link.url,
        signing_->client->Link(piece.path, ObjectStoreClient::LinkFor::kGet, signing_->valid));
  }
  return links;
}

absl::StatusOr<BlobWriteLink> ObjectBlobStore::WriteLink(const std::string& name) {
  if (!signing_.has_value()) return LinksUnavailable();
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  BlobWriteLink link{.headers = signing_->write_headers, .valid = signing_->valid};
  BALLAST_ASSIGN_OR_RETURN(
      link.url, signing_->client->Link(name, ObjectStoreClient::LinkFor::kPut, signing_->valid));
  return link;
}

absl::StatusOr<std::map<std::string, int64_t>> ObjectBlobStore::WrittenByLinks(
    const std::string& prefix) {
  if (!signing_.has_value()) return LinksUnavailable();
  BALLAST_RETURN_IF_ERROR(CheckBlobName(prefix));
  BALLAST_ASSIGN_OR_RETURN(const auto listed, client_->List(prefix));
  std::map<std::string, int64_t> sizes;
  for (const ObjectStoreClient::Listed& object : listed) sizes[object.name] = object.size_bytes;
  return sizes;
}

absl::Status ObjectBlobStore::CopyWritten(const std::string& name,
                                          const std::vector<std::string>& parts,
                                          const std::function<absl::Status()>& may_go_on) {
  if (!signing_.has_value()) return LinksUnavailable();
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  for (size_t i = 0; i < parts.size(); ++i) {
    BALLAST_RETURN_IF_ERROR(CheckBlobName(parts[i]));
    BALLAST_RETURN_IF_ERROR(may_go_on());
    BALLAST_RETURN_IF_ERROR(client_->Copy(parts[i], ObjectAppender::PathOf(name, i)));
  }
  return absl::OkStatus();
}

}  // namespace ballast::server
