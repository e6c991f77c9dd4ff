// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_BASE_CACHE_H_
#define BALLAST_WORKER_AGENT_BASE_CACHE_H_

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"

namespace ballast::worker::agent {

// Copies of base models on the worker's disk, by digest: `{cache_dir}/base-{hex}/{file}`. A copy
// appears whole or not at all, so that several workers may share the folder; every byte is checked
// against its digest before a copy is used for the first time in this process. Thread safety: not
// thread-safe; several caches on one folder, in any processes, are safe.
class BaseCache {
 public:
  // Reads a blob in pieces, for example through WorkerClient::ReadBlob.
  using Fetch = std::function<absl::Status(
      const std::string& blob, const std::function<absl::Status(std::string_view)>& sink)>;

  explicit BaseCache(std::string cache_dir) : cache_dir_(std::move(cache_dir)) {}

  // Makes the folder, and removes what crashed downloads left behind.
  absl::Status Open();

  // The folder of the base model, fetched where there is no sound copy. A copy that was damaged is
  // fetched again. DATA_LOSS (BASE_MODEL_CORRUPT) when the fetched bytes are not what `base`
  // promises; INVALID_ARGUMENT (BASE_MODEL_INVALID) for file names that leave the folder or a
  // digest that is not that of the files; DISK_FULL and other errors of files; the error of
  // `fetch`.
  absl::StatusOr<std::string> Get(const ballast::worker::v1::BaseModelFiles& base,
                                  const Fetch& fetch);

 private:
  absl::Status Download(const ballast::worker::v1::BaseModelFiles& base, const std::string& folder,
                        const Fetch& fetch);

  const std::string cache_dir_;
  std::set<std::string> verified_;  // digests checked by this process
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_BASE_CACHE_H_
