// SPDX-License-Identifier: Apache-2.0
#include "server/core/screen_catalog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/envelope/screen_digest.h"
#include "server/core/blob_hold.h"
#include "server/core/job_catalog.h"
#include "server/core/records.h"
#include "server/core/resource_name.h"

namespace ballast::server {
namespace {

using admin::v1::Screen;

absl::Status ScreenNotFound(const std::string& base_id) {
  return MakeError(absl::StatusCode::kNotFound, "SCREEN_NOT_FOUND",
                   absl::StrCat(BaseModelName(base_id), " has no screen; set one"));
}

}  // namespace

std::string ScreenProhibitedBlob(const std::string& prefix) { return prefix + "/prohibited"; }

std::string ScreenBenignBlob(const std::string& prefix) { return prefix + "/benign"; }

absl::StatusOr<admin::v1::ScreenAction> CompleteScreenAction(admin::v1::ScreenAction asked) {
  if (asked == admin::v1::SCREEN_ACTION_UNSPECIFIED) return admin::v1::SCREEN_ACTION_DROP;
  if (admin::v1::ScreenAction_IsValid(asked)) return asked;
  return FieldError("action", "SCREEN_ACTION_UNKNOWN",
                    "action must be SCREEN_ACTION_REPORT, SCREEN_ACTION_DROP or "
                    "SCREEN_ACTION_REFUSE");
}

absl::Status ScreenCatalog::Expect(const std::string& prefix) {
  return store_.Update([&](Transaction& tx) { return HoldBlobs(tx, prefix); });
}

absl::StatusOr<Screen> ScreenCatalog::Set(absl::Time now, const std::string& base_id, Screen screen,
                                          const std::string& prefix) {
  screen.set_name(ScreenName(base_id));
  screen.set_digest(envelope::ScreenDigest(screen.prohibited().digest(), screen.benign().digest()));
  *screen.mutable_set_time() = ToTimestamp(now);
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base, FindBaseModel(tx, base_id, Hold::kExclusive));
    BALLAST_RETURN_IF_ERROR(NameBlobs(tx, prefix));
    if (!base.screen_blobs().empty()) {
      BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base.screen_blobs()));
    }
    *base.mutable_screen() = screen;
    base.set_screen_blobs(prefix);
    return ReplaceRecord(tx, base);
  }));
  listener_.GarbageAdded();
  return screen;
}

absl::StatusOr<Screen> ScreenCatalog::Get(const std::string& base_id) {
  Screen found;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(const BaseModelRecord base, FindBaseModel(tx, base_id));
    if (!base.has_screen()) return ScreenNotFound(base_id);
    found = base.screen();
    return absl::OkStatus();
  }));
  return found;
}

absl::Status ScreenCatalog::Remove(const std::string& base_id) {
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    BALLAST_ASSIGN_OR_RETURN(BaseModelRecord base, FindBaseModel(tx, base_id, Hold::kExclusive));
    if (!base.has_screen()) return ScreenNotFound(base_id);
    BALLAST_RETURN_IF_ERROR(tx.AddGarbage(base.screen_blobs()));
    base.clear_screen();
    base.clear_screen_blobs();
    return ReplaceRecord(tx, base);
  }));
  listener_.GarbageAdded();
  return absl::OkStatus();
}

}  // namespace ballast::server
