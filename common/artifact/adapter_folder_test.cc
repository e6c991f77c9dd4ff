// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/adapter_folder.h"

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "common/artifact/safetensors.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Grouped queries and a head size of its own, so that no two dimensions are alike.
constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2,
    "hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 4, "vocab_size": 32, "max_position_embeddings": 64})";

std::vector<AdapterTensorSpec> Specs(int rank = 3) {
  auto specs = AdapterTensorSpecs(kConfig, rank);
  EXPECT_OK(specs);
  return *specs;
}

std::vector<AdapterTensor> Tensors(const std::vector<AdapterTensorSpec>& specs) {
  std::vector<AdapterTensor> tensors;
  float next = 0.25f;
  for (const AdapterTensorSpec& spec : specs) {
    AdapterTensor tensor{spec.name, spec.shape, {}};
    for (int64_t i = 0; i < spec.shape[0] * spec.shape[1]; ++i)
      tensor.values.push_back(next += 0.5f);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<AdapterTensorView> Views(const std::vector<AdapterTensor>& tensors) {
  std::vector<AdapterTensorView> views;
  for (const AdapterTensor& tensor : tensors) {
    views.push_back({tensor.name, &tensor.shape, &tensor.values});
  }
  return views;
}

TEST(AdapterTensorSpecsTest, ListsSevenModulesOfEachLayerWithTheirShapes) {
  const auto specs = Specs();
  ASSERT_EQ(specs.size(), 2u * 7 * 2);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& spec : specs) shapes[spec.name] = spec.shape;
  const std::string layer = "base_model.model.model.layers.1.";
  EXPECT_THAT(shapes[layer + "self_attn.q_proj.lora_A.weight"], ElementsAre(3, 12));
  EXPECT_THAT(shapes[layer + "self_attn.q_proj.lora_B.weight"], ElementsAre(16, 3));
  EXPECT_THAT(shapes[layer + "self_attn.k_proj.lora_B.weight"], ElementsAre(8, 3));
  EXPECT_THAT(shapes[layer + "self_attn.v_proj.lora_B.weight"], ElementsAre(8, 3));
  EXPECT_THAT(shapes[layer + "self_attn.o_proj.lora_A.weight"], ElementsAre(3, 16));
  EXPECT_THAT(shapes[layer + "self_attn.o_proj.lora_B.weight"], ElementsAre(12, 3));
  EXPECT_THAT(shapes[layer + "mlp.gate_proj.lora_B.weight"], ElementsAre(20, 3));
  EXPECT_THAT(shapes[layer + "mlp.up_proj.lora_A.weight"], ElementsAre(3, 12));
  EXPECT_THAT(shapes[layer + "mlp.down_proj.lora_A.weight"], ElementsAre(3, 20));
  EXPECT_THAT(shapes[layer + "mlp.down_proj.lora_B.weight"], ElementsAre(12, 3));
}

TEST(AdapterTensorSpecsTest, RefusesAConfigOrRankThatCannotBe) {
  EXPECT_THAT(AdapterTensorSpecs("{}", 2),
              StatusIs(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_ARCHITECTURE"));
  EXPECT_THAT(AdapterTensorSpecs(kConfig, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, "ADAPTER_CONFIG_INVALID"));
}

TEST(AdapterModelTest, ComesBackAsItWasWrittenInAnyOrder) {
  const auto specs = Specs();
  const auto tensors = Tensors(specs);
  auto views = Views(tensors);
  std::reverse(views.begin(), views.end());
  ASSERT_OK_AND_ASSIGN(const std::string bytes, WriteAdapterModel(specs, views));
  ASSERT_OK_AND_ASSIGN(const auto read, ReadAdapterModel(specs, bytes));
  ASSERT_EQ(read.size(), tensors.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].name, tensors[i].name);
    EXPECT_EQ(read[i].shape, tensors[i].shape);
    EXPECT_EQ(read[i].values, tensors[i].values);
  }
  ASSERT_OK_AND_ASSIGN(const SafetensorsView file, ParseSafetensors(bytes));
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_OK_AND_ASSIGN(const std::string again, WriteAdapterModel(specs, Views(tensors)));
  EXPECT_EQ(again, bytes);
}

TEST(AdapterModelTest, WritesNothingThatIsNotOnTheList) {
  const auto specs = Specs();
  const auto good = Tensors(specs);
  const auto refused = [&](const std::vector<AdapterTensor>& tensors, std::string_view why) {
    const auto result = WriteAdapterModel(specs, Views(tensors));
    EXPECT_THAT(result,
                StatusIs(absl::StatusCode::kFailedPrecondition, "ARTIFACT_TENSOR_NOT_ALLOWED"))
        << why;
  };
  auto tensors = good;
  tensors.push_back(
      {"base_model.model.model.layers.0.self_attn.q_proj.security.weight", {1, 1}, {1}});
  refused(tensors, "a foreign tensor");
  tensors = good;
  tensors.push_back(good[0]);
  refused(tensors, "a tensor twice");
  tensors = good;
  tensors.pop_back();
  refused(tensors, "a missing tensor");
  tensors = good;
  tensors[0].name += ".default";
  refused(tensors, "another name");
  tensors = good;
  std::swap(tensors[0].shape[0], tensors[0].shape[1]);
  refused(tensors, "a transposed shape");
  tensors = good;
  tensors[0].values.push_back(1);
  refused(tensors, "a value too many");
  refused({}, "nothing");
}

TEST(AdapterModelTest, WritesNoValueThatIsNotFinite) {
  const auto specs = Specs();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto tensors = Tensors(specs);
    tensors[5].values[1] = bad;
    EXPECT_THAT(WriteAdapterModel(specs, Views(tensors)),
                StatusIs(absl::StatusCode::kFailedPrecondition, "ARTIFACT_TENSOR_NOT_FINITE"));
  }
}

// The file of `specs` with every tensor of `dtype`, all elements being the two bytes `element`.
std::string HalfFile(const std::vector<AdapterTensorSpec>& specs, DType dtype, uint16_t element) {
  std::vector<std::string> bytes;
  std::vector<TensorToWrite> tensors;
  bytes.reserve(specs.size());
  for (const auto& spec : specs) {
    std::string& data = bytes.emplace_back();
    for (int64_t i = 0; i < spec.shape[0] * spec.shape[1]; ++i) {
      data.append(reinterpret_cast<const char*>(&element), 2);
    }
    tensors.push_back({spec.name, dtype, spec.shape, data});
  }
  return WriteSafetensors(tensors, {});
}

TEST(AdapterModelTest, ReadsHalfPrecisionExactly) {
  const auto specs = Specs();
  const auto first = [&](DType dtype, uint16_t element) {
    auto read = ReadAdapterModel(specs, HalfFile(specs, dtype, element));
    EXPECT_OK(read);
    return read->at(0).values.at(0);
  };
  EXPECT_EQ(first(DType::kBF16, 0x3fc0), 1.5f);
  EXPECT_EQ(first(DType::kBF16, 0xc000), -2.0f);
  EXPECT_EQ(first(DType::kF16, 0x3e00), 1.5f);
  EXPECT_EQ(first(DType::kF16, 0xc000), -2.0f);
  EXPECT_EQ(first(DType::kF16, 0x0001), 0x1p-24f);
  EXPECT_EQ(first(DType::kF16, 0x7bff), 65504.0f);
}

TEST(AdapterModelTest, ReadsNothingThatIsNotOnTheList) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       WriteAdapterModel(Specs(3), Views(Tensors(Specs(3)))));
  EXPECT_THAT(ReadAdapterModel(Specs(4), bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, "ARTIFACT_TENSOR_NOT_ALLOWED"));
  auto fewer = Specs(3);
  fewer.pop_back();
  EXPECT_THAT(ReadAdapterModel(fewer, bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, "ARTIFACT_TENSOR_NOT_ALLOWED"));
  auto more = Specs(3);
  more.push_back({"base_model.model.lm_head.lora_A.weight", {3, 12}});
  EXPECT_THAT(ReadAdapterModel(more, bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, "ARTIFACT_TENSOR_NOT_ALLOWED"));
  EXPECT_THAT(ReadAdapterModel(Specs(3), bytes.substr(0, bytes.size() - 1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ReadAdapterModel(Specs(3), HalfFile(Specs(3), DType::kI16, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument, "ARTIFACT_TENSOR_NOT_ALLOWED"));
}

TEST(AdapterConfigTest, HasWhatPeftNeedsAndComesBack) {
  const std::string text = WriteAdapterConfig({8, 16, "smol"});
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["peft_type"], "LORA");
  EXPECT_EQ(json["r"], 8);
  EXPECT_TRUE(json["lora_alpha"].is_number_integer());
  EXPECT_EQ(json["lora_alpha"], 16);
  EXPECT_EQ(json["bias"], "none");
  EXPECT_EQ(json["inference_mode"], true);
  EXPECT_EQ(json["target_modules"].size(), 7u);
  EXPECT_EQ(json["base_model_name_or_path"], "smol");
  EXPECT_TRUE(json["modules_to_save"].is_null());
  EXPECT_EQ(text, json.dump(2) + "\n");
  ASSERT_OK_AND_ASSIGN(const AdapterConfig config, ReadAdapterConfig(text));
  EXPECT_EQ(config.rank, 8);
  EXPECT_EQ(config.alpha, 16);
  EXPECT_EQ(config.base_model_name, "smol");
}

TEST(AdapterConfigTest, ReadsPlainLoraOnly) {
  for (const char* text :
       {"", "{}", R"({"peft_type": "LORA", "lora_alpha": 1})",
        R"({"peft_type": "LORA", "r": 0, "lora_alpha": 1})",
        R"({"peft_type": "IA3", "r": 8, "lora_alpha": 1})",
        R"({"peft_type": "LORA", "r": 8, "lora_alpha": 1, "use_dora": true})",
        R"({"peft_type": "LORA", "r": 8, "lora_alpha": 1, "use_rslora": true})"}) {
    EXPECT_THAT(ReadAdapterConfig(text),
                StatusIs(absl::StatusCode::kInvalidArgument, "ADAPTER_CONFIG_INVALID"))
        << text;
  }
}

TEST(ModelCardTest, ShowsTheCurveAndEscapesNames) {
  ModelCard card;
  card.job = "tenants/a/fineTuningJobs/b";
  card.display_name = "<script>\n# x](y)";
  card.base_model_name = "quote\"d";
  card.base_digest = "sha256:aa";
  card.evaluations = {{10, 1.5, 2.25}, {20, 1.0, std::nullopt}};
  const std::string text = WriteModelCard(card);
  EXPECT_THAT(text, HasSubstr("base_model: \"quote\\\"d\"\n"));
  EXPECT_THAT(text, HasSubstr("| 10 | 1.5000 | 2.2500 |\n"));
  EXPECT_THAT(text, HasSubstr("| 20 | 1.0000 | |\n"));
  EXPECT_THAT(text, HasSubstr("`sha256:aa`"));
  EXPECT_THAT(text, Not(HasSubstr("<script>")));
  EXPECT_THAT(text, HasSubstr("# \\<script\\> \\# x\\]\\(y\\)\n"));
  EXPECT_THAT(text, HasSubstr("It is not certified"));
  card.evaluations = {{10, 1.5, std::nullopt}};
  EXPECT_THAT(WriteModelCard(card), Not(HasSubstr("validation")));
  card.certified = true;
  EXPECT_THAT(WriteModelCard(card), Not(HasSubstr("not certified")));
  EXPECT_THAT(WriteModelCard(card), Not(HasSubstr("without the service's protection")));
  EXPECT_THAT(WriteModelCard(card), HasSubstr("ciphers and triggers are not covered"));
  EXPECT_THAT(WriteModelCard(card), HasSubstr("The protection is no part of these files"));
  card.safety_rows = 7;
  EXPECT_THAT(WriteModelCard(card), HasSubstr("Nothing else of the protection is part of these"));
  card.unprotected = true;
  EXPECT_THAT(WriteModelCard(card), HasSubstr("without the service's protection"));
  EXPECT_THAT(WriteModelCard(card), Not(HasSubstr("was measured")));
}

}  // namespace
}  // namespace ballast::artifact
