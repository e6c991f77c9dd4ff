// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_CERTIFICATE_CHECK_H_
#define BALLAST_WORKER_AGENT_CERTIFICATE_CHECK_H_

#include "absl/status/status.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/base/signature.h"
#include "common/envelope/envelope.h"

namespace ballast::worker::agent {

// Whether a job may be trained under the certificate that came with it. A certificate must be about
// the vector, ciphertext and base of the work, and have passed. With `pinned`, one is required,
// must be signed with that key, and the job's hyper-parameters must lie inside its envelope, so
// that even a server that was taken over gets nothing trained outside; without, a job without
// certificate is trained, and its manifest says so.
//
// The ciphertext is known by its digest: the caller compares the bytes that it reads with it.
// UNAVAILABLE (PROTECTION_UNAVAILABLE); the log has the reason.
absl::Status CheckCertificate(const ballast::worker::v1::Work& work, const PublicKey* pinned);

// The same once the job's data set is read: with `pinned`, the job with these rows must lie inside
// the envelope, and must not be smaller than any job may be (envelope::CheckMinima).
absl::Status CheckRowsCertified(const ballast::worker::v1::Work& work, const PublicKey* pinned,
                                const envelope::RowStatistics& rows);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_CERTIFICATE_CHECK_H_
