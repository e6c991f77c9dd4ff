// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_SCREEN_CATALOG_H_
#define BALLAST_SERVER_CORE_SCREEN_CATALOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/admin/v1/screen.pb.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// `asked` with the default in place of none. INVALID_ARGUMENT (SCREEN_ACTION_UNKNOWN).
absl::StatusOr<admin::v1::ScreenAction> CompleteScreenAction(admin::v1::ScreenAction asked);

// The two files of a screen below the prefix of its blobs.
std::string ScreenProhibitedBlob(const std::string& prefix);
std::string ScreenBenignBlob(const std::string& prefix);

// The screens of base models. Failures are those of ballast.admin.v1.ScreenService.
// Thread safety: thread-safe.
class ScreenCatalog {
 public:
  // All must outlive the catalog.
  ScreenCatalog(JobStore& store, ChangeListener& listener) : store_(store), listener_(listener) {}

  // Before the files become blobs below `prefix`: writes it down as garbage, which they are until
  // Set.
  absl::Status Expect(const std::string& prefix);

  // Makes the rows below `prefix` the base's screen. `screen` has all fields but name, digest and
  // set_time. The blobs of an earlier one become garbage.
  absl::StatusOr<admin::v1::Screen> Set(absl::Time now, const std::string& base_id,
                                        admin::v1::Screen screen, const std::string& prefix);
  absl::StatusOr<admin::v1::Screen> Get(const std::string& base_id);
  absl::Status Remove(const std::string& base_id);

 private:
  JobStore& store_;
  ChangeListener& listener_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_SCREEN_CATALOG_H_
