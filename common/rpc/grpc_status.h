// SPDX-License-Identifier: Apache-2.0
// The one conversion between absl::Status and what travels: grpc::Status, and the google.rpc.Status
// in it. Payloads travel as google.rpc.Status.details in the standard "grpc-status-details-bin"
// trailer, so clients in every language can read the reason.
#ifndef BALLAST_COMMON_RPC_GRPC_STATUS_H_
#define BALLAST_COMMON_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace ballast {

google::rpc::Status ToRpcStatus(const absl::Status& status);

// Payloads that are no type.googleapis.com/ message are dropped: a peer must not set what programs
// attach to their own statuses. Code and message stay.
absl::Status FromRpcStatus(const google::rpc::Status& status);

grpc::Status ToGrpcStatus(const absl::Status& status);

// The same; details that do not parse are dropped, too.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace ballast

#endif  // BALLAST_COMMON_RPC_GRPC_STATUS_H_
