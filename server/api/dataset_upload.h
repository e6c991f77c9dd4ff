// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DATASET_UPLOAD_H_
#define BALLAST_SERVER_API_DATASET_UPLOAD_H_

#include <memory>
#include <string>

#include "ballast/v1/dataset_service.pb.h"
#include "server/api/call.h"
#include "server/api/dataset_service.h"
#include "server/core/blob_store.h"
#include "server/core/dataset_catalog.h"
#include "server/core/resource_name.h"

namespace ballast::server {

// One call of WriteDataset. What has been written stays when the call breaks off, and is synced.
class DatasetUpload : public ClientStream<v1::WriteDatasetRequest> {
 public:
  DatasetUpload(const ApiContext& api, grpc::CallbackServerContext* context, Principal who,
                DatasetCatalog& datasets, BlobStore& blobs, UploadsInProgress& uploads,
                int64_t max_bytes, v1::WriteDatasetResponse* response)
      : ClientStream(api, "DatasetService/WriteDataset", context),
        who_(std::move(who)),
        datasets_(datasets),
        blobs_(blobs),
        uploads_(uploads),
        max_bytes_(max_bytes),
        response_(response) {}
  ~DatasetUpload() override { ReleaseUpload(); }

 private:
  absl::StatusOr<bool> OnMessage(v1::WriteDatasetRequest& request) override;
  absl::Status OnEnd() override;
  void Release() override { ReleaseUpload(); }

  // Syncs what was written and lets others write. Idempotent.
  void ReleaseUpload();
  absl::Status Open(const v1::WriteDatasetRequest& request);
  absl::Status Write(const v1::WriteDatasetRequest& request);
  absl::Status Sync();
  absl::Status FinishUpload(const std::string& digest);

  const Principal who_;
  DatasetCatalog& datasets_;
  BlobStore& blobs_;
  UploadsInProgress& uploads_;
  const int64_t max_bytes_;
  v1::WriteDatasetResponse* const response_;

  std::string name_;    // set once this call has the data set for itself
  bool begun_ = false;  // and this server
  TenantName parsed_;
  std::string blob_;
  std::unique_ptr<BlobAppender> appender_;
  int64_t unsynced_bytes_ = 0;
  bool sync_failed_ = false;
  int64_t checked_until_ = -1;  // bytes up to which the quota has not to be asked again
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DATASET_UPLOAD_H_
