// SPDX-License-Identifier: Apache-2.0
// `ballast`: the command line.
#include "client/cli/cli.h"

int main(int argc, char** argv) {
  ballast::cli::Cli cli(ballast::cli::ProcessEnvironment());
  ballast::cli::AddDevCommand(cli);
  ballast::cli::AddModelCommands(cli);
  ballast::cli::AddVectorCommands(cli);
  ballast::cli::AddGateCommands(cli);
  ballast::cli::AddSafetyRowsCommands(cli);
  ballast::cli::AddScreenCommands(cli);
  ballast::cli::AddDatasetCommands(cli);
  ballast::cli::AddJobCommands(cli);
  ballast::cli::AddDeltaCommands(cli);
  ballast::cli::AddSampleCommand(cli);
  ballast::cli::AddUsageCommand(cli);
  return cli.Main(argc, argv);
}
