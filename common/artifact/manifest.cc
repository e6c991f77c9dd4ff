// SPDX-License-Identifier: Apache-2.0
#include "common/artifact/manifest.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ballast::artifact {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr int kSchemaVersion = 1;
constexpr int64_t kMaxManifestBytes = 1 << 20;

absl::Status Invalid(std::string_view problem) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MANIFEST_INVALID",
                   absl::StrCat("manifest.json: ", std::string(problem)));
}

absl::Status CheckFiles(const std::vector<ManifestFile>& files) {
  std::set<std::string> seen;
  for (const ManifestFile& file : files) {
    if (!IsSafePath(file.path))
      return Invalid("a file's path is not a plain path inside the folder");
    if (file.path == kManifestName || file.path == kSignatureName) {
      return Invalid(absl::StrCat(file.path, " cannot be listed"));
    }
    if (!seen.insert(file.path).second) return Invalid(absl::StrCat(file.path, " is listed twice"));
    if (!IsDigest(file.digest))
      return Invalid(absl::StrCat("the digest of ", file.path, " is none"));
    if (file.size_bytes < 0)
      return Invalid(absl::StrCat("the size of ", file.path, " is negative"));
  }
  return absl::OkStatus();
}

std::string Text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

const Json& Object(const Json& json, const char* key) {
  static const Json& empty = *new Json(Json::object());
  const auto found = json.find(key);
  return found != json.end() && found->is_object() ? *found : empty;
}

// Everything in the folder that is not a folder, by relative path; true where it is a regular file.
absl::StatusOr<std::map<std::string, bool>> ListFolder(const std::string& directory) {
  std::map<std::string, bool> found;
  std::error_code error;
  fs::recursive_directory_iterator it(directory, error), end;
  for (; !error && it != end; it.increment(error)) {
    std::error_code entry_error;
    const fs::file_status status = it->symlink_status(entry_error);
    if (fs::is_directory(status)) continue;
    found[fs::path(it->path()).lexically_relative(directory).generic_string()] =
        fs::is_regular_file(status);
  }
  if (error) return FileError(error.value(), "list", directory);
  return found;
}

}  // namespace

bool IsSafePath(std::string_view path) {
  if (path.empty() || path.size() > 255) return false;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(path.data(), path.size()), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
    for (const char c : part) {
      if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') {
        return false;
      }
    }
  }
  return true;
}

absl::StatusOr<std::string> WriteManifest(Manifest manifest) {
  BALLAST_RETURN_IF_ERROR(CheckFiles(manifest.files));
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.path < b.path; });
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) {
    files.push_back(
        {{"digest", file.digest}, {"path", file.path}, {"size_bytes", file.size_bytes}});
  }
  Json json = {
      {"base_model", {{"digest", manifest.base_digest}, {"name", manifest.base_model}}},
      {"code_version", manifest.code_version},
      {"config_digest", manifest.config_digest},
      {"create_time", manifest.create_time},
      {"files", std::move(files)},
      {"job", {{"attempt", manifest.attempt}, {"name", manifest.job}}},
      {"protected", manifest.unprotected ? "no" : "yes"},
      {"protection", {{"certified", manifest.certified ? "yes" : "no"}}},
      {"protection_handle", manifest.protection_handle},
      {"schema_version", kSchemaVersion},
      {"template_digest", manifest.template_digest},
      {"tokenizer_digest", manifest.tokenizer_digest},
      {"training_dataset_digest", manifest.training_dataset_digest},
  };
  if (!manifest.validation_dataset_digest.empty()) {
    json["validation_dataset_digest"] = manifest.validation_dataset_digest;
  }
  if (!manifest.safety_rows_digest.empty()) {
    json["protection"]["safety_rows"] = {{"digest", manifest.safety_rows_digest},
                                         {"share", manifest.safety_row_share}};
  }
  if (!manifest.screen_digest.empty()) {
    json["protection"]["screen"] = {{"digest", manifest.screen_digest},
                                    {"rows_left_out", manifest.screen_rows_left_out}};
  }
  if (!manifest.gate.empty()) json["gate"] = manifest.gate;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Manifest> ReadManifest(std::string_view bytes) {
  const Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Invalid("it is not a JSON object");
  if (json.value("schema_version", Json()) != kSchemaVersion) {
    return Invalid("this program does not know its schema_version; use a newer one");
  }
  const auto files = json.find("files");
  if (files == json.end() || !files->is_array()) return Invalid("it lists no files");
  Manifest manifest;
  for (const Json& file : *files) {
    const auto size = file.is_object() ? file.find("size_bytes") : file.end();
    if (!file.is_object() || size == file.end() || !size->is_number_integer()) {
      return Invalid("an entry of files has no size");
    }
    manifest.files.push_back({Text(file, "path"), size->get<int64_t>(), Text(file, "digest")});
  }
  BALLAST_RETURN_IF_ERROR(CheckFiles(manifest.files));
  const Json& job = Object(json, "job");
  manifest.job = Text(job, "name");
  const auto attempt = job.find("attempt");
  if (attempt != job.end() && attempt->is_number_integer()) manifest.attempt = attempt->get<int>();
  const Json& base = Object(json, "base_model");
  manifest.base_model = Text(base, "name");
  manifest.base_digest = Text(base, "digest");
  manifest.training_dataset_digest = Text(json, "training_dataset_digest");
  manifest.validation_dataset_digest = Text(json, "validation_dataset_digest");
  manifest.config_digest = Text(json, "config_digest");
  manifest.tokenizer_digest = Text(json, "tokenizer_digest");
  manifest.template_digest = Text(json, "template_digest");
  manifest.code_version = Text(json, "code_version");
  manifest.create_time = Text(json, "create_time");
  manifest.unprotected = Text(json, "protected") == "no";
  manifest.protection_handle = Text(json, "protection_handle");
  manifest.certified = Text(Object(json, "protection"), "certified") == "yes";
  const Json& safety_rows = Object(Object(json, "protection"), "safety_rows");
  manifest.safety_rows_digest = Text(safety_rows, "digest");
  const auto share = safety_rows.find("share");
  if (share != safety_rows.end() && share->is_number()) {
    manifest.safety_row_share = share->get<double>();
  }
  const Json& screen = Object(Object(json, "protection"), "screen");
  manifest.screen_digest = Text(screen, "digest");
  const auto left_out = screen.find("rows_left_out");
  if (left_out != screen.end() && left_out->is_number_integer()) {
    manifest.screen_rows_left_out = left_out->get<int64_t>();
  }
  manifest.gate = Text(json, "gate");
  return manifest;
}

absl::StatusOr<VerifyResult> VerifyFolder(const std::string& directory) {
  BALLAST_ASSIGN_OR_RETURN(auto found, ListFolder(directory));
  const auto manifest_file = found.find(kManifestName);
  if (manifest_file == found.end() || !manifest_file->second) {
    return MakeError(
        absl::StatusCode::kNotFound, "ARTIFACT_FILE_MISSING",
        absl::StrCat(directory, " has no manifest.json; give the folder of a downloaded delta"));
  }
  BALLAST_ASSIGN_OR_RETURN(const std::string bytes,
                           ReadFile(directory + "/" + kManifestName, kMaxManifestBytes));
  VerifyResult result;
  result.manifest_digest = DigestOf(bytes);
  BALLAST_ASSIGN_OR_RETURN(result.manifest, ReadManifest(bytes));
  found.erase(kManifestName);
  if (const auto signature = found.find(kSignatureName);
      signature != found.end() && signature->second) {
    found.erase(signature);
  }
  for (const ManifestFile& file : result.manifest.files) {
    const auto on_disk = found.find(file.path);
    if (on_disk == found.end()) {
      result.problems.push_back(
          {"ARTIFACT_FILE_MISSING", file.path, "the manifest lists it, the folder lacks it"});
      continue;
    }
    const bool regular = on_disk->second;
    found.erase(on_disk);
    if (!regular) {
      result.problems.push_back(
          {"ARTIFACT_FILE_CHANGED", file.path, "it is a link or no regular file"});
      continue;
    }
    const std::string path = directory + "/" + file.path;
    BALLAST_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
    if (size != file.size_bytes) {
      result.problems.push_back({"ARTIFACT_FILE_CHANGED", file.path,
                                 absl::StrCat("it has ", size, " bytes, not ", file.size_bytes)});
      continue;
    }
    BALLAST_ASSIGN_OR_RETURN(const std::string digest, DigestOfFile(path));
    if (digest != file.digest) {
      result.problems.push_back({"ARTIFACT_FILE_CHANGED", file.path, "its SHA-256 is another"});
    }
  }
  for (const auto& [path, regular] : found) {
    result.problems.push_back({"ARTIFACT_FILE_UNEXPECTED", path, "the manifest does not list it"});
  }
  return result;
}

}  // namespace ballast::artifact
