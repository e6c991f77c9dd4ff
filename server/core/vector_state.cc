// SPDX-License-Identifier: Apache-2.0
#include "server/core/vector_state.h"

namespace ballast::server {

using admin::v1::Vector;

std::string_view Name(VectorDecision decision) {
  switch (decision) {
    case VectorDecision::kCertified:
      return "certified";
    case VectorDecision::kNotCertified:
      return "not certified";
    case VectorDecision::kActivated:
      return "activated";
    case VectorDecision::kRetired:
      return "retired";
  }
  return "";
}

std::optional<Vector::State> NextState(Vector::State state, WorkEvent event) {
  if (state == Vector::DRAFT && event == WorkEvent::kTaken) return Vector::TRAINING;
  if (state != Vector::TRAINING) return std::nullopt;
  switch (event) {
    case WorkEvent::kResult:
      return Vector::CERTIFYING;
    case WorkEvent::kUserError:
    case WorkEvent::kPlatformErrorLast:
    case WorkEvent::kLeaseExpiredLast:
      return Vector::REJECTED;
    case WorkEvent::kPlatformError:
    case WorkEvent::kHandedBack:
    case WorkEvent::kLeaseExpired:
      return Vector::DRAFT;
    case WorkEvent::kTaken:
    case WorkEvent::kTakenToScreen:
    case WorkEvent::kScreened:
    case WorkEvent::kStopped:
    case WorkEvent::kPaused:
    case WorkEvent::kCancel:
    case WorkEvent::kPause:
    case WorkEvent::kResume:
    case WorkEvent::kWithheld:
    case WorkEvent::kReleased:
    case WorkEvent::kRefused:
    case WorkEvent::kExpired:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<Vector::State> NextState(Vector::State state, VectorDecision decision) {
  if (state != Vector::CERTIFYING && state != Vector::ACTIVE) return std::nullopt;
  switch (decision) {
    case VectorDecision::kCertified:
    case VectorDecision::kActivated:
      return Vector::ACTIVE;
    case VectorDecision::kNotCertified:
      return Vector::REJECTED;
    case VectorDecision::kRetired:
      if (state == Vector::ACTIVE) return Vector::RETIRED;
      return std::nullopt;
  }
  return std::nullopt;
}

bool IsFinal(Vector::State state) { return state == Vector::RETIRED || state == Vector::REJECTED; }

}  // namespace ballast::server
