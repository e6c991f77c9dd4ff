// SPDX-License-Identifier: Apache-2.0
// Gates, what they found, and how tenants stand, for people.
#ifndef BALLAST_CLIENT_CLI_GATE_VIEW_H_
#define BALLAST_CLIENT_CLI_GATE_VIEW_H_

#include <string>

#include "ballast/admin/v1/gate.pb.h"
#include "ballast/v1/fine_tuning_job.pb.h"

namespace ballast::cli {

// Limits and numbers of prompts.
std::string DescribeGate(const admin::v1::Gate& gate);

// The verdict, the decision, and a table of scores by scale and group of prompts.
std::string DescribeJobGate(const admin::v1::JobGate& gate);

std::string DescribeStanding(const admin::v1::TenantStanding& standing);

// "a, b" or "all categories together".
std::string DescribeCategories(const google::protobuf::RepeatedPtrField<std::string>& categories);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_GATE_VIEW_H_
