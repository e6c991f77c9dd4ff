// SPDX-License-Identifier: Apache-2.0
// The states of vectors and what moves them: docs/vector_states.md, which the test of this file
// reads. Pure functions.
#ifndef BALLAST_SERVER_CORE_VECTOR_STATE_H_
#define BALLAST_SERVER_CORE_VECTOR_STATE_H_

#include <optional>
#include <string_view>

#include "ballast/admin/v1/admin_service.pb.h"
#include "server/core/job_state.h"

namespace ballast::server {

// What can happen to a vector. The names are the columns of docs/vector_states.md.
enum class VectorEvent {
  kTaken,              // a worker got a lease to train it
  kResult,             // the worker reported a sealed vector
  kUserError,          // it reported that these rows or options cannot be trained
  kPlatformError,      // it reported any other error, and attempts are left
  kPlatformErrorLast,  // the same, and no attempt is left
  kHandedBack,         // it gave the lease back (drain)
  kLeaseExpired,       // it was silent for too long, and attempts are left
  kLeaseExpiredLast,   // the same, and no attempt is left
  kCertified,          // the suite's result met every criterion
  kNotCertified,       // it did not
  kActivated,          // an operator let it serve without a certificate
  kRetired,            // an operator took it out of service
};
inline constexpr VectorEvent kAllVectorEvents[] = {VectorEvent::kTaken,
                                                   VectorEvent::kResult,
                                                   VectorEvent::kUserError,
                                                   VectorEvent::kPlatformError,
                                                   VectorEvent::kPlatformErrorLast,
                                                   VectorEvent::kHandedBack,
                                                   VectorEvent::kLeaseExpired,
                                                   VectorEvent::kLeaseExpiredLast,
                                                   VectorEvent::kCertified,
                                                   VectorEvent::kNotCertified,
                                                   VectorEvent::kActivated,
                                                   VectorEvent::kRetired};

// Column of docs/vector_states.md.
std::string_view Name(VectorEvent event);

// What an event of a lease is to a vector; nothing for those that only jobs have.
std::optional<VectorEvent> ToVectorEvent(WorkEvent event);

// State of a vector after `event`, which may be the same one, or nothing where the event is
// refused.
std::optional<admin::v1::Vector::State> NextState(admin::v1::Vector::State state,
                                                  VectorEvent event);

// RETIRED or REJECTED: never left again, and never serving.
bool IsFinal(admin::v1::Vector::State state);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_VECTOR_STATE_H_
