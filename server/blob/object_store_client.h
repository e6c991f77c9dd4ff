// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_BLOB_OBJECT_STORE_CLIENT_H_
#define BALLAST_SERVER_BLOB_OBJECT_STORE_CLIENT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rust/include/ballast_object_store.h"

namespace ballast::server {

// A wrapper of the crate `object_store`: objects below one prefix of one bucket. Calls wait for the
// network, some 20 s at most where the store does not answer. Failures: NOT_FOUND (BLOB_NOT_FOUND),
// ALREADY_EXISTS (OBJECT_EXISTS), ABORTED (BLOB_REPLACED), UNAVAILABLE (OBJECT_STORE), which also
// says that access is denied: the store's own words go to the log, since they name buckets and
// accounts. Thread safety: thread-safe.
class ObjectStoreClient {
 public:
  struct Listed {
    std::string name;  // what follows the path that was listed
    int64_t size_bytes = 0;
  };
  struct Info {
    int64_t size_bytes = 0;
    std::string etag;  // of this version of the object
  };
  // An object made of parts. Destroying it without Finish leaves nothing that can be seen. Thread
  // safety: not thread-safe.
  class Upload {
   public:
    absl::Status Part(std::string_view bytes);
    // NOT_FOUND (BLOB_NOT_FOUND) may mean that an earlier try has finished it.
    absl::Status Finish();

   private:
    friend class ObjectStoreClient;
    struct Free {
      void operator()(BallastObjectUpload* u) const { ballast_objects_upload_free(u); }
    };
    Upload(BallastObjectUpload* upload, std::string path)
        : upload_(upload), path_(std::move(path)) {}

    std::unique_ptr<BallastObjectUpload, Free> upload_;
    const std::string path_;
  };

  // Every part of an upload but the last has this size.
  static constexpr size_t kPartBytes = size_t{8} << 20;

  // INVALID_ARGUMENT (CONFIG_INVALID) for a URL or options that no store has; these words are for
  // the operator.
  static absl::StatusOr<std::unique_ptr<ObjectStoreClient>> Open(
      const std::string& url, const std::map<std::string, std::string>& options);

  absl::Status Put(const std::string& path, std::string_view bytes);
  // ALREADY_EXISTS (OBJECT_EXISTS) where there is one, which stays as it is.
  absl::Status PutNew(const std::string& path, std::string_view bytes);
  absl::StatusOr<Info> Head(const std::string& path);
  // `size` > 0 bytes at `offset`, which the object has. With an etag: ABORTED (BLOB_REPLACED) when
  // it is another object now.
  absl::StatusOr<std::string> Get(const std::string& path, const std::string& etag, int64_t offset,
                                  int64_t size);
  // All below path + "/", by name.
  absl::StatusOr<std::vector<Listed>> List(const std::string& path);
  // The object and all below path + "/".
  absl::Status DeletePrefix(const std::string& path);
  absl::StatusOr<std::unique_ptr<Upload>> StartUpload(const std::string& path);
  // Makes `to` what `from` is, by a copy that the store makes.
  absl::Status Copy(const std::string& from, const std::string& to);
  // A URL by which whoever has it can get, or put, the object for so long, which is more than 0
  // and in whole seconds: a secret.
  enum class LinkFor { kGet, kPut };
  absl::StatusOr<std::string> Link(const std::string& path, LinkFor what, absl::Duration valid);

 private:
  struct Free {
    void operator()(BallastObjects* store) const { ballast_objects_free(store); }
  };
  explicit ObjectStoreClient(BallastObjects* store) : store_(store) {}

  absl::Status PutObject(const std::string& path, std::string_view bytes, bool only_new);

  std::unique_ptr<BallastObjects, Free> store_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_BLOB_OBJECT_STORE_CLIENT_H_
