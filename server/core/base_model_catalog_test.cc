// SPDX-License-Identifier: Apache-2.0
#include "server/core/base_model_catalog.h"

#include <cstdint>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "server/core/paging.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using BaseModelCatalogTest = CoreFixture;

TEST_F(BaseModelCatalogTest, AForgedPageTokenListsNothing) {
  BaseModelCatalog models(store_, serving_);
  v1::ListBaseModelsRequest request;
  request.set_page_size(1000);
  request.set_page_token(MakePageToken("baseModels", INT64_MAX));
  ASSERT_OK_AND_ASSIGN(const auto page, models.List(request));
  EXPECT_EQ(page.base_models_size(), 0);
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(BaseModelCatalogTest, AnUnprotectedModelIsTakenWhereItIsAllowedAndStaysWhatItIs) {
  BaseModelRecord record;
  record.set_id("open");
  record.mutable_model()->set_name("baseModels/open");
  record.mutable_model()->set_digest(kBaseDigest);
  record.mutable_model()->set_unprotected(true);
  EXPECT_THAT(BaseModelCatalog(store_, serving_).Add(record),
              StatusIs(absl::StatusCode::kFailedPrecondition, "UNPROTECTED_NOT_ALLOWED"));
  const ServingVectors allowing(&signer_, /*allow_unprotected=*/true);
  BaseModelCatalog models(store_, allowing);
  ASSERT_OK_AND_ASSIGN(const auto model, models.Add(record));
  EXPECT_TRUE(model.unprotected());
  EXPECT_OK(models.Add(record));
  record.mutable_model()->set_unprotected(false);
  EXPECT_THAT(models.Add(record), StatusIs(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS"));
}

TEST_F(BaseModelCatalogTest, AModelHasThePolicyByRowUnlessToldAndKeepsIt) {
  BaseModelCatalog models(store_, serving_);
  BaseModelRecord record;
  record.set_id("new");
  record.mutable_model()->set_name("baseModels/new");
  record.mutable_model()->set_digest(kBaseDigest);
  ASSERT_OK(models.Add(record));
  ASSERT_OK_AND_ASSIGN(const BaseModelRecord stored, models.GetRecordOf("new"));
  EXPECT_EQ(stored.vector_policy(), admin::v1::VECTOR_POLICY_BY_ROW);
  EXPECT_OK(models.Add(record));
  record.set_vector_policy(admin::v1::VECTOR_POLICY_BY_ROW);
  EXPECT_OK(models.Add(record));
  record.set_vector_policy(admin::v1::VECTOR_POLICY_ALWAYS);
  EXPECT_THAT(models.Add(record), StatusIs(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS"));
}

}  // namespace
}  // namespace ballast::server::testing
