// SPDX-License-Identifier: Apache-2.0
#include "worker/train/rotary.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace ballast::worker {

std::vector<float> RotaryFrequencies(const artifact::ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  std::vector<float> frequencies(half);
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
  }
  if (!config.rope_scaling) return frequencies;
  // As published with Llama 3.1: long wavelengths are divided by `factor`, short ones kept, and
  // those between blended.
  const artifact::Llama3RopeScaling& scaling = *config.rope_scaling;
  const double longest = scaling.original_context / scaling.low_frequency_factor;
  const double shortest = scaling.original_context / scaling.high_frequency_factor;
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < shortest) continue;
    const double slow = frequency / scaling.factor;
    if (wavelength > longest) {
      frequency = static_cast<float>(slow);
    } else {
      const double blend = (scaling.original_context / wavelength - scaling.low_frequency_factor) /
                           (scaling.high_frequency_factor - scaling.low_frequency_factor);
      frequency = static_cast<float>((1 - blend) * slow + blend * frequency);
    }
  }
  return frequencies;
}

RotaryTable MakeRotaryTable(const artifact::ModelConfig& config, at::Device device) {
  const std::vector<float> frequencies = RotaryFrequencies(config);
  const auto half = static_cast<int64_t>(frequencies.size());
  RotaryTable table{at::empty({config.context_tokens, half}, at::kFloat),
                    at::empty({config.context_tokens, half}, at::kFloat)};
  auto* cos = table.cos.mutable_data_ptr<float>();
  auto* sin = table.sin.mutable_data_ptr<float>();
  for (int64_t position = 0; position < config.context_tokens; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      cos[position * half + i] = std::cos(angle);
      sin[position * half + i] = std::sin(angle);
    }
  }
  return {table.cos.to(device), table.sin.to(device)};
}

}  // namespace ballast::worker
