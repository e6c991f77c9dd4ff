// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DIRECT_UPLOAD_H_
#define BALLAST_SERVER_API_DIRECT_UPLOAD_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/dataset_service.pb.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/blob_store.h"
#include "server/core/dataset_catalog.h"

namespace ballast::server {

class UploadsInProgress;

// Uploads of data sets by links: the calls of ballast.v1.DatasetService, whose failures they have.
// Thread safety: thread-safe. Calls read and write blobs.
class DirectUploads {
 public:
  // All must outlive the object.
  struct Parts {
    DatasetCatalog& datasets;
    BlobStore& blobs;
    UnnamedBlobs& unnamed;
    UploadsInProgress& uploads;
    int64_t max_bytes = 0;   // of a data set
    int64_t part_bytes = 0;  // of a part but the last, where there are not too many
  };
  explicit DirectUploads(const Parts& parts) : parts_(parts) {}

  absl::StatusOr<v1::DirectUpload> Start(absl::Time now, const std::string& tenant,
                                         const v1::StartDirectUploadRequest& request);
  absl::StatusOr<v1::Dataset> Finish(const std::string& tenant,
                                     const v1::FinishDirectUploadRequest& request);
  // The server stops: calls of Finish end soon, UNAVAILABLE (SERVER_STOPPING).
  void Drain() { draining_ = true; }

 private:
  absl::Status CheckSize(int64_t size_bytes) const;
  // OK unless the server stops: UNAVAILABLE (SERVER_STOPPING).
  absl::Status CheckRuns() const;
  // OK when every part is there with its size. Their names, in order.
  absl::StatusOr<std::vector<std::string>> PartsThere(const DirectUploadRecord& upload);
  // The digest of a blob that has `size_bytes` bytes.
  absl::StatusOr<std::string> DigestOfBlob(const std::string& blob, int64_t size_bytes);
  absl::StatusOr<v1::Dataset> CopyAndCheck(const std::string& tenant, const TenantName& name,
                                           const std::string& digest);

  const Parts parts_;
  std::atomic<bool> draining_ = false;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DIRECT_UPLOAD_H_
