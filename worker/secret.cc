// SPDX-License-Identifier: Apache-2.0
#include "worker/secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

namespace ballast::worker {

SecretBuffer::SecretBuffer(size_t size) : size_(size) {
  if (size == 0) return;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapped_bytes_ = (size + page - 1) / page * page;
  void* memory =
      mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<char*>(memory);
  // Best effort: RLIMIT_MEMLOCK may be smaller than a vector; core dumps and forks are always
  // excluded.
  mlock(data_, mapped_bytes_);
  madvise(data_, mapped_bytes_, MADV_DONTDUMP);
  madvise(data_, mapped_bytes_, MADV_DONTFORK);
}

SecretBuffer SecretBuffer::CopyOf(std::string_view bytes) {
  SecretBuffer copy(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

SecretBuffer::SecretBuffer(SecretBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

SecretBuffer& SecretBuffer::operator=(SecretBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

SecretBuffer::~SecretBuffer() {
  if (data_ == nullptr) return;
  OPENSSL_cleanse(data_, mapped_bytes_);
  munmap(data_, mapped_bytes_);
}

}  // namespace ballast::worker
