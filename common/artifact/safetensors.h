// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8-byte little-endian header length, JSON header, tensor bytes. Reading
// trusts nothing: header length, offsets (in range, no overlap, no holes), dtype and shape are
// checked first.
#ifndef BALLAST_COMMON_ARTIFACT_SAFETENSORS_H_
#define BALLAST_COMMON_ARTIFACT_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ballast::artifact {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

// Bytes per element.
int64_t SizeOf(DType dtype);

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string_view bytes;  // row-major; points into the buffer that was parsed
};

struct SafetensorsView {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

// Parses `bytes`, which must outlive the result. INVALID_ARGUMENT with reasons
// SAFETENSORS_TRUNCATED, SAFETENSORS_HEADER_TOO_LARGE, SAFETENSORS_HEADER_INVALID,
// SAFETENSORS_OFFSETS_INVALID, SAFETENSORS_DTYPE_UNKNOWN, SAFETENSORS_SHAPE_MISMATCH; the message
// names the tensor.
absl::StatusOr<SafetensorsView> ParseSafetensors(std::string_view bytes);

struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string_view bytes;
};

// The file's bytes; tensors in the order given, header padded with spaces to 8 bytes.
// Deterministic.
std::string WriteSafetensors(const std::vector<TensorToWrite>& tensors,
                             const std::map<std::string, std::string>& metadata);

// Total bytes WriteSafetensors would return, and the same written to a caller's buffer: for
// secrets, whose bytes must not pass through ordinary memory.
size_t SafetensorsSize(const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);
void WriteSafetensorsTo(const std::vector<TensorToWrite>& tensors,
                        const std::map<std::string, std::string>& metadata, char* out);

}  // namespace ballast::artifact

#endif  // BALLAST_COMMON_ARTIFACT_SAFETENSORS_H_
