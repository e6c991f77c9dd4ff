// SPDX-License-Identifier: Apache-2.0
// The one conversion between absl::Status and grpc::Status. Payloads travel as
// google.rpc.Status.details in the standard "grpc-status-details-bin" trailer, so clients in every
// language can read the reason.
#ifndef BALLAST_COMMON_RPC_GRPC_STATUS_H_
#define BALLAST_COMMON_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ballast {

grpc::Status ToGrpcStatus(const absl::Status& status);

// Details that do not parse are dropped, and so are payloads that are no type.googleapis.com/
// message: a peer must not set what programs attach to their own statuses. Code and message stay.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace ballast

#endif  // BALLAST_COMMON_RPC_GRPC_STATUS_H_
