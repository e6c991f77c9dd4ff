// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_BLOB_LOCAL_BLOB_STORE_H_
#define BALLAST_SERVER_BLOB_LOCAL_BLOB_STORE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// Blobs as files below a folder, readable by its user alone. A blob is written under another name,
// synced, renamed into place, and its folder synced; what a crash leaves under other names is
// deleted by OpenRoot. There are no links.
class LocalBlobStore : public BlobStore {
 public:
  // Makes the folder when missing.
  static absl::StatusOr<std::unique_ptr<LocalBlobStore>> OpenRoot(const std::string& root);

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
  explicit LocalBlobStore(std::string root) : root_(std::move(root)) {}

  // Path of a blob whose name is valid. With `make_folder` its folder exists durably afterwards.
  absl::StatusOr<std::string> PathOf(const std::string& name, bool make_folder) const;

  const std::string root_;  // holds `blobs` and `writing`
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_BLOB_LOCAL_BLOB_STORE_H_
