// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_DELTA_FILES_H_
#define BALLAST_WORKER_AGENT_DELTA_FILES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "worker/agent/base_loader.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

struct DeltaFile {
  std::string path;  // "adapter/adapter_model.safetensors"
  std::string bytes;
};

// The files of a delta, manifest.json last: adapter/adapter_config.json,
// adapter/adapter_model.safetensors, README.md, manifest.json. `screening`: what was found, empty
// without a screen. `gate`: what the manifest says of the gate, see artifact::Manifest.
//
// FAILED_PRECONDITION (ARTIFACT_TENSOR_NOT_ALLOWED, ARTIFACT_TENSOR_NOT_FINITE): the engine
// returned something else than the customer's tensors (S3); no file is made.
absl::StatusOr<std::vector<DeltaFile>> BuildDeltaFiles(
    const ballast::worker::v1::Work& work, const LoadedBase& base, const TrainResult& result,
    const ballast::v1::ScreeningReport& screening, const std::string& gate,
    const std::string& code_version, absl::Time now);

// Digest of the hyper-parameters as canonical JSON.
std::string ConfigDigest(const ballast::v1::Hyperparameters& hyperparameters);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_DELTA_FILES_H_
