// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_WORKER_ID_H_
#define BALLAST_WORKER_AGENT_WORKER_ID_H_

#include <string>
#include <string_view>

namespace ballast::worker::agent {

// An id for a worker on `host_name` that was not given one, of the characters and the length that
// an id may have: the end of the name, which is what tells containers apart, and random digits.
// Host name and process id alone are shared by containers, and two workers of one id take each
// other's leases away.
std::string NewWorkerId(std::string_view host_name);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_WORKER_ID_H_
