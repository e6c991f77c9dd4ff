// SPDX-License-Identifier: Apache-2.0
// manifest.json of a delta: what it consists of and where it comes from, in canonical JSON (keys
// sorted, no insignificant white space, one line end), so that equal manifests have equal digests.
#ifndef BALLAST_COMMON_ARTIFACT_MANIFEST_H_
#define BALLAST_COMMON_ARTIFACT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::artifact {

// Name of the manifest in its folder.
inline constexpr char kManifestName[] = "manifest.json";
// Name of the signature, which the manifest does not list.
inline constexpr char kSignatureName[] = "model.sig";

// What a manifest says of the gate between training and delivery.
inline constexpr char kGatePassed[] = "passed";
// The gate withheld the delta, and an operator delivered it all the same. Written when it is
// withheld: nobody reads it unless it is released.
inline constexpr char kGateReleased[] = "released";

struct ManifestFile {
  std::string path;  // relative, "/" between parts
  int64_t size_bytes = 0;
  std::string digest;  // "sha256:<hex>"
};

struct Manifest {
  std::vector<ManifestFile> files;  // sorted by path; without manifest.json itself
  std::string job;                  // resource name
  int attempt = 0;
  std::string base_model;  // resource name
  std::string base_digest;
  std::string training_dataset_digest;
  std::string validation_dataset_digest;  // empty without one
  std::string config_digest;              // of the job's hyper-parameters as canonical JSON
  std::string tokenizer_digest;
  std::string template_digest;
  std::string code_version;
  std::string create_time;           // RFC 3339, UTC
  bool unprotected = false;          // trained without a vector, since its base is marked so
  std::string protection_handle;     // random; only operators can resolve it; empty for unprotected
  bool certified = false;            // whether the protection had a certificate
  std::string safety_rows_digest;    // of the file that rows were mixed in from; empty for none
  double safety_row_share = 0;       // as a share of the job's own rows
  std::string screen_digest;         // of what rows were screened by; empty for nothing
  int64_t screen_rows_left_out = 0;  // flagged by it, and not trained on
  std::string gate;                  // kGatePassed or kGateReleased; empty where there was no gate
};

// True for a relative path that stays inside its folder: parts of letters, digits, ".", "_", "-",
// none of them empty, "." or "..", at most 255 characters in all.
bool IsSafePath(std::string_view path);

// The bytes of manifest.json. Files are sorted. INVALID_ARGUMENT (MANIFEST_INVALID) for an unsafe
// or repeated path, or a digest that is none.
absl::StatusOr<std::string> WriteManifest(Manifest manifest);

// INVALID_ARGUMENT (MANIFEST_INVALID): not a manifest, another schema version, an unsafe path.
absl::StatusOr<Manifest> ReadManifest(std::string_view bytes);

// One difference between a folder and its manifest.
struct VerifyProblem {
  std::string reason;  // ARTIFACT_FILE_MISSING, ARTIFACT_FILE_CHANGED, ARTIFACT_FILE_UNEXPECTED
  std::string path;
  std::string message;  // what is wrong
};

struct VerifyResult {
  Manifest manifest;
  std::string manifest_digest;
  std::vector<VerifyProblem> problems;  // empty: the folder is what its manifest says
};

// Compares the folder `directory` with its manifest.json: each file's size and SHA-256, files that
// are missing, and files, links and other things that should not be there (model.sig may be).
// NOT_FOUND (ARTIFACT_FILE_MISSING) without a manifest, MANIFEST_INVALID, or the error of a read.
absl::StatusOr<VerifyResult> VerifyFolder(const std::string& directory);

}  // namespace ballast::artifact

#endif  // BALLAST_COMMON_ARTIFACT_MANIFEST_H_
