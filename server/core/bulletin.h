// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_BULLETIN_H_
#define BALLAST_SERVER_CORE_BULLETIN_H_

#include <string>
#include <tuple>

namespace ballast::server {

// What one server tells the others that share its store, after it is durable there. It only wakes
// them: what has changed they read in the store, and who has missed a notice looks now and then.
struct Notice {
  enum class Kind {
    kJobChanged,     // `name`: the job, "tenants/*/fineTuningJobs/*"
    kWorkAdded,      // an idle worker may find work
    kSampleOffered,  // an idle worker may find a sampling order
    kAnything,       // notices may have been missed
  };
  Kind kind = Kind::kAnything;
  std::string name;

  friend bool operator<(const Notice& a, const Notice& b) {
    return std::tie(a.kind, a.name) < std::tie(b.kind, b.name);
  }
  friend bool operator==(const Notice& a, const Notice& b) {
    return a.kind == b.kind && a.name == b.name;
  }
};

// Hears what other servers have posted.
class NoticeReader {
 public:
  virtual ~NoticeReader() = default;
  // Called by one thread at a time. Must not block.
  virtual void Heard(const Notice& notice) = 0;
};

// Thread safety: thread-safe.
class Bulletin {
 public:
  virtual ~Bulletin() = default;
  // From now on `reader`, which must outlive the object or its Stop, hears what others post. Called
  // once.
  virtual void Start(NoticeReader& reader) = 0;
  // The reader is not called any more once this has returned. Idempotent.
  virtual void Stop() = 0;
  // Soon tells the others; what is posted twice in a moment is told once. Never blocks. Harmless
  // before Start and after Stop.
  virtual void Post(const Notice& notice) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_BULLETIN_H_
