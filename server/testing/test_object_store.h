// SPDX-License-Identifier: Apache-2.0
// The object store that tests have: a server that speaks S3 (tests/services/object_store.py).
#ifndef BALLAST_SERVER_TESTING_TEST_OBJECT_STORE_H_
#define BALLAST_SERVER_TESTING_TEST_OBJECT_STORE_H_

#include <map>
#include <string>

namespace ballast::server::testing {

struct TestObjectStore {
  std::string url;                             // of an empty bucket
  std::map<std::string, std::string> options;  // how to reach it

  // That of BALLAST_OBJECT_STORE_FILE; one that cannot be reached where there is none.
  static TestObjectStore Find();
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_TEST_OBJECT_STORE_H_
