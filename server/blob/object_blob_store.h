// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_
#define BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/blob/object_store_client.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// Blobs in a bucket of S3, Google Cloud Storage or Azure Blob Storage, or of a server that speaks
// S3. A written blob is the object of its name. One that is appended to is a row of objects,
// NAME/@00000000, NAME/@00000001, .., each put only where there is none: of two servers that
// append, one is told.
class ObjectBlobStore : public BlobStore {
 public:
  struct LinkOptions {
    absl::Duration valid = absl::Minutes(5);  // whole seconds
    std::string endpoint;  // where links lead to; empty: to the endpoint of `options`
  };

  // OK when the store of `url` can have such links; asks nobody. INVALID_ARGUMENT
  // (ENDPOINT_INVALID), which names the field of the server's configuration.
  static absl::Status CheckLinks(const std::string& url, const LinkOptions& links);

  // `url`: s3://BUCKET/PREFIX and so on, see ballast_object_store.h. Writes and deletes an object,
  // so that what cannot work is known at the start: FAILED_PRECONDITION (OBJECT_STORE_UNFIT) where
  // the store does not have PutNew, UNAVAILABLE (OBJECT_STORE) where it cannot be reached or
  // refuses. Without `links` there are none; their endpoint goes before any of `options`.
  static absl::StatusOr<std::unique_ptr<ObjectBlobStore>> Open(
      const std::string& url, const std::map<std::string, std::string>& options,
      const std::optional<LinkOptions>& links = std::nullopt);

  absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const std::string& name) override;
  absl::StatusOr<std::unique_ptr<BlobAppender>> OpenAppend(const std::string& name) override;
  absl::StatusOr<std::unique_ptr<BlobReader>> Open(const std::string& name) override;
  absl::StatusOr<int64_t> Size(const std::string& name) override;
  absl::Status Adopt(const std::string& name, const std::string& local_path) override;
  absl::Status DeletePrefix(const std::string& prefix) override;

  absl::StatusOr<BlobLinks> ReadLinks(const std::string& name) override;
  absl::StatusOr<BlobWriteLink> WriteLink(const std::string& name) override;
  absl::StatusOr<std::map<std::string, int64_t>> WrittenByLinks(const std::string& prefix) override;
  absl::Status CopyWritten(const std::string& name, const std::vector<std::string>& parts,
                           const std::function<absl::Status()>& may_go_on) override;

 private:
  // What signs links.
  struct Signing {
    std::unique_ptr<ObjectStoreClient> client;
    absl::Duration valid;
    std::map<std::string, std::string> write_headers;
  };

  ObjectBlobStore(std::unique_ptr<ObjectStoreClient> client, std::optional<Signing> signing)
      : client_(std::move(client)), signing_(std::move(signing)) {}

  const std::unique_ptr<ObjectStoreClient> client_;
  const std::optional<Signing> signing_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_BLOB_OBJECT_BLOB_STORE_H_
