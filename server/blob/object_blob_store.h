// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_
#define BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/blob/object_store_client.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// Blobs in a bucket of S3, Google Cloud Storage or Azure Blob Storage, or of a server that speaks
// S3. A written blob is the object of its name. One that is appended to is a row of objects,
// NAME/@00000000, NAME/@00000001, .., each put only where there is none: of two servers that
// append, one is told.
class ObjectBlobStore : public BlobStore {
 public:
  // `url`: s3://BUCKET/PREFIX and so on, see ballast_object_store.h. Writes and deletes an object,
  // so that what cannot work is known at the start: FAILED_PRECONDITION (OBJECT_STORE_UNFIT) where
  // the store does not have PutNew, UNAVAILABLE (OBJECT_STORE) where it cannot be reached or
  // refuses.
  static absl::StatusOr<std::unique_ptr<ObjectBlobStore>> Open(
      const std::string& url, const std::map<std::string, std::string>& options);

  absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const std::string& name) override;
  absl::StatusOr<std::unique_ptr<BlobAppender>> OpenAppend(const std::string& name) override;
  absl::StatusOr<std::unique_ptr<BlobReader>> Open(const std::string& name) override;
  absl::StatusOr<int64_t> Size(const std::string& name) override;
  absl::Status Adopt(const std::string& name, const std::string& local_path) override;
  absl::Status DeletePrefix(const std::string& prefix) override;

 private:
  explicit ObjectBlobStore(std::unique_ptr<ObjectStoreClient> client)
      : client_(std::move(client)) {}

  const std::unique_ptr<ObjectStoreClient> client_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_
