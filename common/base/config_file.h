// SPDX-License-Identifier: Apache-2.0
// Configuration of a program: a YAML file read into a protobuf message.
#ifndef BALLAST_COMMON_BASE_CONFIG_FILE_H_
#define BALLAST_COMMON_BASE_CONFIG_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace ballast {

// Reads the YAML file `path` into `message` by its field names (as in the proto file: snake_case).
// Mappings are messages, sequences are repeated fields, enums are written by name, null is the
// default. Failures name file, line and key:
//   FILE_NOT_FOUND, FILE_PERMISSION_DENIED, FILE_TOO_LARGE  the file cannot be read
//   CONFIG_INVALID (INVALID_ARGUMENT)   no YAML, an unknown or repeated key (the known ones are
//   listed),
//                                       or a value of the wrong type; `message` is then unspecified
absl::Status LoadConfigFile(const std::string& path, google::protobuf::Message* message);

// The same for YAML text; `origin` stands for the file's name in messages.
absl::Status ParseConfig(std::string_view yaml, std::string_view origin,
                         google::protobuf::Message* message);

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_CONFIG_FILE_H_
