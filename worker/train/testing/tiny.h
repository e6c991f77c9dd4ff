// SPDX-License-Identifier: Apache-2.0
// Rows, adapters and vectors for the committed tiny model.
#ifndef BALLAST_WORKER_TRAIN_TESTING_TINY_H_
#define BALLAST_WORKER_TRAIN_TESTING_TINY_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/artifact/safetensors.h"
#include "worker/train/inspect.h"
#include "worker/train/random.h"
#include "worker/trainer.h"

namespace ballast::worker::testing {

inline std::string TinyFolder() { return std::string(BALLAST_TESTDATA) + "/tiny_llama"; }
inline constexpr int32_t kTinyVocabulary = 512;

inline std::unique_ptr<Engine> LoadTiny(Precision precision, int threads = 2) {
  return LoadEngine(TinyFolder(), {.precision = precision, .threads = threads, .device = "cpu"})
      .value();
}

// A row of `length` tokens; the first `prompt` are not supervised.
inline TokenRow TinyRow(uint64_t seed, int length, int prompt, float weight = 1.0f) {
  const CounterRandom random(seed, 77);
  TokenRow row;
  row.weight = weight;
  for (int t = 0; t < length; ++t) {
    row.tokens.push_back(static_cast<int32_t>(random.Bits(t) % kTinyVocabulary));
    row.supervised.push_back(t >= prompt ? 1 : 0);
  }
  return row;
}

// `count` rows that share a pattern which can be learned: a token is followed by the next one.
inline std::vector<TokenRow> CountingRows(int count, int length, int start = 0) {
  std::vector<TokenRow> rows;
  for (int i = 0; i < count; ++i) {
    TokenRow row;
    for (int t = 0; t < length; ++t) {
      row.tokens.push_back((start + 17 * i + t) % kTinyVocabulary);
      row.supervised.push_back(t >= 3 ? 1 : 0);
    }
    rows.push_back(row);
  }
  return rows;
}

// Of a vector that the tiny model learns by heart.
inline VectorConfig ThoroughVectorConfig() {
  VectorConfig config;
  config.lora = {.rank = 8, .alpha = 16.0f};
  config.learning_rate = 2e-2;
  config.epochs = 40;
  return config;
}

// An adapter whose A and B are both random, so that every gradient is non-zero.
inline Adapter RandomAdapter(Engine& engine, const LoraConfig& lora, uint64_t seed,
                             float scale = 0.05f) {
  Adapter adapter = InitialAdapter(engine, lora, seed).value();
  uint64_t stream = 0;
  for (NamedTensor& tensor : adapter) {
    const CounterRandom random(seed, 1000 + stream++);
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      tensor.values[i] = static_cast<float>(2 * random.Uniform(i) - 1) * scale;
    }
  }
  return adapter;
}

// The same tensors as a vector's bytes.
inline SecretBuffer AsVector(const Adapter& adapter, const LoraConfig& lora) {
  std::vector<artifact::TensorToWrite> tensors;
  const std::string prefix = "base_model.model.model.";
  for (const NamedTensor& tensor : adapter) {
    std::string name = "vector." + tensor.name.substr(prefix.size());
    name.resize(name.size() - std::string(".weight").size());
    tensors.push_back({name,
                       artifact::DType::kF32,
                       tensor.shape,
                       {reinterpret_cast<const char*>(tensor.values.data()),
                        tensor.values.size() * sizeof(float)}});
  }
  return SecretBuffer::CopyOf(
      artifact::WriteSafetensors(tensors, {{"format", "ballast-vector-1"},
                                           {"rank", std::to_string(lora.rank)},
                                           {"alpha", std::to_string(lora.alpha)}}));
}

// The tensors of a vector's bytes as an adapter, to be used beside the base.
inline Adapter AsAdapter(const SecretBuffer& vector) {
  Adapter adapter;
  const artifact::SafetensorsView view = artifact::ParseSafetensors(vector.view()).value();
  for (const auto& [name, tensor] : view.tensors) {
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    adapter.push_back(
        {"base_model.model.model." + name.substr(std::string("vector.").size()) + ".weight",
         tensor.shape, std::move(values)});
  }
  return adapter;
}

}  // namespace ballast::worker::testing

#endif  // BALLAST_WORKER_TRAIN_TESTING_TINY_H_
