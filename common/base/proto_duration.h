// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_BASE_PROTO_DURATION_H_
#define BALLAST_COMMON_BASE_PROTO_DURATION_H_

#include <google/protobuf/duration.pb.h>

#include <cstdint>

#include "absl/time/time.h"

namespace ballast {

inline absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

// Finite durations; whole milliseconds, cut.
inline void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const int64_t millis = absl::ToInt64Milliseconds(duration);
  out->set_seconds(millis / 1000);
  out->set_nanos(static_cast<int32_t>(millis % 1000) * 1'000'000);
}

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_PROTO_DURATION_H_
