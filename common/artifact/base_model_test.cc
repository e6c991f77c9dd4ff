// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/base_model.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/artifact/safetensors.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::artifact {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kConfig[] =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 32,
        "max_position_embeddings": 64, "tie_word_embeddings": true})";

using Tensors = std::map<std::string, std::vector<int64_t>>;

class BaseModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/base_model_test_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    ASSERT_OK(MakeDirectories(folder_));
    Write("config.json", kConfig);
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseModelConfig(kConfig));
    tensors_ = ExpectedTensors(config);
  }

  void Write(const std::string& file, const std::string& bytes) {
    ASSERT_OK(WriteFileAtomically(absl::StrCat(folder_, "/", file), bytes));
  }

  static std::string Weights(const Tensors& tensors, DType type = DType::kBF16) {
    std::vector<std::string> bytes;
    bytes.reserve(tensors.size());
    std::vector<TensorToWrite> list;
    for (const auto& [name, shape] : tensors) {
      int64_t elements = 1;
      for (const int64_t size : shape) elements *= size;
      bytes.emplace_back(static_cast<size_t>(elements * SizeOf(type)), '\0');
      list.push_back({name, type, shape, bytes.back()});
    }
    return WriteSafetensors(list, {});
  }

  std::string folder_;
  Tensors tensors_;
};

TEST_F(BaseModelTest, AcceptsOneFileAndCountsWeights) {
  Write("model.safetensors", Weights(tensors_));
  ASSERT_OK_AND_ASSIGN(const BaseModelFacts facts, CheckBaseModelFolder(folder_));
  // Embedding 256, final norm 8, and per layer 2 x 8 + 64 + 32 + 32 + 64 + 3 x 128.
  EXPECT_EQ(facts.parameter_count, 256 + 8 + 2 * (16 + 64 + 32 + 32 + 64 + 384));
  EXPECT_EQ(facts.config.context_tokens, 64);
  EXPECT_EQ(facts.config.kv_heads, 1);
}

TEST_F(BaseModelTest, AcceptsShards) {
  Tensors first = tensors_;
  Tensors second;
  second.insert(first.extract("model.norm.weight"));
  Write("model-00001-of-00002.safetensors", Weights(first));
  Write("model-00002-of-00002.safetensors", Weights(second));
  const std::string index = R"({"weight_map": {"a": "model-00001-of-00002.safetensors",
                                               "b": "model-00002-of-00002.safetensors"}})";
  Write("model.safetensors.index.json", index);
  EXPECT_OK(CheckBaseModelFolder(folder_));

  std::filesystem::remove(folder_ + "/model-00002-of-00002.safetensors");
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "FILE_MISSING"));
  Write("model.safetensors.index.json", R"({"weight_map": {"a": "../../etc/passwd.safetensors"}})");
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "MODEL_CONFIG_INVALID"));
  Write("model.safetensors.index.json", "[]");
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "MODEL_CONFIG_INVALID"));
}

TEST_F(BaseModelTest, TakesATiedHeadThatIsStoredAgainButNoOtherTensor) {
  tensors_["lm_head.weight"] = {32, 8};
  Write("model.safetensors", Weights(tensors_));
  EXPECT_OK(CheckBaseModelFolder(folder_));
  tensors_["model.layers.0.self_attn.q_proj.bias"] = {8};
  Write("model.safetensors", Weights(tensors_));
  const auto result = CheckBaseModelFolder(folder_);
  EXPECT_THAT(result, StatusIs(kInvalid, "TENSOR_MISMATCH"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("q_proj.bias has no place"));
}

TEST_F(BaseModelTest, TakesTheFrequenciesOfOlderLlamas) {
  tensors_["model.layers.0.self_attn.rotary_emb.inv_freq"] = {2};
  Write("model.safetensors", Weights(tensors_));
  EXPECT_OK(CheckBaseModelFolder(folder_));
}

TEST_F(BaseModelTest, RefusesMissingMisshapenAndMistypedTensors) {
  Tensors missing = tensors_;
  missing.erase("model.layers.1.mlp.up_proj.weight");
  Write("model.safetensors", Weights(missing));
  auto result = CheckBaseModelFolder(folder_);
  EXPECT_THAT(result, StatusIs(kInvalid, "TENSOR_MISMATCH"));
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("model.layers.1.mlp.up_proj.weight"));

  Tensors misshapen = tensors_;
  misshapen["model.norm.weight"] = {9};
  Write("model.safetensors", Weights(misshapen));
  result = CheckBaseModelFolder(folder_);
  EXPECT_THAT(result, StatusIs(kInvalid, "TENSOR_MISMATCH"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("shape [9], not [8]"));

  Write("model.safetensors", Weights(tensors_, DType::kI8));
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "TENSOR_MISMATCH"));
}

TEST_F(BaseModelTest, RefusesTruncatedWeightsAndMissingFiles) {
  const std::string weights = Weights(tensors_);
  Write("model.safetensors", weights.substr(0, weights.size() - 1));
  EXPECT_THAT(CheckBaseModelFolder(folder_).status().code(), kInvalid);
  Write("model.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8));
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "SAFETENSORS_HEADER_TOO_LARGE"));
  std::filesystem::remove(folder_ + "/model.safetensors");
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "FILE_MISSING"));
  std::filesystem::remove(folder_ + "/config.json");
  EXPECT_THAT(CheckBaseModelFolder(folder_), StatusIs(kInvalid, "FILE_MISSING"));
}

struct ConfigCase {
  const char* name;
  const char* from;
  const char* to;
  const char* reason;
};

class BaseModelConfigTest : public ::testing::TestWithParam<ConfigCase> {};

TEST_P(BaseModelConfigTest, IsRefused) {
  const std::string config = absl::StrReplaceAll(kConfig, {{GetParam().from, GetParam().to}});
  ASSERT_NE(config, kConfig);
  EXPECT_THAT(ParseModelConfig(config), StatusIs(kInvalid, GetParam().reason));
}

INSTANTIATE_TEST_SUITE_P(
    All, BaseModelConfigTest,
    ::testing::Values(
        ConfigCase{"OtherModel", "LlamaForCausalLM", "MambaForCausalLM",
                   "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"NoModel", "[\"LlamaForCausalLM\"]", "[]", "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"Bias", "{", "{\"attention_bias\": true, ", "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"Quantised", "{", "{\"quantization_config\": {}, ", "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"Rope", "{", "{\"rope_scaling\": {\"type\": \"yarn\"}, ",
                   "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"RopeFactor", "{",
                   "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 0}, ",
                   "MODEL_CONFIG_INVALID"},
        ConfigCase{"RopeFactors", "{",
                   "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"low_freq_factor\": 4}, ",
                   "MODEL_CONFIG_INVALID"},
        ConfigCase{"RopeInEither", "{",
                   "{\"rope_scaling\": {\"type\": \"default\"}, "
                   "\"rope_parameters\": {\"rope_type\": \"yarn\"}, ",
                   "UNSUPPORTED_ARCHITECTURE"},
        ConfigCase{"RotaryTable", "\"max_position_embeddings\": 64",
                   "\"max_position_embeddings\": 16777216, \"head_dim\": 128",
                   "MODEL_CONFIG_INVALID"},
        ConfigCase{"RopeTheta", "{", "{\"rope_theta\": -1, ", "MODEL_CONFIG_INVALID"},
        ConfigCase{"Epsilon", "{", "{\"rms_norm_eps\": \"small\", ", "MODEL_CONFIG_INVALID"},
        ConfigCase{"NotJson", "}", "", "MODEL_CONFIG_INVALID"},
        ConfigCase{"Missing", "hidden_size", "size", "MODEL_CONFIG_INVALID"},
        ConfigCase{"Negative", "\"vocab_size\": 32", "\"vocab_size\": -1", "MODEL_CONFIG_INVALID"},
        ConfigCase{"Huge", "\"num_hidden_layers\": 2",
                   "\"num_hidden_layers\": 18446744073709551615", "MODEL_CONFIG_INVALID"},
        ConfigCase{"Heads", "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3",
                   "MODEL_CONFIG_INVALID"}),
    [](const auto& info) { return info.param.name; });

TEST(BaseModelFilesTest, KnowsWhichFilesBelong) {
  for (const char* name :
       {"config.json", "model-00001-of-00009.safetensors", "chat_template.jinja"}) {
    EXPECT_OK(CheckBaseModelFileName(name));
  }
  for (const char* name :
       {"", "..", "a/config.json", "../model.safetensors", ".safetensors", "pytorch_model.bin",
        "modeling.py", "config.json\n", "README.md", "LICENSE"}) {
    EXPECT_THAT(CheckBaseModelFileName(name), StatusIs(kInvalid, "FILE_NOT_ALLOWED")) << name;
  }
}

TEST(BaseModelFilesTest, DigestDependsOnNamesAndBytesOnly) {
  const std::string digest = BaseModelDigest({{"a", "sha256:1"}, {"b", "sha256:2"}});
  EXPECT_EQ(digest, BaseModelDigest({{"b", "sha256:2"}, {"a", "sha256:1"}}));
  EXPECT_NE(digest, BaseModelDigest({{"a", "sha256:2"}, {"b", "sha256:1"}}));
}

}  // namespace
}  // namespace ballast::artifact
