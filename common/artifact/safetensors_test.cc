// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/safetensors.h"

#include <chrono>
#include <random>
#include <string>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace ballast::artifact {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string File(uint64_t header_bytes, const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header_bytes >> (8 * i) & 0xff));
  return file + header + data;
}

std::string File(const std::string& header, const std::string& data) {
  return File(header.size(), header, data);
}

std::string Sample() {
  return WriteSafetensors({{"b", DType::kBF16, {2, 3}, std::string_view("abcdefghijkl")},
                           {"a", DType::kF32, {1}, std::string_view("wxyz")},
                           {"empty", DType::kI64, {0, 7}, {}},
                           {"scalar", DType::kU8, {}, std::string_view("!")}},
                          {{"format", "pt"}, {"note", "\"q\"\n"}});
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  const std::string file = Sample();
  ASSERT_OK_AND_ASSIGN(SafetensorsView view, ParseSafetensors(file));
  ASSERT_EQ(view.tensors.size(), 4u);
  EXPECT_EQ(view.tensors.at("b").dtype, DType::kBF16);
  EXPECT_THAT(view.tensors.at("b").shape, ElementsAre(2, 3));
  EXPECT_EQ(view.tensors.at("b").bytes, "abcdefghijkl");
  EXPECT_EQ(view.tensors.at("a").bytes, "wxyz");
  EXPECT_EQ(view.tensors.at("empty").bytes, "");
  EXPECT_TRUE(view.tensors.at("scalar").shape.empty());
  EXPECT_EQ(view.metadata.at("format"), "pt");
  EXPECT_EQ(view.metadata.at("note"), "\"q\"\n");
}

TEST(SafetensorsTest, WritesTheDocumentedBytes) {
  const std::string file =
      WriteSafetensors({{"w", DType::kF32, {1, 1}, std::string_view("wxyz")}}, {});
  const std::string header = R"({"w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}})";
  EXPECT_EQ(file, File((header.size() + 7) / 8 * 8,
                       header + std::string((8 - header.size() % 8) % 8, ' '), "wxyz"));
}

TEST(SafetensorsTest, TensorsBeginAtAMultipleOfEight) {
  for (int length = 1; length < 20; ++length) {
    const std::string file =
        WriteSafetensors({{std::string(length, 'n'), DType::kU8, {1}, std::string_view("!")}}, {});
    EXPECT_EQ((file.size() - 1) % 8, 0u);
    EXPECT_OK(ParseSafetensors(file));
  }
}

TEST(SafetensorsTest, SizeAndWriteToAgreeWithWrite) {
  const std::vector<TensorToWrite> tensors = {{"x", DType::kI16, {2}, std::string_view("1234")}};
  const std::string file = WriteSafetensors(tensors, {{"k", "v"}});
  ASSERT_EQ(SafetensorsSize(tensors, {{"k", "v"}}), file.size());
  std::string buffer(file.size() + 1, '#');
  WriteSafetensorsTo(tensors, {{"k", "v"}}, buffer.data());
  EXPECT_EQ(buffer, file + "#");
}

TEST(SafetensorsTest, NoTensorsAtAllIsValid) {
  EXPECT_OK(ParseSafetensors(WriteSafetensors({}, {})));
}

struct Hostile {
  const char* what;
  std::string file;
  const char* reason;
};

class HostileSafetensorsTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensorsTest, IsRefusedWithItsReason) {
  EXPECT_THAT(ParseSafetensors(GetParam().file), StatusIs(kInvalid, GetParam().reason));
}

std::string Tensor(const std::string& fields) { return "{\"t\":{" + fields + "}}"; }

std::string Deep(int depth) {
  return "{\"t\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileSafetensorsTest,
    ::testing::Values(
        Hostile{"Empty", "", "SAFETENSORS_TRUNCATED"},
        Hostile{"SevenBytes", "1234567", "SAFETENSORS_TRUNCATED"},
        Hostile{"HeaderLargerThanFile", File(1000, "{}", ""), "SAFETENSORS_TRUNCATED"},
        Hostile{"HeaderOneByteShort", File(3, "{}", ""), "SAFETENSORS_TRUNCATED"},
        Hostile{"HeaderHuge", File(~uint64_t{0}, "{}", ""), "SAFETENSORS_HEADER_TOO_LARGE"},
        Hostile{"HeaderOverLimit", File(100'000'001, "{}", ""), "SAFETENSORS_HEADER_TOO_LARGE"},
        Hostile{"HeaderEmpty", File("", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderNotJson", File("{oops", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderArray", File("[]", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderBom", File("\xEF\xBB\xBF{}", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderTrailing", File("{}{}", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderBadUtf8", File("{\"\xff\":{}}", ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"HeaderDeep", File(Deep(2'000'000), ""), "SAFETENSORS_HEADER_INVALID"},
        Hostile{"ManyDimensions",
                File(Tensor("\"dtype\":\"U8\",\"shape\":[" +
                            [] {
                              std::string ones = "1";
                              for (int i = 0; i < 100; ++i) ones += ",1";
                              return ones;
                            }() +
                            "],\"data_offsets\":[0,1]"),
                     "x"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"NoDType", File(Tensor(R"("shape":[1],"data_offsets":[0,4])"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"NoOffsets", File(Tensor(R"("shape":[1],"dtype":"F32")"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"UnknownField",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"x":"y")"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"ThreeOffsets",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"OneOffset",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4])"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"NegativeDimension",
                File(Tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"FloatDimension",
                File(Tensor(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "wxyz"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"DuplicateName",
                File(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                     R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                     "ab"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"DuplicateField",
                File(Tensor(R"("dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1])"), "a"),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"MetadataNotText", File(R"({"__metadata__":{"a":1}})", ""),
                "SAFETENSORS_HEADER_INVALID"},
        Hostile{"UnknownDType",
                File(Tensor(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])"), "wxyz"),
                "SAFETENSORS_DTYPE_UNKNOWN"},
        Hostile{"ShapeTooSmall",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), "wxyzwxyz"),
                "SAFETENSORS_SHAPE_MISMATCH"},
        Hostile{"ShapeTooLarge",
                File(Tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "wxyz"),
                "SAFETENSORS_SHAPE_MISMATCH"},
        Hostile{
            "ShapeProductWrapsToSize",
            // 2^62 x 4 bytes wraps to 0 in 64 bits.
            File(Tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"), ""),
            "SAFETENSORS_SHAPE_MISMATCH"},
        Hostile{"ShapeProductWrapsInSteps",
                File(Tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
                     ""),
                "SAFETENSORS_SHAPE_MISMATCH"},
        Hostile{
            "DimensionAboveInt64",
            File(Tensor(R"("dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0])"),
                 ""),
            "SAFETENSORS_SHAPE_MISMATCH"},
        Hostile{"EndBeyondFile",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "wxy"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"BeginAfterEnd",
                File(Tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "wxyz"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{
            "OffsetsWrap",
            File(
                Tensor(
                    R"("dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551615])"),
                "x"),
            "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"Overlap",
                File(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                     R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                     "abc"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"SameBytesTwice",
                File(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                     R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                     "ab"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"Hole",
                File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                     R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                     "abc"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"HoleAtStart",
                File(Tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), "ab"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"TrailingBytes",
                File(Tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), "ab"),
                "SAFETENSORS_OFFSETS_INVALID"},
        Hostile{"BytesWithoutTensors", File("{}", "ab"), "SAFETENSORS_OFFSETS_INVALID"}),
    [](const auto& info) { return std::string(info.param.what); });

TEST(SafetensorsTest, TheMessageNamesTheTensorWithoutControlCharacters) {
  const auto result = ParseSafetensors(
      File(R"({"we\u0007ird":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "wxyz"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("we?ird"));
}

TEST(SafetensorsTest, ALongNameIsCutBetweenCharacters) {
  const std::string start(199, 'n');
  const auto result =
      ParseSafetensors(File("{\"" + start +
                                "\xC3\xA9\":"
                                R"({"dtype":"F8","shape":[1],"data_offsets":[0,1]}})",
                            "x"));
  EXPECT_THAT(result, StatusIs(kInvalid, "SAFETENSORS_DTYPE_UNKNOWN"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("tensor " + start + ": "));
}

TEST(SafetensorsTest, MutationsNeverCrashAndNeverYieldBytesOutsideOfTheFile) {
  std::mt19937 random(7);
  const std::string sample = Sample();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  int tried = 0, accepted = 0;
  while (std::chrono::steady_clock::now() < end && tried < 50'000) {
    std::string file = sample;
    for (int change = 1 + static_cast<int>(random() % 3); change > 0; --change) {
      const size_t at = random() % file.size();
      switch (random() % 3) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file.erase(at, 1 + random() % 4);
          break;
        default:
          file.insert(at, 1, "0129[]{}\",:"[random() % 11]);
          break;
      }
      if (file.empty()) file = "x";
    }
    ++tried;
    const auto view = ParseSafetensors(file);
    if (!view.ok()) continue;
    ++accepted;
    for (const auto& [name, tensor] : view->tensors) {
      if (tensor.bytes.empty()) continue;
      ASSERT_GE(tensor.bytes.data(), file.data());
      ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), file.data() + file.size());
    }
  }
  // A change of tensor bytes or of a name is still a valid file.
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, tried);
}

}  // namespace
}  // namespace ballast::artifact
