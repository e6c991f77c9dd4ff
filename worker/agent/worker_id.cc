// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/worker_id.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"

namespace ballast::worker::agent {
namespace {

constexpr size_t kMaxHostBytes = 48;

}  // namespace

std::string NewWorkerId(std::string_view host_name) {
  if (host_name.size() > kMaxHostBytes) {
    host_name.remove_prefix(host_name.size() - kMaxHostBytes);
  }
  std::string id;
  for (const char c : host_name) {
    id += absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '-';
  }
  return absl::StrCat(id.empty() ? "worker" : id, "-", RandomHex(32));
}

}  // namespace ballast::worker::agent
