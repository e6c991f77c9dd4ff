// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CLI_DATASET_REPORT_H_
#define BALLAST_CLIENT_CLI_DATASET_REPORT_H_

#include <cstddef>
#include <string>

#include "ballast/v1/dataset_service.pb.h"
#include "common/dataset/checker.h"

namespace ballast::cli {

// A report for people: totals, counts by reason, and the first `max_issues` issues with their
// lines.
std::string DescribeReport(const v1::ValidationReport& report, size_t max_issues);

// The checker's report as the API says it.
v1::ValidationReport ToProto(const dataset::Report& report);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_DATASET_REPORT_H_
