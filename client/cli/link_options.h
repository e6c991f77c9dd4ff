// SPDX-License-Identifier: Apache-2.0
// What commands share that read or write by links to the server's store.
#ifndef BALLAST_CLIENT_CLI_LINK_OPTIONS_H_
#define BALLAST_CLIENT_CLI_LINK_OPTIONS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cli/format.h"

namespace ballast::cli {

inline void AddNoLinksFlag(CLI::App* command, bool& no_links) {
  command->add_flag("--no-links", no_links,
                    "Send all bytes through the server, also where it gives links to its store");
}

// The line that says why a transfer goes through the server.
inline std::string NoteOfFallback(const absl::Status& why) {
  return absl::StrCat("The store's links do not work from here (",
                      Printable(std::string(why.message())), "); going on through the server");
}

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_LINK_OPTIONS_H_
