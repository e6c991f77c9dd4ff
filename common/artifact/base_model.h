// SPDX-License-Identifier: Apache-2.0
// A base model: the Hugging Face folder that jobs start from. Which files belong to it, whether its
// weights are those that its config.json promises, and its digest. No weights are read, only
// headers.
#ifndef BALLAST_COMMON_ARTIFACT_BASE_MODEL_H_
#define BALLAST_COMMON_ARTIFACT_BASE_MODEL_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/artifact/model_config.h"

namespace ballast::artifact {

// Name and shape of every tensor of such a model. Without tied embeddings lm_head.weight is among
// them.
std::map<std::string, std::vector<int64_t>> ExpectedTensors(const ModelConfig& config);

// Names of the weight files of a folder: those that model.safetensors.index.json names, or
// model.safetensors. INVALID_ARGUMENT (MODEL_CONFIG_INVALID) for an index that is none or names
// something else than a weight file of the folder.
absl::StatusOr<std::set<std::string>> WeightFiles(const std::string& folder);

// What is known of a model whose folder was checked.
struct BaseModelFacts {
  ModelConfig config;
  int64_t parameter_count = 0;
};

// Checks config.json and the headers of all weights in `folder`: every expected tensor is there
// once, with its shape and a floating type of at most 32 bits, and no other. INVALID_ARGUMENT:
//   MODEL_CONFIG_INVALID, UNSUPPORTED_ARCHITECTURE, SAFETENSORS_*
//   TENSOR_MISMATCH  a tensor is missing, has another shape or type, is there twice or has no place
//   FILE_MISSING     config.json, a weight file, or a file that the index names is not there
absl::StatusOr<BaseModelFacts> CheckBaseModelFolder(const std::string& folder);

// Whether a file of this name belongs to a base model's folder. INVALID_ARGUMENT (FILE_NOT_ALLOWED)
// lists those that do.
absl::Status CheckBaseModelFileName(std::string_view file_name);

// Largest size of such a file in bytes: weights 2^40, texts 64 MiB.
int64_t MaxBaseModelFileBytes(std::string_view file_name);

// Digest of a model from the digests of its files by name: SHA-256 over the lines "<name>
// <digest>\n".
std::string BaseModelDigest(const std::map<std::string, std::string>& file_digests);

}  // namespace ballast::artifact

#endif  // BALLAST_COMMON_ARTIFACT_BASE_MODEL_H_
