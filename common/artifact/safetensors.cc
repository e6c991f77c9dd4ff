// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/utf8.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

constexpr size_t kLengthBytes = 8;
// The limit of the reference implementation.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kAlignment = 8;
constexpr char kMetadataKey[] = "__metadata__";

struct DTypeName {
  DType dtype;
  const char* name;
  int64_t bytes;
};
constexpr DTypeName kDTypes[] = {
    {DType::kF64, "F64", 8},   {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2}, {DType::kI64, "I64", 8}, {DType::kI32, "I32", 4},
    {DType::kI16, "I16", 2},   {DType::kI8, "I8", 1},   {DType::kU8, "U8", 1},
    {DType::kBool, "BOOL", 1},
};

const DTypeName& Describe(DType dtype) {
  return *std::find_if(std::begin(kDTypes), std::end(kDTypes),
                       [&](const DTypeName& d) { return d.dtype == dtype; });
}

absl::Status Bad(std::string_view reason, std::string_view what, const std::string& tensor = "") {
  // Names come from the file: keep the message short and printable.
  std::string shown = ValidUtf8(tensor, 200);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  std::string message = "the safetensors file is not valid: ";
  if (!tensor.empty()) absl::StrAppend(&message, "tensor ", shown, ": ");
  absl::StrAppend(&message, absl::string_view(what.data(), what.size()),
                  "; download or convert the file again");
  std::map<std::string, std::string> metadata;
  if (!tensor.empty()) metadata["tensor"] = shown;
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message, metadata);
}

// One entry of the header before its offsets are checked against the others'.
struct Entry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Reads the header as events, because a tree would silently keep one of two equal keys, and because
// depth is bounded by the states: object of objects, whose arrays hold only numbers.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;  // of the tensor or the whole, when parsing stopped
  std::string problem_tensor;

  bool null() override { return Unexpected(); }
  bool boolean(bool) override { return Unexpected(); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected(); }
  bool binary(binary_t&) override { return Unexpected(); }
  bool number_integer(number_integer_t) override { return Unexpected(); }  // negative
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::kArray) return Unexpected();
    if (numbers_->size() >= kMaxNumbers) return Fail("has too many dimensions or offsets");
    numbers_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata[key_] = value;
      return true;
    }
    if (state_ != State::kEntry || key_ != "dtype") return Unexpected();
    entries.back().dtype = value;
    return true;
  }
  bool start_object(std::size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
      return true;
    }
    if (state_ != State::kTop) return Unexpected();
    if (key_ == kMetadataKey) {
      state_ = State::kMetadata;
    } else {
      entries.emplace_back().name = key_;
      state_ = State::kEntry;
    }
    return true;
  }
  bool key(string_t& value) override {
    key_ = value;
    if (state_ == State::kTop) {
      return names_.insert(value).second || Fail("a name is there twice");
    }
    if (state_ == State::kMetadata) {
      return !metadata.contains(value) || Fail("a metadata key is there twice");
    }
    Entry& entry = entries.back();
    bool* seen = value == "dtype"          ? &entry.has_dtype
                 : value == "shape"        ? &entry.has_shape
                 : value == "data_offsets" ? &entry.has_offsets
                                           : nullptr;
    if (seen == nullptr) return Fail("has an unknown field");
    if (*seen) return Fail("has a field twice");
    *seen = true;
    return true;
  }
  bool end_object() override {
    if (state_ == State::kEntry) {
      const Entry& entry = entries.back();
      if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets) {
        return Fail("lacks dtype, shape or data_offsets");
      }
    }
    state_ = state_ == State::kTop ? State::kEnd : State::kTop;
    return true;
  }
  bool start_array(std::size_t) override {
    if (state_ != State::kEntry || (key_ != "shape" && key_ != "data_offsets")) return Unexpected();
    numbers_ = key_ == "shape" ? &entries.back().shape : &entries.back().offsets;
    state_ = State::kArray;
    return true;
  }
  bool end_array() override {
    state_ = State::kEntry;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return Fail("the header is not JSON");
  }

 private:
  enum class State { kStart, kTop, kMetadata, kEntry, kArray, kEnd };
  // More dimensions than any real tensor has.
  static constexpr size_t kMaxNumbers = 64;

  bool Fail(std::string what) {
    if (!problem.empty()) return false;
    problem = std::move(what);
    if (state_ == State::kEntry || state_ == State::kArray) problem_tensor = entries.back().name;
    return false;
  }
  bool Unexpected() { return Fail("the header has a value of the wrong type"); }

  State state_ = State::kStart;
  std::string key_;
  std::set<std::string> names_;
  std::vector<uint64_t>* numbers_ = nullptr;
};

absl::Status CheckTensor(const Entry& entry, uint64_t data_bytes, TensorView& view) {
  const auto* dtype = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                   [&](const DTypeName& d) { return entry.dtype == d.name; });
  if (dtype == std::end(kDTypes)) {
    return Bad("SAFETENSORS_DTYPE_UNKNOWN", "its dtype is not one that Ballast reads", entry.name);
  }
  if (entry.offsets.size() != 2) {
    return Bad("SAFETENSORS_HEADER_INVALID", "data_offsets needs two numbers", entry.name);
  }
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  if (begin > end || end > data_bytes) {
    return Bad("SAFETENSORS_OFFSETS_INVALID", "its offsets lie outside of the file", entry.name);
  }
  uint64_t bytes = static_cast<uint64_t>(dtype->bytes);
  for (uint64_t dimension : entry.shape) {
    if (dimension > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(bytes, dimension, &bytes)) {
      return Bad("SAFETENSORS_SHAPE_MISMATCH", "its shape is too large", entry.name);
    }
    view.shape.push_back(static_cast<int64_t>(dimension));
  }
  if (bytes != end - begin) {
    return Bad("SAFETENSORS_SHAPE_MISMATCH",
               absl::StrCat("its shape needs ", bytes, " bytes, its offsets give ", end - begin),
               entry.name);
  }
  view.dtype = dtype->dtype;
  return absl::OkStatus();
}

// The header's text, padded so that the tensors begin at a multiple of 8.
std::string Header(const std::vector<TensorToWrite>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  // Ordered by hand: nlohmann::json sorts keys, and the order of the tensors is the caller's. The
  // replacing error handler keeps dump() from throwing on bad UTF-8.
  auto quote = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  std::string header = "{";
  if (!metadata.empty()) {
    absl::StrAppend(&header, "\"", kMetadataKey, "\":{");
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      absl::StrAppend(&header, separator, quote(key), ":", quote(value));
      separator = ",";
    }
    header += "}";
  }
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    absl::StrAppend(&header, header.size() > 1 ? "," : "", quote(tensor.name), ":{\"dtype\":\"",
                    Describe(tensor.dtype).name, "\",\"shape\":[");
    const char* separator = "";
    for (int64_t dimension : tensor.shape) {
      absl::StrAppend(&header, separator, dimension);
      separator = ",";
    }
    absl::StrAppend(&header, "],\"data_offsets\":[", offset, ",", offset + tensor.bytes.size(),
                    "]}");
    offset += tensor.bytes.size();
  }
  header += "}";
  header.append((kAlignment - header.size() % kAlignment) % kAlignment, ' ');
  return header;
}

size_t DataBytes(const std::vector<TensorToWrite>& tensors) {
  size_t bytes = 0;
  for (const TensorToWrite& tensor : tensors) bytes += tensor.bytes.size();
  return bytes;
}

}  // namespace

int64_t SizeOf(DType dtype) { return Describe(dtype).bytes; }

absl::StatusOr<SafetensorsView> ParseSafetensors(std::string_view bytes) {
  if (bytes.size() < kLengthBytes) {
    return Bad("SAFETENSORS_TRUNCATED", "it is shorter than its length field");
  }
  uint64_t header_bytes = 0;
  for (size_t i = kLengthBytes; i-- > 0;) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(bytes[i]);
  }
  if (header_bytes > kMaxHeaderBytes) {
    return Bad("SAFETENSORS_HEADER_TOO_LARGE",
               absl::StrCat("its header claims ", header_bytes, " bytes"));
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return Bad("SAFETENSORS_TRUNCATED", "its header is longer than the file");
  }
  const std::string_view header = bytes.substr(kLengthBytes, header_bytes);
  const std::string_view data = bytes.substr(kLengthBytes + header_bytes);
  // The format demands it, and it keeps a byte order mark or white space from hiding an attack on
  // parsers that disagree.
  if (header.empty() || header.front() != '{') {
    return Bad("SAFETENSORS_HEADER_INVALID", "its header does not begin with an object");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header.begin(), header.end(), &reader)) {
    return Bad("SAFETENSORS_HEADER_INVALID",
               reader.problem.empty() ? "the header is not JSON" : reader.problem,
               reader.problem_tensor);
  }

  SafetensorsView result;
  std::vector<const Entry*> by_offset;
  for (const Entry& entry : reader.entries) {
    TensorView view;
    if (absl::Status status = CheckTensor(entry, data.size(), view); !status.ok()) return status;
    view.bytes = data.substr(entry.offsets[0], entry.offsets[1] - entry.offsets[0]);
    result.tensors.emplace(entry.name, std::move(view));
    by_offset.push_back(&entry);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const Entry* a, const Entry* b) { return a->offsets < b->offsets; });
  uint64_t expected = 0;
  for (const Entry* entry : by_offset) {
    if (entry->offsets[0] != expected) {
      return Bad(
          "SAFETENSORS_OFFSETS_INVALID",
          entry->offsets[0] < expected ? "it overlaps another tensor" : "there is a hole before it",
          entry->name);
    }
    expected = entry->offsets[1];
  }
  if (expected != data.size()) {
    return Bad("SAFETENSORS_OFFSETS_INVALID",
               absl::StrCat(data.size() - expected, " bytes after the last tensor belong to none"));
  }
  result.metadata = std::move(reader.metadata);
  return result;
}

size_t SafetensorsSize(const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  return kLengthBytes + Header(tensors, metadata).size() + DataBytes(tensors);
}

void WriteSafetensorsTo(const std::vector<TensorToWrite>& tensors,
                        const std::map<std::string, std::string>& metadata, char* out) {
  const std::string header = Header(tensors, metadata);
  uint64_t length = header.size();
  for (size_t i = 0; i < kLengthBytes; ++i, length >>= 8) {
    *out++ = static_cast<char>(length & 0xff);
  }
  out = std::copy(header.begin(), header.end(), out);
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.bytes.empty()) continue;
    std::memcpy(out, tensor.bytes.data(), tensor.bytes.size());
    out += tensor.bytes.size();
  }
}

std::string WriteSafetensors(const std::vector<TensorToWrite>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::string result(SafetensorsSize(tensors, metadata), '\0');
  WriteSafetensorsTo(tensors, metadata, result.data());
  return result;
}

}  // namespace ballast::artifact
