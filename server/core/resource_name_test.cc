// SPDX-License-Identifier: Apache-2.0
#include "server/core/resource_name.h"

#include <string>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "server/core/paging.h"
#include "server/core/request_id.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ResourceNameTest, ParsesWhatItBuilds) {
  ASSERT_OK_AND_ASSIGN(const std::string base,
                       ParseBaseModelName(BaseModelName("smollm2-135m"), "f"));
  EXPECT_EQ(base, "smollm2-135m");
  ASSERT_OK_AND_ASSIGN(const TenantName job, ParseJobName(JobName("acme", "job-1"), "f"));
  EXPECT_EQ(job.tenant, "acme");
  EXPECT_EQ(job.id, "job-1");
  ASSERT_OK_AND_ASSIGN(const TenantName delta, ParseDeltaName(DeltaName("acme", "job-1"), "f"));
  EXPECT_EQ(delta.id, "job-1");
  ASSERT_OK_AND_ASSIGN(const TenantName data, ParseDatasetName(DatasetName("acme", "ds-1"), "f"));
  EXPECT_EQ(data.id, "ds-1");
}

TEST(ResourceNameTest, RefusesEverythingElse) {
  for (const char* name : {"", "tenants", "tenants/acme", "tenants/acme/fineTuningJobs",
                           "tenants/acme/fineTuningJobs/", "tenants//fineTuningJobs/x",
                           "tenants/acme/fineTuningJobs/x/", "tenants/acme/datasets/x",
                           "tenants/../fineTuningJobs/x", "tenants/ACME/fineTuningJobs/x",
                           "tenants/acme/fineTuningJobs/a b", "/tenants/acme/fineTuningJobs/x"}) {
    EXPECT_THAT(ParseJobName(name, "name"), StatusIs(kInvalid, "NAME_INVALID")) << name;
  }
  EXPECT_THAT(ParseJobName(JobName("acme", std::string(64, 'x')), "name"),
              StatusIs(kInvalid, "NAME_INVALID"));
  EXPECT_THAT(ParseJobName(JobName("acme", std::string("x\0y", 3)), "name"),
              StatusIs(kInvalid, "NAME_INVALID"));
}

TEST(PagingTest, TokensAreOpaqueAndBelongToTheirList) {
  const std::string token = MakePageToken("jobs", 41);
  ASSERT_OK_AND_ASSIGN(const int64_t position, ParsePageToken("jobs", token));
  EXPECT_EQ(position, 41);
  EXPECT_EQ(ParsePageToken("jobs", "").value(), 0);
  for (const std::string& bad :
       {std::string("x"), std::string("41"), token + "A", std::string("!!"),
        MakePageToken("jobs", -1), MakePageToken("datasets", 41)}) {
    EXPECT_THAT(ParsePageToken("jobs", bad), StatusIs(kInvalid, "PAGE_TOKEN_INVALID")) << bad;
  }
}

TEST(PagingTest, SizesAreBounded) {
  EXPECT_EQ(PageSize(0).value(), 50);
  EXPECT_EQ(PageSize(0, 100).value(), 100);
  EXPECT_EQ(PageSize(7).value(), 7);
  EXPECT_EQ(PageSize(100'000).value(), 1000);
  EXPECT_THAT(PageSize(-1), StatusIs(kInvalid, "PAGE_SIZE_INVALID"));
}

TEST(RequestIdTest, TakesUuidsAndNothingLong) {
  EXPECT_OK(CheckRequestId(""));
  EXPECT_OK(CheckRequestId("123e4567-e89b-12d3-a456-426614174000"));
  EXPECT_THAT(CheckRequestId("a b"), StatusIs(kInvalid, "REQUEST_ID_INVALID"));
  EXPECT_THAT(CheckRequestId(std::string(65, 'a')), StatusIs(kInvalid, "REQUEST_ID_INVALID"));
}

}  // namespace
}  // namespace ballast::server
