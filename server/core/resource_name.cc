// SPDX-License-Identifier: Apache-2.0
#include "server/core/resource_name.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::server {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Matches `name` against `pattern`, whose parts in braces are ids; returns the ids.
absl::StatusOr<std::vector<std::string>> Match(std::string_view name, std::string_view pattern,
                                               std::string_view field) {
  const std::vector<std::string> parts = absl::StrSplit(View(name), '/');
  const std::vector<std::string> wanted = absl::StrSplit(View(pattern), '/');
  std::vector<std::string> ids;
  bool matches = parts.size() == wanted.size();
  for (size_t i = 0; matches && i < parts.size(); ++i) {
    if (wanted[i].front() == '{') {
      matches = IsResourceId(parts[i]);
      ids.push_back(parts[i]);
    } else {
      matches = parts[i] == wanted[i];
    }
  }
  if (!matches) {
    return FieldError(field, "NAME_INVALID",
                      absl::StrCat(View(field), " must be of the form ", View(pattern),
                                   ", ids being lower-case letters, digits, \"-\" and \".\""));
  }
  return ids;
}

absl::StatusOr<std::string> MatchOne(std::string_view name, std::string_view pattern,
                                     std::string_view field) {
  BALLAST_ASSIGN_OR_RETURN(auto ids, Match(name, pattern, field));
  return std::move(ids[0]);
}

absl::StatusOr<TenantName> MatchTwo(std::string_view name, std::string_view pattern,
                                    std::string_view field) {
  BALLAST_ASSIGN_OR_RETURN(auto ids, Match(name, pattern, field));
  return TenantName{std::move(ids[0]), std::move(ids[1])};
}

}  // namespace

bool IsResourceId(std::string_view id) {
  if (id.empty() || id.size() > 63 || id.front() == '.') return false;
  for (const char c : id) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    if (!ok) return false;
  }
  return true;
}

absl::StatusOr<std::string> ParseBaseModelName(std::string_view name, std::string_view field) {
  return MatchOne(name, "baseModels/{base_model}", field);
}
absl::StatusOr<std::string> ParseGateName(std::string_view name, std::string_view field) {
  return MatchOne(name, "baseModels/{base_model}/gate", field);
}
absl::StatusOr<std::string> ParseSafetyRowsName(std::string_view name, std::string_view field) {
  return MatchOne(name, "baseModels/{base_model}/safetyRows", field);
}
absl::StatusOr<std::string> ParseScreenName(std::string_view name, std::string_view field) {
  return MatchOne(name, "baseModels/{base_model}/screen", field);
}
absl::StatusOr<std::string> ParseVectorName(std::string_view name, std::string_view field) {
  return MatchOne(name, "vectors/{vector}", field);
}
absl::StatusOr<std::string> ParseTenantName(std::string_view name, std::string_view field) {
  return MatchOne(name, "tenants/{tenant}", field);
}
absl::StatusOr<TenantName> ParseDatasetName(std::string_view name, std::string_view field) {
  return MatchTwo(name, "tenants/{tenant}/datasets/{dataset}", field);
}
absl::StatusOr<TenantName> ParseJobName(std::string_view name, std::string_view field) {
  return MatchTwo(name, "tenants/{tenant}/fineTuningJobs/{fine_tuning_job}", field);
}
absl::StatusOr<TenantName> ParseDeltaName(std::string_view name, std::string_view field) {
  return MatchTwo(name, "tenants/{tenant}/fineTuningJobs/{fine_tuning_job}/delta", field);
}

std::string BaseModelName(std::string_view id) { return absl::StrCat("baseModels/", View(id)); }
std::string GateName(std::string_view base_model_id) {
  return absl::StrCat(BaseModelName(base_model_id), "/gate");
}
std::string SafetyRowsName(std::string_view base_model_id) {
  return absl::StrCat(BaseModelName(base_model_id), "/safetyRows");
}
std::string ScreenName(std::string_view base_model_id) {
  return absl::StrCat(BaseModelName(base_model_id), "/screen");
}
std::string VectorName(std::string_view id) { return absl::StrCat("vectors/", View(id)); }
std::string WorkerName(std::string_view id) { return absl::StrCat("workers/", View(id)); }
std::string DatasetName(std::string_view tenant, std::string_view id) {
  return absl::StrCat("tenants/", View(tenant), "/datasets/", View(id));
}
std::string JobName(std::string_view tenant, std::string_view id) {
  return absl::StrCat("tenants/", View(tenant), "/fineTuningJobs/", View(id));
}
std::string DeltaName(std::string_view tenant, std::string_view id) {
  return absl::StrCat(JobName(tenant, id), "/delta");
}

}  // namespace ballast::server
