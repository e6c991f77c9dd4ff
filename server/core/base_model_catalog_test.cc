// SPDX-License-Identifier: Apache-2.0
#include "server/core/base_model_catalog.h"

#include <cstdint>

#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "server/core/paging.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

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

}  // namespace
}  // namespace ballast::server::testing
