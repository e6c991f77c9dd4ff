// SPDX-License-Identifier: Apache-2.0
// Opens a sealed vector with a test's own key, so that the canary search (canary.py) knows what to
// look for. Built for tests only and never installed: outside the worker no program opens vectors
// (S1).
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "worker/vault/envelope_vault.h"
#include "worker/vault/file_key_provider.h"

namespace ballast::worker {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "unseal_for_test: %s (%s)\n", std::string(status.message()).c_str(),
               ErrorReason(status).c_str());
  return 1;
}

int Main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(
        stderr,
        "usage: unseal_for_test KEY_FILE VECTOR_ID VERSION BASE_DIGEST SEALED_FILE OUT_FILE\n");
    return 2;
  }
  auto keys = vault::FileKeyProvider::Open(argv[1]);
  if (!keys.ok()) return Fail(keys.status());
  vault::EnvelopeVault vault(*std::move(keys));
  const auto sealed = ReadFile(argv[5]);
  if (!sealed.ok()) return Fail(sealed.status());
  const auto clear = vault.Unseal(*sealed, {argv[2], std::atoi(argv[3]), argv[4]});
  if (!clear.ok()) return Fail(clear.status());
  const absl::Status written = WriteFileAtomically(argv[6], clear->view(), 0600);
  return written.ok() ? 0 : Fail(written);
}

}  // namespace
}  // namespace ballast::worker

int main(int argc, char** argv) { return ballast::worker::Main(argc, argv); }
