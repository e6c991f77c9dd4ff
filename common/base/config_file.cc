// SPDX-License-Identifier: Apache-2.0
#include "common/base/config_file.h"

#include <cstdint>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "google/protobuf/descriptor.h"
#include "yaml-cpp/yaml.h"

namespace ballast {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Fills a message from YAML nodes. yaml-cpp throws only in ParseConfig's try block, where it is
// caught.
class Reader {
 public:
  explicit Reader(std::string_view origin) : origin_(origin) {}

  absl::Status ReadMessage(const YAML::Node& node, const std::string& path,
                           Message* message) const {
    if (node.IsNull()) return absl::OkStatus();
    if (!node.IsMap()) return Error(node, absl::StrCat(Shown(path), " must be a mapping"));
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const auto key = entry.first.as<std::string>();
      const std::string key_path = path.empty() ? key : absl::StrCat(path, ".", key);
      const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(key);
      if (field == nullptr) {
        return Error(entry.first, absl::StrCat("unknown key ", key_path, "; known are ",
                                               KnownKeys(*message->GetDescriptor())));
      }
      if (!seen.insert(key).second) {
        return Error(entry.first, absl::StrCat(key_path, " is given twice; remove one"));
      }
      BALLAST_RETURN_IF_ERROR(ReadField(entry.second, key_path, field, message));
    }
    return absl::OkStatus();
  }

 private:
  static std::string Shown(const std::string& path) {
    return path.empty() ? "the configuration" : path;
  }

  static std::string KnownKeys(const Descriptor& descriptor) {
    std::string keys;
    for (int i = 0; i < descriptor.field_count(); ++i) {
      absl::StrAppend(&keys, i == 0 ? "" : ", ", descriptor.field(i)->name());
    }
    return keys;
  }

  absl::Status Error(const YAML::Node& node, const std::string& what) const {
    return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                     absl::StrCat(origin_, ":", node.Mark().line + 1, ": ", what),
                     {{"file", origin_}});
  }

  absl::Status ReadField(const YAML::Node& node, const std::string& path,
                         const FieldDescriptor* field, Message* message) const {
    if (node.IsNull()) return absl::OkStatus();
    const Reflection* reflection = message->GetReflection();
    if (!field->is_repeated()) {
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        return ReadMessage(node, path, reflection->MutableMessage(message, field));
      }
      return ReadScalar(node, path, field, message);
    }
    if (field->is_map()) return ReadMap(node, path, field, message);
    if (!node.IsSequence()) return Error(node, absl::StrCat(path, " must be a list"));
    for (size_t i = 0; i < node.size(); ++i) {
      const std::string item_path = absl::StrCat(path, "[", i, "]");
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        BALLAST_RETURN_IF_ERROR(
            ReadMessage(node[i], item_path, reflection->AddMessage(message, field)));
      } else {
        BALLAST_RETURN_IF_ERROR(ReadScalar(node[i], item_path, field, message));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadMap(const YAML::Node& node, const std::string& path,
                       const FieldDescriptor* field, Message* message) const {
    if (!node.IsMap()) return Error(node, absl::StrCat(path, " must be a mapping"));
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const auto key = entry.first.as<std::string>();
      const std::string key_path = absl::StrCat(path, ".", key);
      if (!seen.insert(key).second) {
        return Error(entry.first, absl::StrCat(key_path, " is given twice; remove one"));
      }
      Message* pair = message->GetReflection()->AddMessage(message, field);
      const Descriptor* types = field->message_type();
      BALLAST_RETURN_IF_ERROR(ReadScalar(entry.first, key_path, types->map_key(), pair));
      BALLAST_RETURN_IF_ERROR(ReadScalar(entry.second, key_path, types->map_value(), pair));
    }
    return absl::OkStatus();
  }

  absl::Status ReadScalar(const YAML::Node& node, const std::string& path,
                          const FieldDescriptor* field, Message* message) const {
    if (!node.IsScalar()) return Error(node, absl::StrCat(path, " must be a single value"));
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return Set(field, message, node.as<std::string>(), &Reflection::SetString,
                   &Reflection::AddString);
      case FieldDescriptor::CPPTYPE_BOOL:
        return Convert<bool>(node, path, "true or false", field, message, &Reflection::SetBool,
                             &Reflection::AddBool);
      case FieldDescriptor::CPPTYPE_INT32:
        return Convert<int32_t>(node, path, "a whole number of 32 bits", field, message,
                                &Reflection::SetInt32, &Reflection::AddInt32);
      case FieldDescriptor::CPPTYPE_INT64:
        return Convert<int64_t>(node, path, "a whole number", field, message, &Reflection::SetInt64,
                                &Reflection::AddInt64);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return Convert<double>(node, path, "a number", field, message, &Reflection::SetDouble,
                               &Reflection::AddDouble);
      case FieldDescriptor::CPPTYPE_ENUM:
        return ReadEnum(node, path, field, message);
      default:
        return Error(node, absl::StrCat(path, " has a type that YAML configuration cannot hold: ",
                                        field->cpp_type_name()));
    }
  }

  absl::Status ReadEnum(const YAML::Node& node, const std::string& path,
                        const FieldDescriptor* field, Message* message) const {
    const auto* value = field->enum_type()->FindValueByName(node.as<std::string>());
    if (value == nullptr) {
      std::string names;
      for (int i = 0; i < field->enum_type()->value_count(); ++i) {
        const auto* known = field->enum_type()->value(i);
        if (known->number() != 0) absl::StrAppend(&names, names.empty() ? "" : ", ", known->name());
      }
      return Error(node, absl::StrCat(path, " must be one of ", names));
    }
    const Reflection* reflection = message->GetReflection();
    if (field->is_repeated()) {
      reflection->AddEnum(message, field, value);
    } else {
      reflection->SetEnum(message, field, value);
    }
    return absl::OkStatus();
  }

  template <typename T, typename Setter, typename Adder>
  absl::Status Convert(const YAML::Node& node, const std::string& path, const char* wanted,
                       const FieldDescriptor* field, Message* message, Setter set,
                       Adder add) const {
    T value;
    if (!YAML::convert<T>::decode(node, value)) {
      return Error(node, absl::StrCat(path, " must be ", wanted));
    }
    return Set(field, message, value, set, add);
  }

  template <typename T, typename Setter, typename Adder>
  static absl::Status Set(const FieldDescriptor* field, Message* message, T value, Setter set,
                          Adder add) {
    const Reflection* reflection = message->GetReflection();
    if (field->is_repeated()) {
      (reflection->*add)(message, field, value);
    } else {
      (reflection->*set)(message, field, value);
    }
    return absl::OkStatus();
  }

  std::string origin_;
};

}  // namespace

absl::Status LoadConfigFile(const std::string& path, Message* message) {
  BALLAST_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path, int64_t{16} << 20));
  return ParseConfig(yaml, path, message);
}

absl::Status ParseConfig(std::string_view yaml, std::string_view origin, Message* message) {
  try {
    return Reader(origin).ReadMessage(YAML::Load(std::string(yaml)), "", message);
  } catch (const YAML::Exception& e) {
    return MakeError(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                     absl::StrCat(std::string(origin), ":", e.mark.line + 1,
                                  ": this is not valid YAML: ", e.msg),
                     {{"file", std::string(origin)}});
  }
}

}  // namespace ballast
