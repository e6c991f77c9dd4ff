// SPDX-License-Identifier: Apache-2.0
#include "tests/referee/probe_io.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <utility>

#include "common/artifact/adapter_folder.h"
#include "common/artifact/safetensors.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::referee {
namespace {

absl::Status Invalid(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "PROBE_REQUEST_INVALID", message);
}

worker::Schedule ScheduleFrom(const std::string& name) {
  if (name == "linear") return worker::Schedule::kLinear;
  if (name == "constant") return worker::Schedule::kConstant;
  return worker::Schedule::kCosine;
}

}  // namespace

worker::EngineOptions EngineOptionsFrom(const json& request) {
  worker::EngineOptions options;
  const std::string precision = request.value("precision", "");
  if (precision == "float32") options.precision = worker::Precision::kFloat32;
  if (precision == "bfloat16") options.precision = worker::Precision::kBfloat16;
  options.threads = request.value("threads", options.threads);
  options.device = request.value("device", "cpu");
  return options;
}

worker::LoraConfig LoraConfigFrom(const json& request) {
  worker::LoraConfig lora;
  lora.rank = request.value("rank", lora.rank);
  lora.alpha = request.value("alpha", lora.alpha);
  return lora;
}

worker::TrainConfig TrainConfigFrom(const json& config) {
  worker::TrainConfig out;
  out.lora = LoraConfigFrom(config);
  out.learning_rate = config.value("learning_rate", out.learning_rate);
  out.epochs = config.value("epochs", out.epochs);
  out.batch_rows = config.value("batch_rows", out.batch_rows);
  out.max_tokens_per_micro_batch =
      config.value("max_tokens_per_micro_batch", out.max_tokens_per_micro_batch);
  out.warmup_ratio = config.value("warmup_ratio", out.warmup_ratio);
  out.schedule = ScheduleFrom(config.value("schedule", "cosine"));
  out.weight_decay = config.value("weight_decay", out.weight_decay);
  out.adam_beta1 = config.value("adam_beta1", out.adam_beta1);
  out.adam_beta2 = config.value("adam_beta2", out.adam_beta2);
  out.adam_epsilon = config.value("adam_epsilon", out.adam_epsilon);
  out.max_gradient_norm = config.value("max_gradient_norm", out.max_gradient_norm);
  out.seed = config.value("seed", out.seed);
  out.evaluation_points = config.value("evaluation_points", out.evaluation_points);
  if (config.value("vector_policy", "") == "by_row") {
    out.vector_policy = worker::VectorPolicy::kByRow;
  }
  return out;
}

worker::VectorConfig VectorConfigFrom(const json& config) {
  worker::VectorConfig out;
  out.lora = LoraConfigFrom(config);
  out.learning_rate = config.value("learning_rate", out.learning_rate);
  out.epochs = config.value("epochs", out.epochs);
  out.batch_rows = config.value("batch_rows", out.batch_rows);
  out.kl_batch_rows = config.value("kl_batch_rows", out.kl_batch_rows);
  out.inner_steps = config.value("inner_steps", out.inner_steps);
  out.inner_learning_rate = config.value("inner_learning_rate", out.inner_learning_rate);
  out.kl_weight = config.value("kl_weight", out.kl_weight);
  out.hold_out_every = config.value("hold_out_every", out.hold_out_every);
  out.max_gradient_norm = config.value("max_gradient_norm", out.max_gradient_norm);
  return out;
}

absl::StatusOr<std::vector<worker::TokenRow>> RowsFrom(const json& request,
                                                       const std::string& key) {
  json rows = json::array();
  if (request.contains(key + "_file")) {
    BALLAST_ASSIGN_OR_RETURN(std::string bytes,
                             ReadFile(request.at(key + "_file").get<std::string>()));
    rows = json::parse(bytes);
  } else if (request.contains(key)) {
    rows = request.at(key);
  }
  std::vector<worker::TokenRow> out;
  out.reserve(rows.size());
  for (const json& row : rows) {
    worker::TokenRow token_row;
    token_row.tokens = row.at("tokens").get<std::vector<int32_t>>();
    token_row.supervised = row.at("supervised").get<std::vector<uint8_t>>();
    token_row.weight = row.value("weight", 1.0f);
    out.push_back(std::move(token_row));
  }
  return out;
}

absl::StatusOr<worker::Adapter> ReadAdapter(const std::string& path) {
  worker::Adapter adapter;
  if (path.empty()) return adapter;
  BALLAST_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  BALLAST_ASSIGN_OR_RETURN(const artifact::SafetensorsView view, artifact::ParseSafetensors(bytes));
  for (const auto& [name, tensor] : view.tensors) {  // a map: sorted by name
    if (tensor.dtype != artifact::DType::kF32) return Invalid(name + " is not float32");
    worker::NamedTensor named{.name = name, .shape = tensor.shape};
    named.values.resize(tensor.bytes.size() / sizeof(float));
    std::memcpy(named.values.data(), tensor.bytes.data(), tensor.bytes.size());
    adapter.push_back(std::move(named));
  }
  return adapter;
}

absl::StatusOr<worker::SecretBuffer> ReadSecret(const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  return worker::SecretBuffer::CopyOf(bytes);
}

absl::Status WriteTensors(const std::string& path, const worker::Adapter& tensors) {
  if (path.empty()) return absl::OkStatus();
  std::vector<artifact::TensorToWrite> out;
  out.reserve(tensors.size());
  for (const worker::NamedTensor& tensor : tensors) {
    out.push_back({.name = tensor.name,
                   .dtype = artifact::DType::kF32,
                   .shape = tensor.shape,
                   .bytes = {reinterpret_cast<const char*>(tensor.values.data()),
                             tensor.values.size() * sizeof(float)}});
  }
  return WriteFileAtomically(path, artifact::WriteSafetensors(out, {{"format", "pt"}}));
}

absl::Status WriteAdapterFolder(const std::string& folder, const std::string& model_folder,
                                const worker::LoraConfig& lora, const worker::Adapter& adapter) {
  BALLAST_ASSIGN_OR_RETURN(const std::string config, ReadFile(model_folder + "/config.json"));
  BALLAST_ASSIGN_OR_RETURN(const std::vector<artifact::AdapterTensorSpec> allowed,
                           artifact::AdapterTensorSpecs(config, lora.rank));
  std::vector<artifact::AdapterTensorView> views;
  views.reserve(adapter.size());
  for (const worker::NamedTensor& tensor : adapter) {
    views.push_back({.name = tensor.name, .shape = &tensor.shape, .values = &tensor.values});
  }
  BALLAST_ASSIGN_OR_RETURN(const std::string model, artifact::WriteAdapterModel(allowed, views));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(folder));
  BALLAST_RETURN_IF_ERROR(WriteFileAtomically(folder + "/adapter_model.safetensors", model));
  return WriteFileAtomically(
      folder + "/adapter_config.json",
      artifact::WriteAdapterConfig(
          {.rank = lora.rank, .alpha = lora.alpha, .base_model_name = model_folder}));
}

json ErrorJson(const absl::Status& status) {
  return {{"code", absl::StatusCodeToString(status.code())},
          {"reason", ErrorReason(status)},
          {"message", std::string(status.message())}};
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

absl::StatusOr<Memory> ReadMemory() {
  std::ifstream status("/proc/self/status");
  Memory memory;
  std::string key;
  int64_t kibibytes = 0;
  for (std::string line; std::getline(status, line);) {
    const size_t colon = line.find(':');
    key = line.substr(0, colon);
    if (key != "VmHWM" && key != "VmRSS") continue;
    kibibytes = std::stoll(line.substr(colon + 1));
    (key == "VmHWM" ? memory.peak_bytes : memory.resident_bytes) = kibibytes * 1024;
  }
  if (memory.peak_bytes == 0) {
    return MakeError(absl::StatusCode::kUnavailable, "MEMORY_UNKNOWN",
                     "/proc/self/status has no VmHWM; run on Linux");
  }
  return memory;
}

}  // namespace ballast::referee
