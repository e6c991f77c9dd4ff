// SPDX-License-Identifier: Apache-2.0
// What core needs of the outside world besides stores: random ids, and someone to tell about
// changes.
#ifndef BALLAST_SERVER_CORE_COLLABORATORS_H_
#define BALLAST_SERVER_CORE_COLLABORATORS_H_

#include <cstdint>
#include <string>

namespace ballast::server {

// Unguessable ids and seeds. Thread safety: thread-safe.
class IdSource {
 public:
  virtual ~IdSource() = default;
  // 128 random bits as lower-case hex.
  virtual std::string NewId() = 0;
  // A positive number.
  virtual int64_t NewSeed() = 0;
};

// Hears what changed, after it is durable. Called without locks held; must not block.
// Thread safety: implementations are thread-safe.
class ChangeListener {
 public:
  virtual ~ChangeListener() = default;
  // A job has new events or another state.
  virtual void JobChanged(const std::string& tenant, const std::string& id) = 0;
  // A job has newer progress, which no record need have (ControlPlane::LiveProgress).
  virtual void JobMoved(const std::string& /*tenant*/, const std::string& /*id*/) {}
  // An idle worker may find work now.
  virtual void WorkAdded() = 0;
  // A data set waits for its row checks.
  virtual void DatasetUploaded() = 0;
  // Blobs can be deleted.
  virtual void GarbageAdded() = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_COLLABORATORS_H_
