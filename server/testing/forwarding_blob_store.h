// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_FORWARDING_BLOB_STORE_H_
#define BALLAST_SERVER_TESTING_FORWARDING_BLOB_STORE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/core/blob_store.h"

namespace ballast::server::testing {

// Passes every call on; tests override those that are to fail or to wait.
class ForwardingBlobStore : public BlobStore {
 public:
  explicit ForwardingBlobStore(BlobStore& inner) : inner_(inner) {}

  absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const std::string& name) override {
    return inner_.Create(name);
  }
  absl::StatusOr<std::unique_ptr<BlobAppender>> OpenAppend(const std::string& name) override {
    return inner_.OpenAppend(name);
  }
  absl::StatusOr<std::unique_ptr<BlobReader>> Open(const std::string& name) override {
    return inner_.Open(name);
  }
  absl::StatusOr<int64_t> Size(const std::string& name) override { return inner_.Size(name); }
  absl::Status Adopt(const std::string& name, const std::string& local_path) override {
    return inner_.Adopt(name, local_path);
  }
  absl::Status DeletePrefix(const std::string& prefix) override {
    return inner_.DeletePrefix(prefix);
  }
  absl::StatusOr<BlobLinks> ReadLinks(const std::string& name) override {
    return inner_.ReadLinks(name);
  }
  absl::StatusOr<BlobWriteLink> WriteLink(const std::string& name) override {
    return inner_.WriteLink(name);
  }
  absl::StatusOr<std::map<std::string, int64_t>> WrittenByLinks(
      const std::string& prefix) override {
    return inner_.WrittenByLinks(prefix);
  }
  absl::Status CopyWritten(const std::string& name, const std::vector<std::string>& parts,
                           const std::function<absl::Status()>& may_go_on) override {
    return inner_.CopyWritten(name, parts, may_go_on);
  }

 private:
  BlobStore& inner_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_FORWARDING_BLOB_STORE_H_
