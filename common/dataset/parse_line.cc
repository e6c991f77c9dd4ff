// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/parse_line.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "simdjson.h"

namespace ballast::dataset {
namespace {

using Json = nlohmann::json;

// Deeper rows are no data set; the bound keeps recursion in the JSON library small.
constexpr int kMaxNesting = 32;

bool NestingIsBounded(std::string_view line) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting) return false;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return true;
}

// Reads the rows of one line. Every Read* returns false after it has recorded an error.
class RowReader {
 public:
  RowReader(int64_t line_number, ParsedLine& out) : line_(line_number), out_(out) {
    out_.row.line = line_number;
  }

  bool Error(std::string field, std::string reason, std::string message) {
    out_.issues.push_back({line_, std::move(field), std::move(reason), std::move(message), false});
    return false;
  }

  void WarnUnknownFields(const Json& object, const std::set<std::string>& known) {
    for (const auto& [key, value] : object.items()) {
      if (known.count(key) != 0) continue;
      // The key is the customer's text, so it is counted and not quoted.
      out_.issues.push_back({line_, "", "UNKNOWN_FIELD",
                             "the row has a field that this format does not use; it is ignored",
                             true});
      return;
    }
  }

  // The string at `key`, or nothing after an error. `required`: a missing one is an error, else "".
  std::optional<std::string> String(const Json& object, const std::string& key, bool required,
                                    const std::string& prefix = "") {
    const auto it = object.find(key);
    if (it == object.end() || (!required && it->is_null())) {
      if (!required) return "";
      Error(prefix + key, "MISSING_FIELD",
            absl::StrCat("the field \"", key, "\" is missing; add it"));
      return std::nullopt;
    }
    if (!it->is_string()) {
      Error(prefix + key, "WRONG_TYPE",
            absl::StrCat("\"", key, "\" is ", it->type_name(), "; write a string"));
      return std::nullopt;
    }
    return it->get<std::string>();
  }

  bool Add(std::string role, std::string content, const std::string& field,
           bool supervised = true) {
    if (absl::StripAsciiWhitespace(absl::string_view(content)).empty()) {
      return Error(field, "EMPTY_CONTENT", "the text is empty; fill it in or leave the row out");
    }
    out_.row.messages.push_back({std::move(role), std::move(content), supervised});
    fields_.push_back(field);
    return true;
  }

  // Checks of the whole conversation, whatever format it came in.
  bool CheckConversation() {
    const auto& messages = out_.row.messages;
    bool assistant = false, supervised = false, other = false;
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role == "system" && i != 0) {
        return Error(fields_[i], "ROLE_ORDER", "a system message stands only at the beginning");
      }
      if (messages[i].role == "assistant") {
        if (!other) {
          return Error(fields_[i], "ROLE_ORDER",
                       "the assistant speaks first; begin with a user message");
        }
        assistant = true;
        supervised = supervised || messages[i].supervised;
      } else if (messages[i].role != "system") {
        other = true;
      }
    }
    if (!assistant) {
      return Error("", "NO_ASSISTANT_TURN",
                   "the row has no assistant message, so there is nothing to learn from it");
    }
    if (!supervised) {
      return Error(
          "", "NO_SUPERVISED_TURN",
          "every assistant message has weight 0, so there is nothing to learn from the row");
    }
    return true;
  }

 private:
  int64_t line_;
  ParsedLine& out_;
  std::vector<std::string> fields_;  // of each message, for errors found later
};

bool ReadContent(const Json& message, const std::string& prefix, RowReader& reader,
                 std::string& content) {
  const auto it = message.find("content");
  const bool has_tool_calls = message.contains("tool_calls") || message.contains("function_call");
  if (has_tool_calls) {
    return reader.Error(
        prefix + "tool_calls", "TOOL_CALLS_UNSUPPORTED",
        "tool calls cannot be trained on yet; leave the row out or write the call as text");
  }
  if (it != message.end() && it->is_array()) {
    // The parts form: [{"type": "text", "text": "..."}].
    for (size_t i = 0; i < it->size(); ++i) {
      const Json& part = (*it)[i];
      const std::string field = absl::StrCat(prefix, "content[", i, "]");
      if (!part.is_object() || part.value("type", Json()) != "text") {
        return reader.Error(field, "WRONG_TYPE", "only parts of type \"text\" can be trained on");
      }
      const auto text = reader.String(part, "text", true, field + ".");
      if (!text.has_value()) return false;
      content += *text;
    }
    return true;
  }
  auto text = reader.String(message, "content", true, prefix);
  if (!text.has_value()) return false;
  content = *std::move(text);
  return true;
}

bool ReadOpenAiChat(const Json& row, RowReader& reader) {
  reader.WarnUnknownFields(row, {"messages"});
  const auto messages = row.find("messages");
  if (messages == row.end()) {
    return reader.Error("messages", "MISSING_FIELD", "the field \"messages\" is missing; add it");
  }
  if (!messages->is_array()) {
    return reader.Error("messages", "WRONG_TYPE",
                        absl::StrCat("\"messages\" is ", messages->type_name(), "; write a list"));
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    const std::string prefix = absl::StrCat("messages[", i, "].");
    if (!message.is_object()) {
      return reader.Error(
          absl::StrCat("messages[", i, "]"), "WRONG_TYPE",
          absl::StrCat("the message is ", message.type_name(), "; write an object"));
    }
    auto role = reader.String(message, "role", true, prefix);
    if (!role.has_value()) return false;
    if (*role == "developer") role = "system";
    if (*role != "system" && *role != "user" && *role != "assistant" && *role != "tool") {
      return reader.Error(prefix + "role", "UNKNOWN_ROLE",
                          "the role is none of system, developer, user, assistant, tool");
    }
    bool supervised = true;
    if (const auto weight = message.find("weight"); weight != message.end() && !weight->is_null()) {
      if (*role != "assistant" || !weight->is_number() || (*weight != 0 && *weight != 1)) {
        return reader.Error(prefix + "weight", "WEIGHT_INVALID",
                            "weight must be 0 or 1, and stands only on assistant messages");
      }
      supervised = *weight == 1;
    }
    std::string content;
    if (!ReadContent(message, prefix, reader, content)) return false;
    if (!reader.Add(*std::move(role), std::move(content), prefix + "content", supervised))
      return false;
  }
  return true;
}

bool ReadPromptCompletion(const Json& row, RowReader& reader) {
  reader.WarnUnknownFields(row, {"prompt", "completion"});
  auto prompt = reader.String(row, "prompt", true);
  if (!prompt.has_value() || !reader.Add("user", *std::move(prompt), "prompt")) return false;
  auto completion = reader.String(row, "completion", true);
  return completion.has_value() && reader.Add("assistant", *std::move(completion), "completion");
}

bool ReadAlpaca(const Json& row, RowReader& reader) {
  reader.WarnUnknownFields(row, {"instruction", "input", "output", "system", "history"});
  auto system = reader.String(row, "system", false);
  if (!system.has_value()) return false;
  if (!system->empty() && !reader.Add("system", *std::move(system), "system")) return false;
  if (const auto history = row.find("history"); history != row.end() && !history->is_null()) {
    if (!history->is_array()) {
      return reader.Error("history", "WRONG_TYPE",
                          "\"history\" must be a list of [question, answer]");
    }
    for (size_t i = 0; i < history->size(); ++i) {
      const Json& pair = (*history)[i];
      const std::string field = absl::StrCat("history[", i, "]");
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
        return reader.Error(field, "WRONG_TYPE", "write [question, answer], two strings");
      }
      if (!reader.Add("user", pair[0].get<std::string>(), field + "[0]") ||
          !reader.Add("assistant", pair[1].get<std::string>(), field + "[1]")) {
        return false;
      }
    }
  }
  auto instruction = reader.String(row, "instruction", true);
  if (!instruction.has_value()) return false;
  auto input = reader.String(row, "input", false);
  if (!input.has_value()) return false;
  std::string user = *std::move(instruction);
  if (!input->empty()) absl::StrAppend(&user, "\n", *input);
  if (!reader.Add("user", std::move(user), "instruction")) return false;
  auto output = reader.String(row, "output", true);
  return output.has_value() && reader.Add("assistant", *std::move(output), "output");
}

bool ReadShareGpt(const Json& row, RowReader& reader) {
  static const std::map<std::string, std::string> kRoles = {{"human", "user"},
                                                            {"user", "user"},
                                                            {"gpt", "assistant"},
                                                            {"chatgpt", "assistant"},
                                                            {"bard", "assistant"},
                                                            {"assistant", "assistant"},
                                                            {"function_call", "assistant"},
                                                            {"system", "system"},
                                                            {"observation", "tool"},
                                                            {"tool", "tool"}};
  reader.WarnUnknownFields(row, {"conversations", "system", "id"});
  auto system = reader.String(row, "system", false);
  if (!system.has_value()) return false;
  if (!system->empty() && !reader.Add("system", *std::move(system), "system")) return false;
  const auto turns = row.find("conversations");
  if (turns == row.end() || !turns->is_array()) {
    return reader.Error("conversations", turns == row.end() ? "MISSING_FIELD" : "WRONG_TYPE",
                        "\"conversations\" must be a list of {\"from\", \"value\"}");
  }
  for (size_t i = 0; i < turns->size(); ++i) {
    const Json& turn = (*turns)[i];
    const std::string prefix = absl::StrCat("conversations[", i, "].");
    if (!turn.is_object()) {
      return reader.Error(absl::StrCat("conversations[", i, "]"), "WRONG_TYPE",
                          absl::StrCat("the turn is ", turn.type_name(), "; write an object"));
    }
    const auto from = reader.String(turn, "from", true, prefix);
    if (!from.has_value()) return false;
    const auto role = kRoles.find(*from);
    if (role == kRoles.end()) {
      return reader.Error(prefix + "from", "UNKNOWN_ROLE",
                          "\"from\" is none of human, gpt, system, observation, function_call");
    }
    auto value = reader.String(turn, "value", true, prefix);
    if (!value.has_value() || !reader.Add(role->second, *std::move(value), prefix + "value"))
      return false;
  }
  return true;
}

Format DetectFormat(const Json& row) {
  if (row.contains("messages")) return Format::kOpenAiChat;
  if (row.contains("conversations")) return Format::kShareGpt;
  if (row.contains("prompt") || row.contains("completion")) return Format::kPromptCompletion;
  if (row.contains("instruction") || row.contains("output")) return Format::kAlpaca;
  return Format::kAuto;
}

// Parses JSON and finds a key that stands twice in one object, which nlohmann would resolve
// silently.
Json ParseJson(std::string_view line, bool& duplicate_key) {
  std::vector<std::set<std::string>> keys;
  const Json::parser_callback_t callback = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      duplicate_key = !keys.back().insert(parsed.get<std::string>()).second || duplicate_key;
    }
    return true;
  };
  return Json::parse(line.begin(), line.end(), callback, /*allow_exceptions=*/false);
}

bool ReadLine(std::string_view line, Format format, RowReader& reader) {
  if (!simdjson::validate_utf8(line.data(), line.size())) {
    return reader.Error("", "INVALID_UTF8", "the line is not valid UTF-8; save the file as UTF-8");
  }
  if (!NestingIsBounded(line)) {
    return reader.Error("", "NESTING_TOO_DEEP",
                        absl::StrCat("the line is nested deeper than ", kMaxNesting, " levels"));
  }
  bool duplicate_key = false;
  const Json row = ParseJson(line, duplicate_key);
  if (row.is_discarded()) {
    return reader.Error("", "INVALID_JSON",
                        "the line is not valid JSON; write one JSON object per line");
  }
  if (duplicate_key) {
    return reader.Error("", "DUPLICATE_KEY", "an object has the same key twice; remove one");
  }
  if (!row.is_object()) {
    return reader.Error("", "NOT_AN_OBJECT",
                        absl::StrCat("the line is a JSON ", row.type_name(), "; write an object"));
  }
  if (format == Format::kAuto) format = DetectFormat(row);
  bool read = false;
  switch (format) {
    case Format::kOpenAiChat:
      read = ReadOpenAiChat(row, reader);
      break;
    case Format::kPromptCompletion:
      read = ReadPromptCompletion(row, reader);
      break;
    case Format::kAlpaca:
      read = ReadAlpaca(row, reader);
      break;
    case Format::kShareGpt:
      read = ReadShareGpt(row, reader);
      break;
    case Format::kAuto:
      return reader.Error("", "UNKNOWN_FORMAT",
                          "the row has none of \"messages\", \"prompt\", \"instruction\", "
                          "\"conversations\"; see docs/datasets.md for the formats");
  }
  return read && reader.CheckConversation();
}

}  // namespace

bool ParsedLine::valid() const {
  return std::all_of(issues.begin(), issues.end(),
                     [](const Issue& issue) { return issue.warning; });
}

ParsedLine ParseLine(std::string_view line, int64_t line_number, Format format) {
  ParsedLine parsed;
  RowReader reader(line_number, parsed);
  ReadLine(line, format, reader);
  return parsed;
}

}  // namespace ballast::dataset
