// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_FULL_DISK_H_
#define BALLAST_SERVER_TESTING_FULL_DISK_H_

#include <signal.h>
#include <sys/resource.h>

namespace ballast::server::testing {

// While it lives no file of this process can grow beyond `bytes`: writes fail with EFBIG, as they
// fail with ENOSPC on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_FULL_DISK_H_
