// SPDX-License-Identifier: Apache-2.0
// Vectors, certificates and envelopes for people.
#ifndef BALLAST_CLIENT_CLI_CERTIFICATE_VIEW_H_
#define BALLAST_CLIENT_CLI_CERTIFICATE_VIEW_H_

#include <string>

#include "ballast/admin/v1/admin_service.pb.h"
#include "ballast/admin/v1/certificate.pb.h"
#include "ballast/v1/envelope.pb.h"
#include "ballast/v1/fine_tuning_job.pb.h"

namespace ballast::cli {

// Every field that says something, with the report of the training.
std::string DescribeVector(const admin::v1::Vector& vector);

// "yes", "no: <why it serves without>", or "-" while it does not serve.
std::string DescribeCertified(const admin::v1::Vector& vector);

// Losses with and without the vector.
std::string DescribeVectorReport(const admin::v1::VectorReport& report);

// What it is about, its criteria, arms, residual risks and envelope.
std::string DescribeCertificate(const admin::v1::Certificate& certificate);

// The limits, one a line; beside each the job's value where `job` is given (complete
// hyper-parameters and an estimate).
std::string DescribeEnvelope(const v1::Envelope& envelope, const v1::FineTuningJob* job);

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_CERTIFICATE_VIEW_H_
