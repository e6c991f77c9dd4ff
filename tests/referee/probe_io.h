// SPDX-License-Identifier: Apache-2.0
// Turns the JSON requests and safetensors files of engine_probe into the engine's structs and back.
#ifndef BALLAST_TESTS_REFEREE_PROBE_IO_H_
#define BALLAST_TESTS_REFEREE_PROBE_IO_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/secret.h"
#include "worker/trainer.h"

namespace ballast::referee {

using nlohmann::json;

// The readers below throw nlohmann::json::exception where a field has the wrong type; engine_probe
// turns that into one answer PROBE_REQUEST_INVALID. Fields that are left out keep the structs'
// defaults.
worker::EngineOptions EngineOptionsFrom(const json& request);
worker::LoraConfig LoraConfigFrom(const json& request);  // "rank", "alpha"
worker::TrainConfig TrainConfigFrom(const json& config);
worker::VectorConfig VectorConfigFrom(const json& config);

// "rows": [{"tokens": [..], "supervised": [0/1, ..], "weight": 1.0}, ..] under `key`, or the same
// array in the file that `key` + "_file" names; empty when neither is there.
absl::StatusOr<std::vector<worker::TokenRow>> RowsFrom(const json& request, const std::string& key);

// The float32 safetensors file at `path`, sorted by name; empty for an empty path.
absl::StatusOr<worker::Adapter> ReadAdapter(const std::string& path);

// The file at `path` as it is (a vector in clear, made for a test).
absl::StatusOr<worker::SecretBuffer> ReadSecret(const std::string& path);

// Writes `tensors` as float32 safetensors.
absl::Status WriteTensors(const std::string& path, const worker::Adapter& tensors);

// Writes adapter_config.json and adapter_model.safetensors as a delivered delta has them.
absl::Status WriteAdapterFolder(const std::string& folder, const std::string& model_folder,
                                const worker::LoraConfig& lora, const worker::Adapter& adapter);

// {"code": "INVALID_ARGUMENT", "reason": "TENSOR_MISMATCH", "message": ".."}
json ErrorJson(const absl::Status& status);

// Seconds of a clock that never goes back, seconds of CPU this process has used in all its threads,
// and its present and highest resident memory.
double WallSeconds();
double CpuSeconds();
struct Memory {
  int64_t resident_bytes = 0;
  int64_t peak_bytes = 0;
};
absl::StatusOr<Memory> ReadMemory();

}  // namespace ballast::referee

#endif  // BALLAST_TESTS_REFEREE_PROBE_IO_H_
