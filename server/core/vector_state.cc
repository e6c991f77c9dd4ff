// SPDX-License-Identifier: Apache-2.0
#include "server/core/vector_state.h"

namespace ballast::server {

using admin::v1::Vector;

std::string_view Name(VectorEvent event) {
  switch (event) {
    case VectorEvent::kTaken:
      return Name(WorkEvent::kTaken);
    case VectorEvent::kResult:
      return Name(WorkEvent::kResult);
    case VectorEvent::kUserError:
      return Name(WorkEvent::kUserError);
    case VectorEvent::kPlatformError:
      return Name(WorkEvent::kPlatformError);
    case VectorEvent::kPlatformErrorLast:
      return Name(WorkEvent::kPlatformErrorLast);
    case VectorEvent::kHandedBack:
      return Name(WorkEvent::kHandedBack);
    case VectorEvent::kLeaseExpired:
      return Name(WorkEvent::kLeaseExpired);
    case VectorEvent::kLeaseExpiredLast:
      return Name(WorkEvent::kLeaseExpiredLast);
    case VectorEvent::kCertified:
      return "certified";
    case VectorEvent::kNotCertified:
      return "not certified";
    case VectorEvent::kActivated:
      return "activated";
    case VectorEvent::kRetired:
      return "retired";
  }
  return "";
}

std::optional<VectorEvent> ToVectorEvent(WorkEvent event) {
  switch (event) {
    case WorkEvent::kTaken:
      return VectorEvent::kTaken;
    case WorkEvent::kResult:
      return VectorEvent::kResult;
    case WorkEvent::kUserError:
      return VectorEvent::kUserError;
    case WorkEvent::kPlatformError:
      return VectorEvent::kPlatformError;
    case WorkEvent::kPlatformErrorLast:
      return VectorEvent::kPlatformErrorLast;
    case WorkEvent::kHandedBack:
      return VectorEvent::kHandedBack;
    case WorkEvent::kLeaseExpired:
      return VectorEvent::kLeaseExpired;
    case WorkEvent::kLeaseExpiredLast:
      return VectorEvent::kLeaseExpiredLast;
    default:
      return std::nullopt;
  }
}

std::optional<Vector::State> NextState(Vector::State state, VectorEvent event) {
  switch (state) {
    case Vector::DRAFT:
      if (event == VectorEvent::kTaken) return Vector::TRAINING;
      return std::nullopt;
    case Vector::TRAINING:
      switch (event) {
        case VectorEvent::kResult:
          return Vector::CERTIFYING;
        case VectorEvent::kUserError:
        case VectorEvent::kPlatformErrorLast:
        case VectorEvent::kLeaseExpiredLast:
          return Vector::REJECTED;
        case VectorEvent::kPlatformError:
        case VectorEvent::kHandedBack:
        case VectorEvent::kLeaseExpired:
          return Vector::DRAFT;
        default:
          return std::nullopt;
      }
    case Vector::CERTIFYING:
    case Vector::ACTIVE:
      switch (event) {
        case VectorEvent::kCertified:
        case VectorEvent::kActivated:
          return Vector::ACTIVE;
        case VectorEvent::kNotCertified:
          return Vector::REJECTED;
        case VectorEvent::kRetired:
          if (state == Vector::ACTIVE) return Vector::RETIRED;
          return std::nullopt;
        default:
          return std::nullopt;
      }
    default:
      return std::nullopt;
  }
}

bool IsFinal(Vector::State state) { return state == Vector::RETIRED || state == Vector::REJECTED; }

}  // namespace ballast::server
