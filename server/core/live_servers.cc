// SPDX-License-Identifier: Apache-2.0
#include "server/core/live_servers.h"

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "server/core/records.h"

namespace ballast::server {
namespace {

std::string IdOf(const std::string& owner) { return owner.substr(0, owner.find('/')); }

// Deletes a record, unless it has changed since.
absl::Status DeleteUnchanged(Transaction& tx, const ServerRecord& known) {
  BALLAST_ASSIGN_OR_RETURN(const auto now,
                           GetRecord<ServerRecord>(tx, "", known.id(), Hold::kExclusive));
  if (!now.has_value() || now->sign() != known.sign() || now->owner() != known.owner()) {
    return absl::OkStatus();
  }
  return tx.Delete(Kind::kServer, "", known.id());
}

}  // namespace

absl::StatusOr<bool> IsAtAnotherServer(Transaction& tx, const std::string& owner) {
  if (owner.empty() || owner == tx.owner()) return false;
  BALLAST_ASSIGN_OR_RETURN(const auto record, GetRecord<ServerRecord>(tx, "", IdOf(owner)));
  return record.has_value() && record->owner() == owner;
}

absl::Status LiveServers::CheckBlobs(const std::vector<ServerRecord>& others) const {
  for (const ServerRecord& other : others) {
    if (other.blobs() == blobs_) continue;
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "BLOB_STORE_DIFFERS",
        absl::StrCat("another ballast-server on this database keeps its files elsewhere (",
                     other.blobs(), "; this one: ", blobs_,
                     "). Servers that share a database need one object_store"));
  }
  return absl::OkStatus();
}

absl::Status LiveServers::Join(absl::Time now) {
  if (!store_.shared()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  BALLAST_ASSIGN_OR_RETURN(auto others, LookLocked(now));
  BALLAST_RETURN_IF_ERROR(CheckBlobs(others));
  BALLAST_RETURN_IF_ERROR(GiveSignLocked(now));
  // One may have come meanwhile; it sees this one, or this one sees it.
  BALLAST_ASSIGN_OR_RETURN(others, LookLocked(now));
  const absl::Status fits = CheckBlobs(others);
  if (!fits.ok()) {
    BALLAST_RETURN_IF_ERROR(LeaveLocked());
    return fits;
  }
  joined_ = true;
  return absl::OkStatus();
}

absl::Status LiveServers::Enter(absl::Time now) {
  if (!store_.shared()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  if (now < next_) return absl::OkStatus();
  BALLAST_RETURN_IF_ERROR(GiveSignLocked(now));
  return LookLocked(now).status();
}

bool LiveServers::IsSure(absl::Time now) const {
  if (!store_.shared()) return true;
  absl::MutexLock lock(&mutex_);
  return now - last_sign_ < kPatience / 2;
}

absl::Status LiveServers::GiveSignLocked(absl::Time now) {
  next_ = now + absl::Seconds(1);  // where it fails
  BALLAST_RETURN_IF_ERROR(store_.Update([&](Transaction& tx) -> absl::Status {
    const std::string id = IdOf(store_.owner());
    BALLAST_ASSIGN_OR_RETURN(auto own, GetRecord<ServerRecord>(tx, "", id, Hold::kExclusive));
    const bool known = own.has_value();
    if (!known) own.emplace();
    if (known && joined_ && own->owner() != store_.owner()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "SERVER_ID_TAKEN",
                       "another ballast-server on this database has begun with the id of this one: "
                       "was its data_dir copied? Delete the file server_id of the copy");
    }
    own->set_id(id);
    own->set_owner(store_.owner());
    own->set_sign(own->sign() + 1);
    own->set_blobs(blobs_);
    own->set_version(version_);
    return known ? ReplaceRecord(tx, *own) : InsertRecord(tx, *own);
  }));
  last_sign_ = now;
  next_ = now + kBetweenSigns;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ServerRecord>> LiveServers::LookLocked(absl::Time now) {
  std::vector<ServerRecord> others;
  BALLAST_RETURN_IF_ERROR(store_.Read([&](Transaction& tx) {
    return ForEachInState<ServerRecord>(tx, 0, [&](ServerRecord record) -> absl::StatusOr<bool> {
      if (record.id() != IdOf(store_.owner())) others.push_back(std::move(record));
      return true;
    });
  }));
  // Silence that nobody could have broken is none.
  const bool watched = now - last_look_ <= 2 * kBetweenSigns;
  last_look_ = now;
  std::map<std::string, Seen> seen;
  std::vector<ServerRecord> live;
  for (ServerRecord& server : others) {
    const auto before = others_.find(server.id());
    const bool silent = watched && before != others_.end() && before->second.sign == server.sign();
    const absl::Time since = silent ? before->second.since : now;
    if (now - since >= kPatience) {
      BALLAST_RETURN_IF_ERROR(
          store_.Update([&](Transaction& tx) { return DeleteUnchanged(tx, server); }));
      continue;
    }
    seen[server.id()] = {server.sign(), since};
    live.push_back(std::move(server));
  }
  others_ = std::move(seen);
  return live;
}

absl::Status LiveServers::Leave() {
  if (!store_.shared()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  return LeaveLocked();
}

absl::Status LiveServers::LeaveLocked() {
  return store_.Update([&](Transaction& tx) -> absl::Status {
    const std::string id = IdOf(store_.owner());
    BALLAST_ASSIGN_OR_RETURN(const auto own, GetRecord<ServerRecord>(tx, "", id, Hold::kExclusive));
    const bool is_own = own.has_value() && own->owner() == store_.owner();
    return is_own ? tx.Delete(Kind::kServer, "", id) : absl::OkStatus();
  });
}

}  // namespace ballast::server
