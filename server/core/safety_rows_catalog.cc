// SPDX-License-Identifier: Apache-2.0
#include "server/core/safety_rows_catalog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/blob_hold.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::SafetyRows;

constexpr double kDefaultShare = 0.5;  // ADR 9

absl::Status SafetyRowsNotFound(const std::string& base_id) {
  return MakeError(absl::StatusCode::kNotFound, "SAFETY_ROWS_NOT_FOUND",
                   absl::StrCat(BaseModelName(base_id), " has no safety rows; set some"));
}

}  // namespace

absl::StatusOr<double> CompleteSafetyShare(double asked) {
  if (asked == 0) return kDefaultShare;
  if (asked > 0 && asked <= 1) return asked;
  return FieldError("share", "SAFETY_SHARE_OUT_OF_RANGE",
                    absl::StrCat("share is ", asked, "; give a value above 0 and at most 1"));
}

absl::Status SafetyRowsCatalog::Expect(const std::string& blob) {
  return store_.Update([&](Transaction& tx) { return HoldBlobs(tx, blob); });
}

absl::StatusOr<SafetyRows> SafetyRowsCatalog::Set(absl::Time now, const std::string& base_id,
                                                  SafetyRows rows, const std::string& blob) {
  rows.set_name(SafetyRowsName(base_id));
  *rows.mutable_set_time() = ToTimestamp(now);
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base, FindBaseModel(tx, base_id, Hold::kExclusive));
    BALLAST_RETURN_IF_ERROR(NameBlobs(tx, blob));
    if (!base.safety_rows_blob().empty()) {
      BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base.safety_rows_blob()));
    }
    *base.mutable_safety_rows() = rows;
    base.set_safety_rows_blob(blob);
    return ReplaceRecord(tx, base);
  }));
  listener_.GarbageAdded();
  return rows;
}

absl::StatusOr<SafetyRows> SafetyRowsCatalog::Get(const std::string& base_id) {
  SafetyRows found;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, FindBaseModel(tx, base_id));
    if (!base.has_safety_rows()) return SafetyRowsNotFound(base_id);
    found = base.safety_rows();
    return absl::OkStatus();
  }));
  return found;
}

absl::Status SafetyRowsCatalog::Remove(const std::string& base_id) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base, FindBaseModel(tx, base_id, Hold::kExclusive));
    if (!base.has_safety_rows()) return SafetyRowsNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base.safety_rows_blob()));
    base.clear_safety_rows();
    base.clear_safety_rows_blob();
    return ReplaceRecord(tx, base);
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

}  // namespace ballast::server
