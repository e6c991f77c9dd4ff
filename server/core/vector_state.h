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

// What an operator decides of a vector; what workers do to it is a WorkEvent. The names of both are
// the columns of docs/vector_states.md.
enum class VectorDecision {
  kCertified,     // the suite's result met every criterion
  kNotCertified,  // it did not
  kActivated,     // an operator let it serve without a certificate
  kRetired,       // an operator took it out of service
};
inline constexpr VectorDecision kAllVectorDecisions[] = {
    VectorDecision::kCertified, VectorDecision::kNotCertified, VectorDecision::kActivated,
    VectorDecision::kRetired};

// Column of docs/vector_states.md.
std::string_view Name(VectorDecision decision);

// State of a vector after an event of its lease or a decision, which may be the same one, or
// nothing where it is refused.
std::optional<admin::v1::Vector::State> NextState(admin::v1::Vector::State state, WorkEvent event);
std::optional<admin::v1::Vector::State> NextState(admin::v1::Vector::State state,
                                                  VectorDecision decision);

// RETIRED or REJECTED: never left again, and never serving.
bool IsFinal(admin::v1::Vector::State state);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_VECTOR_STATE_H_
