// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_VECTOR_UPLOAD_H_
#define BALLAST_SERVER_API_VECTOR_UPLOAD_H_

#include <memory>
#include <optional>
#include <string>

#include "ballast/admin/v1/admin_service.pb.h"
#include "server/api/admin_service.h"
#include "server/api/call.h"
#include "server/core/row_checks.h"

namespace ballast::server {

// One call of TrainVector: rows are checked while they arrive, and queued once all were accepted;
// topics in their place are checked at the end.
class VectorUpload : public ClientStream<admin::v1::TrainVectorRequest> {
 public:
  VectorUpload(const ApiContext& api, grpc::CallbackServerContext* context,
               const AdminService::Parts& parts, admin::v1::Vector* response);
  ~VectorUpload() override { Forget(); }

 private:
  // The rows of one kind.
  struct Rows {
    const char* name;
    int64_t min_rows;
    std::string blob;
    std::unique_ptr<BlobWriter> writer;
    std::unique_ptr<RowCheck> check;
  };

  absl::StatusOr<bool> OnMessage(admin::v1::TrainVectorRequest& request) override;
  absl::Status OnEnd() override;
  void Release() override { Forget(); }

  // Deletes the rows unless they were queued, and lets go of their blobs. Idempotent.
  void Forget();

  absl::Status Start(const admin::v1::VectorOptions& options);
  absl::Status Append(Rows& rows, const std::string& data);
  absl::Status AppendTopics(const std::string& data);
  // Every row was accepted, and there are enough.
  static absl::Status CheckRows(Rows& rows);
  // Makes what was sent durable: rows of both kinds, or topics.
  absl::StatusOr<VectorCatalog::Data> Commit();

  const AdminService::Parts& parts_;
  admin::v1::Vector* const response_;
  std::optional<admin::v1::VectorOptions> options_;
  std::string id_;
  bool queued_ = false;
  UnnamedBlobs::Hold hold_;  // from the first blob to the record
  Rows prohibited_{"prohibited", 100, "", nullptr, nullptr};
  Rows benign_{"benign", 20, "", nullptr, nullptr};
  std::string topics_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_VECTOR_UPLOAD_H_
