// SPDX-License-Identifier: Apache-2.0
// Model folders that are damaged or hostile.
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "common/artifact/model_config.h"
#include "common/artifact/safetensors.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/train/rotary.h"
#include "worker/train/testing/tiny.h"
#include "worker/trainer.h"

namespace ballast::worker {
namespace {

using ::ballast::testing::StatusIs;

class ModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/ballast_model_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy(testing::TinyFolder() + "/" + name, folder_ + "/" + name);
    }
    bytes_ = ReadFile(folder_ + "/model.safetensors").value();
    config_ = ReadFile(folder_ + "/config.json").value();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary | std::ios::trunc) << bytes;
  }
  // The tensors of the tiny model, to be changed and written again.
  std::vector<artifact::TensorToWrite> Tensors() const {
    std::vector<artifact::TensorToWrite> tensors;
    const artifact::SafetensorsView view = artifact::ParseSafetensors(bytes_).value();
    for (const auto& [name, tensor] : view.tensors) {
      tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
    }
    return tensors;
  }
  void ChangeConfig(const std::string& from, const std::string& to) {
    const size_t at = config_.find(from);
    ASSERT_NE(at, std::string::npos);
    config_.replace(at, from.size(), to);
    Write("config.json", config_);
  }
  std::string LoadReason() const {
    const absl::Status status = LoadEngine(folder_, {.device = "cpu"}).status();
    EXPECT_FALSE(status.ok());
    return ErrorReason(status);
  }

  std::string folder_, bytes_, config_;
};

TEST_F(ModelTest, LoadsInEitherPrecision) {
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    auto engine = LoadEngine(folder_, {.precision = precision, .device = "cpu"});
    ASSERT_OK(engine);
    const EngineInfo info = (*engine)->info();
    EXPECT_EQ(info.architecture, "LlamaForCausalLM");
    EXPECT_EQ(info.vocabulary, 512);
    EXPECT_EQ(info.context_tokens, 1024);
    EXPECT_EQ(info.parameters,
              512 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3 + 2 * 64) + 64);
    EXPECT_EQ(info.device, "cpu");
    EXPECT_EQ(info.precision, precision == Precision::kFloat32 ? "float32" : "bfloat16");
  }
}

TEST_F(ModelTest, ReadsShards) {
  std::vector<artifact::TensorToWrite> all = Tensors(), first, second;
  std::string map;
  for (size_t i = 0; i < all.size(); ++i) {
    (i % 2 == 0 ? first : second).push_back(all[i]);
    map += (i == 0 ? "" : ",") + ("\"" + all[i].name) +
           (i % 2 == 0 ? "\":\"a.safetensors\"" : "\":\"b.safetensors\"");
  }
  Write("a.safetensors", artifact::WriteSafetensors(first, {}));
  Write("b.safetensors", artifact::WriteSafetensors(second, {}));
  Write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  std::filesystem::remove(folder_ + "/model.safetensors");
  auto sharded = LoadEngine(folder_, {.precision = Precision::kFloat32, .device = "cpu"});
  ASSERT_OK(sharded);
  ASSERT_OK_AND_ASSIGN(const auto ours, (*sharded)->Logits({1, 2, 3}, {}, {}));
  ASSERT_OK_AND_ASSIGN(const auto theirs,
                       testing::LoadTiny(Precision::kFloat32)->Logits({1, 2, 3}, {}, {}));
  EXPECT_EQ(ours, theirs);
}

TEST_F(ModelTest, RefusesAnIndexThatLeavesTheFolder) {
  for (const char* file : {"../model.safetensors", "/etc/passwd", "", ".hidden"}) {
    Write("model.safetensors.index.json",
          std::string("{\"weight_map\":{\"model.norm.weight\":\"") + file + "\"}}");
    EXPECT_EQ(LoadReason(), "MODEL_CONFIG_INVALID") << file;
  }
  Write("model.safetensors.index.json", "[]");
  EXPECT_EQ(LoadReason(), "MODEL_CONFIG_INVALID");
}

TEST_F(ModelTest, RefusesATruncatedFile) {
  for (const size_t size : {size_t{0}, size_t{4}, size_t{100}, bytes_.size() - 1}) {
    Write("model.safetensors", bytes_.substr(0, size));
    EXPECT_TRUE(LoadReason().starts_with("SAFETENSORS_")) << size;
  }
}

TEST_F(ModelTest, RefusesATensorThatIsMissingOrTooMuch) {
  std::vector<artifact::TensorToWrite> tensors = Tensors();
  tensors.erase(tensors.begin() + 5);
  Write("model.safetensors", artifact::WriteSafetensors(tensors, {}));
  EXPECT_EQ(LoadReason(), "TENSOR_MISMATCH");
  tensors = Tensors();
  tensors.push_back({"model.layers.0.self_attn.q_proj.bias",
                     artifact::DType::kF16,
                     {64},
                     std::string_view(bytes_).substr(0, 128)});
  Write("model.safetensors", artifact::WriteSafetensors(tensors, {}));
  EXPECT_EQ(LoadReason(), "TENSOR_MISMATCH");
}

TEST_F(ModelTest, RefusesAWrongShapeOrType) {
  std::vector<artifact::TensorToWrite> tensors = Tensors();
  for (artifact::TensorToWrite& tensor : tensors) {
    if (tensor.name.ends_with("layers.1.mlp.up_proj.weight"))
      std::swap(tensor.shape[0], tensor.shape[1]);
  }
  Write("model.safetensors", artifact::WriteSafetensors(tensors, {}));
  EXPECT_EQ(LoadReason(), "TENSOR_MISMATCH");
  tensors = Tensors();
  tensors.back().dtype = artifact::DType::kI16;
  Write("model.safetensors", artifact::WriteSafetensors(tensors, {}));
  EXPECT_EQ(LoadReason(), "TENSOR_MISMATCH");
}

TEST_F(ModelTest, RefusesOtherArchitectures) {
  for (const auto& [from, to] : std::map<std::string, std::string>{
           {"LlamaForCausalLM", "GPT2LMHeadModel"},
           {"\"attention_bias\": false", "\"attention_bias\": true"},
           {"\"mlp_bias\": false", "\"mlp_bias\": true"},
           {"\"silu\"", "\"gelu\""},
           {"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}"}}) {
    SetUp();
    ChangeConfig(from, to);
    EXPECT_EQ(LoadReason(), "UNSUPPORTED_ARCHITECTURE") << to;
  }
}

TEST_F(ModelTest, RefusesASenselessConfig) {
  for (const auto& [from, to] : std::map<std::string, std::string>{
           {"\"hidden_size\": 64", "\"hidden_size\": 0"},
           {"\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615"},
           {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"two\""},
           {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"},
           {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1"},
           {"{", ""}}) {
    SetUp();
    ChangeConfig(from, to);
    EXPECT_EQ(LoadReason(), "MODEL_CONFIG_INVALID") << to;
  }
  // A promise of far more layers than the file holds is refused before memory is taken.
  SetUp();
  ChangeConfig("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4000");
  EXPECT_EQ(LoadReason(), "TENSOR_MISMATCH");
}

TEST_F(ModelTest, SaysWhatIsMissing) {
  std::filesystem::remove(folder_ + "/config.json");
  EXPECT_EQ(LoadReason(), "FILE_MISSING");
  EXPECT_THAT(LoadEngine(folder_, {.device = "tpu"}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "DEVICE_UNKNOWN"));
}

// The stretched frequencies of Llama 3.1 as published: long waves by the factor, short ones
// unchanged.
TEST(RotaryFrequenciesTest, Llama3Scaling) {
  artifact::ModelConfig config{.heads = 1, .kv_heads = 1, .head_dim = 128, .rope_theta = 500000.0};
  const std::vector<float> plain = RotaryFrequencies(config);
  config.rope_scaling = artifact::Llama3RopeScaling{.factor = 8, .original_context = 8192};
  const std::vector<float> scaled = RotaryFrequencies(config);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_NEAR(scaled.back(), plain.back() / 8, 1e-12);
  bool between = false;
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8 * 0.9999f);
    between |= scaled[i] < plain[i] * 0.99f && scaled[i] > plain[i] / 8 * 1.01f;
  }
  EXPECT_TRUE(between);
}

}  // namespace
}  // namespace ballast::worker
