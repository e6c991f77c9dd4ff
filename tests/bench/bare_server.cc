// SPDX-License-Identifier: Apache-2.0
// What uploads and calls are measured beside (uploads.py, control_plane.py): a gRPC server that
// takes the same calls, writes what comes to a file, makes it durable, and does nothing else.
//
//   bare_server FOLDER     prints its address and serves until it is killed
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "ballast/v1/dataset_service.grpc.pb.h"

namespace {

class BareDatasets : public ballast::v1::DatasetService::Service {
 public:
  explicit BareDatasets(std::string folder) : folder_(std::move(folder)) {}

  grpc::Status CreateDataset(grpc::ServerContext*, const ballast::v1::CreateDatasetRequest*,
                             ballast::v1::Dataset* response) override {
    response->set_name(absl::StrCat(++last_));
    return grpc::Status::OK;
  }

  grpc::Status WriteDataset(grpc::ServerContext*,
                            grpc::ServerReader<ballast::v1::WriteDatasetRequest>* reader,
                            ballast::v1::WriteDatasetResponse* response) override {
    ballast::v1::WriteDatasetRequest request;
    int file = -1;
    int64_t written = 0;
    while (reader->Read(&request)) {
      if (file < 0) {
        file = open(absl::StrCat(folder_, "/", request.name()).c_str(), O_WRONLY | O_CREAT, 0600);
      }
      const std::string& data = request.data();
      if (write(file, data.data(), data.size()) != static_cast<ssize_t>(data.size())) break;
      written += static_cast<int64_t>(data.size());
    }
    const bool durable = file >= 0 && fsync(file) == 0;
    close(file);
    response->set_committed_bytes(written);
    return durable ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNKNOWN, "not written");
  }

 private:
  const std::string folder_;
  std::atomic<int64_t> last_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: bare_server FOLDER\n");
    return 2;
  }
  BareDatasets service(argv[1]);
  int port = 0;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();
  return 0;
}
