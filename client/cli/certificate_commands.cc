// SPDX-License-Identifier: Apache-2.0
// ballast vector certify | activate | certificate
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/certificate_view.h"
#include "client/cli/cli.h"
#include "client/cli/format.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/signature.h"
#include "common/base/status_macros.h"
#include "common/envelope/signed_certificate.h"
#include "google/protobuf/util/json_util.h"

namespace ballast::cli {
namespace {

using admin::v1::SignedCertificate;

constexpr int64_t kMaxFileBytes = 8 << 20;

// Reads a message from a file in proto3 JSON. INVALID_ARGUMENT (`reason`) with what is wrong.
absl::Status ReadJson(const std::string& path, const char* reason,
                      google::protobuf::Message* message) {
  BALLAST_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, message);
  if (parsed.ok()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrCat(path, " is no ", std::string(message->GetDescriptor()->name()),
                                " in JSON: ", std::string(parsed.message())),
                   {{"path", path}});
}

void AddCertify(Cli& cli, CLI::App* group) {
  struct Options {
    std::string vector, result;
    bool dry_run = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "certify",
      "Judge the red-team suite's result and make the vector serve, or reject it (operators)",
      "  ballast vector certify vec-0123 --result suite_result.json --dry-run\n"
      "  ballast vector certify vec-0123 --result suite_result.json",
      [&cli, options]() -> absl::Status {
        admin::v1::SuiteResult result;
        BALLAST_RETURN_IF_ERROR(ReadJson(options->result, "SUITE_RESULT_INVALID", &result));
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(const SignedCertificate certificate,
                                 admin->CertifyVector(options->vector, result, options->dry_run));
        if (cli.json()) {
          Cli::PrintJson(certificate);
        } else {
          Cli::Print(DescribeCertificate(certificate.certificate()));
        }
        const std::string id = ShortName(certificate.certificate().vector());
        if (!certificate.certificate().passed()) {
          return WithExitCode(
              MakeError(
                  absl::StatusCode::kAborted, "VECTOR_REJECTED",
                  absl::StrCat(
                      "vector ", id, options->dry_run ? " would not pass" : " was rejected",
                      ": the criteria above marked NO are not met",
                      options->dry_run ? "; nothing was changed" : ", and it can never serve")),
              kExitEndedBadly);
        }
        if (cli.json()) return absl::OkStatus();
        Cli::Print(options->dry_run
                       ? absl::StrCat("\nVector ", id, " would pass; nothing was changed\n")
                       : absl::StrCat("\nVector ", id, " is ACTIVE, certified with key ",
                                      Printable(certificate.key_id()), "\n"));
        return absl::OkStatus();
      });
  command->add_option("vector", options->vector, "Id of the vector")->required();
  command
      ->add_option("--result", options->result,
                   "JSON file that the suite wrote: scripts/redteam --certify FOLDER measures, "
                   "writes and sends one, tests/redteam/certify.py measures a service that runs "
                   "(docs/red_team.md, docs/suite_result.md)")
      ->required();
  command->add_flag("--dry-run", options->dry_run, "Only judge; a rejection is for good");
}

void AddActivate(Cli& cli, CLI::App* group) {
  struct Options {
    std::string vector, reason;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "activate", "Make a vector serve without a certificate, for development (operators)",
      "  ballast vector activate vec-0123 --reason \"trying the API on a tiny model\"",
      [&cli, options]() -> absl::Status {
        BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
        BALLAST_ASSIGN_OR_RETURN(const auto vector,
                                 admin->ActivateVector(options->vector, options->reason));
        if (cli.json()) {
          Cli::PrintJson(vector);
          return absl::OkStatus();
        }
        Cli::Print(absl::StrCat(
            "Vector ", Printable(vector.name()), " is ",
            admin::v1::Vector::State_Name(vector.state()),
            ", uncertified: nothing says how far it protects, and every manifest says so\n"));
        return absl::OkStatus();
      });
  command->add_option("vector", options->vector, "Id of the vector")->required();
  command
      ->add_option("--reason", options->reason,
                   "Why it serves without a certificate; 10 to 500 characters, stored and shown")
      ->required();
}

// A certificate that was saved, or the server's.
absl::StatusOr<SignedCertificate> Obtain(Cli& cli, const std::string& vector,
                                         const std::string& file) {
  if (vector.empty() == file.empty()) {
    return WithExitCode(
        MakeError(absl::StatusCode::kInvalidArgument, "USAGE",
                  "give the id of a vector, or a saved certificate with --file, and not both"),
        kExitUsage);
  }
  if (file.empty()) {
    BALLAST_ASSIGN_OR_RETURN(auto admin, cli.OperatorClient());
    return admin->GetVectorCertificate(vector);
  }
  SignedCertificate certificate;
  BALLAST_RETURN_IF_ERROR(ReadJson(file, "CERTIFICATE_INVALID", &certificate));
  return certificate;
}

void AddCertificate(Cli& cli, CLI::App* group) {
  struct Options {
    std::string vector, file, public_key;
    bool verify = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = cli.AddCommand(
      group, "certificate", "Show a vector's certificate and verify its signature (operators)",
      "  ballast vector certificate vec-0123\n"
      "  ballast vector certificate vec-0123 --output json > certificate.json\n"
      "  ballast vector certificate --file certificate.json --verify --public-key signer.pem  # "
      "offline",
      [&cli, options]() -> absl::Status {
        if (options->verify == options->public_key.empty()) {
          return WithExitCode(MakeError(absl::StatusCode::kInvalidArgument, "USAGE",
                                        "--verify and --public-key go together"),
                              kExitUsage);
        }
        BALLAST_ASSIGN_OR_RETURN(SignedCertificate certificate,
                                 Obtain(cli, options->vector, options->file));
        absl::StatusOr<admin::v1::Certificate> read = envelope::ReadCertificate(certificate);
        if (options->verify) {
          BALLAST_ASSIGN_OR_RETURN(const PublicKey key, PublicKey::FromFile(options->public_key));
          read = envelope::VerifyCertificate(certificate, key);
        }
        if (!read.ok()) return WithExitCode(read.status(), kExitFailed);
        if (cli.json()) {
          // What is shown is what was signed.
          *certificate.mutable_certificate() = *read;
          Cli::PrintJson(certificate);
          return absl::OkStatus();
        }
        Cli::Print(absl::StrCat(
            DescribeCertificate(*read), "\n",
            options->verify ? absl::StrCat("Verified: signed with key ", certificate.key_id(), "\n")
                            : std::string("Not verified: give --verify --public-key FILE\n")));
        return absl::OkStatus();
      });
  command->add_option("vector", options->vector, "Id of the vector");
  command->add_option("--file", options->file,
                      "Certificate saved with --output json, instead of the server's");
  command->add_flag("--verify", options->verify, "Check the signature on this machine");
  command->add_option("--public-key", options->public_key, "PEM file of the signer's public key");
}

}  // namespace

void AddCertificateCommands(Cli& cli, CLI::App* vector_group) {
  AddCertify(cli, vector_group);
  AddActivate(cli, vector_group);
  AddCertificate(cli, vector_group);
}

}  // namespace ballast::cli
