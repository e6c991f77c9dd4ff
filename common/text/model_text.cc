// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace ballast::text {
namespace {

using Json = nlohmann::json;

constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kTokenizerConfig[] = "tokenizer_config.json";
constexpr char kSpecialTokens[] = "special_tokens_map.json";
constexpr char kTemplate[] = "chat_template.jinja";
constexpr char kGenerationConfig[] = "generation_config.json";
constexpr char kConfig[] = "config.json";
constexpr const char* kFiles[] = {kTokenizer, kTokenizerConfig,  kSpecialTokens,
                                  kTemplate,  kGenerationConfig, kConfig};

// The parser of nlohmann-json keeps its own stack, yet destroying a tree calls itself; no such file
// is deeper than a few levels.
constexpr int kMaxDepth = 64;

absl::Status Bad(std::string_view file, std::string_view what) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "MODEL_TEXT_INVALID",
      absl::StrCat(absl::string_view(file.data(), file.size()), ": ",
                   absl::string_view(what.data(), what.size()), "; download the model again"),
      {{"file", std::string(file)}});
}

// The object in `file`, or null where the model has no such file.
absl::StatusOr<Json> ReadObject(const std::map<std::string, std::string>& files,
                                const std::string& file) {
  const auto it = files.find(file);
  if (it == files.end()) return Json();
  bool too_deep = false;
  const auto limit = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json json = Json::parse(it->second, limit, /*allow_exceptions=*/false);
  if (too_deep || !json.is_object()) return Bad(file, "is not a JSON object");
  return json;
}

// A token is written as a string, or as an added token with its "content".
std::string TokenString(const Json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto it = object.find(key);
  if (it == object.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object()) {
    const auto content = it->find("content");
    if (content != it->end() && content->is_string()) return content->get<std::string>();
  }
  return "";
}

// "chat_template" is a string, or a list of {"name", "template"} of which "default" is used.
std::string TemplateSource(const Json& config) {
  if (!config.is_object()) return "";
  const auto it = config.find("chat_template");
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return "";
  for (const Json& entry : *it) {
    if (entry.is_object() && TokenString(entry, "name") == "default") {
      return TokenString(entry, "template");
    }
  }
  return "";
}

absl::Status AddEndTokens(const Json& config, const std::string& file, int64_t vocabulary,
                          std::vector<int32_t>& ids) {
  if (!config.is_object()) return absl::OkStatus();
  const auto it = config.find("eos_token_id");
  if (it == config.end() || it->is_null()) return absl::OkStatus();
  for (const Json& id : it->is_array() ? *it : Json::array({*it})) {
    if (!id.is_number_integer()) return Bad(file, "eos_token_id is not a number or a list of them");
    const int64_t value =
        id.is_number_unsigned() && id.get<uint64_t>() > INT32_MAX ? int64_t{-1} : id.get<int64_t>();
    // Embeddings may be padded beyond the tokenizer's vocabulary; an id of theirs is still wrong
    // here.
    if (value < 0 || value >= vocabulary) return Bad(file, "eos_token_id is not in the vocabulary");
    ids.push_back(static_cast<int32_t>(value));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelText> ModelText::FromFiles(const std::map<std::string, std::string>& files) {
  const auto tokenizer_json = files.find(kTokenizer);
  if (tokenizer_json == files.end()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZER_MISSING",
                     "the model has no tokenizer.json; save it with a fast tokenizer");
  }
  ModelText result;
  BALLAST_ASSIGN_OR_RETURN(result.tokenizer, Tokenizer::FromJson(tokenizer_json->second));
  result.tokenizer_digest = DigestOf(tokenizer_json->second);

  BALLAST_ASSIGN_OR_RETURN(const Json tokenizer_config, ReadObject(files, kTokenizerConfig));
  BALLAST_ASSIGN_OR_RETURN(const Json special_tokens, ReadObject(files, kSpecialTokens));
  auto token = [&](const char* key) {
    const std::string from_config = TokenString(tokenizer_config, key);
    return from_config.empty() ? TokenString(special_tokens, key) : from_config;
  };
  const std::string eos = token("eos_token");

  // The file beside the configuration wins, as in transformers.
  const auto template_file = files.find(kTemplate);
  const std::string source =
      template_file != files.end() ? template_file->second : TemplateSource(tokenizer_config);
  if (source.empty()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "TEMPLATE_MISSING",
        "the model has no chat template; add chat_template.jinja, or take a model that "
        "was tuned for chat");
  }
  BALLAST_ASSIGN_OR_RETURN(result.chat_template,
                           ChatTemplate::FromSource(source, token("bos_token"), eos));
  result.template_digest = DigestOf(source);

  const int64_t vocabulary = result.tokenizer->VocabularySize();
  BALLAST_ASSIGN_OR_RETURN(const Json generation_config, ReadObject(files, kGenerationConfig));
  BALLAST_RETURN_IF_ERROR(
      AddEndTokens(generation_config, kGenerationConfig, vocabulary, result.end_tokens));
  if (result.end_tokens.empty()) {
    BALLAST_ASSIGN_OR_RETURN(const Json config, ReadObject(files, kConfig));
    BALLAST_RETURN_IF_ERROR(AddEndTokens(config, kConfig, vocabulary, result.end_tokens));
  }
  // The tokenizer's own end ends a reply too, whatever the configurations list.
  if (const auto id = eos.empty() ? std::nullopt : result.tokenizer->TokenToId(eos)) {
    result.end_tokens.push_back(*id);
  }
  std::sort(result.end_tokens.begin(), result.end_tokens.end());
  result.end_tokens.erase(std::unique(result.end_tokens.begin(), result.end_tokens.end()),
                          result.end_tokens.end());
  return result;
}

absl::StatusOr<ModelText> ModelText::FromFolder(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const char* name : kFiles) {
    const std::string path = absl::StrCat(folder, "/", name);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    BALLAST_ASSIGN_OR_RETURN(files[name], ReadFile(path));
  }
  return FromFiles(files);
}

}  // namespace ballast::text
