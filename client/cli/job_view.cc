// SPDX-License-Identifier: Apache-2.0
#include "client/cli/job_view.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/cli.h"
#include "client/cli/error_report.h"
#include "client/cli/format.h"
#include "client/cli/gate_view.h"
#include "client/cli/progress_bar.h"
#include "common/base/error.h"
#include "common/base/proto_duration.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

void AddLine(std::string& text, std::string_view label, const std::string& value) {
  if (value.empty()) return;
  absl::StrAppend(&text, absl::StrFormat("%-16s", std::string(label)), Printable(value), "\n");
}

std::string DescribeLosses(const v1::Evaluation& evaluation) {
  std::string text = absl::StrFormat("loss %.4f", evaluation.training_loss());
  if (evaluation.has_validation_loss()) {
    absl::StrAppend(&text, absl::StrFormat(", validation %.4f", evaluation.validation_loss()));
  }
  return text;
}

std::string DescribeScreening(const v1::ScreeningReport& report) {
  if (report.flagged_rows() == 0) {
    return absl::StrCat("none of ", FormatCount(report.rows()), " rows looks prohibited");
  }
  std::string text = absl::StrCat(FormatCount(report.flagged_rows()), " of ",
                                  FormatCount(report.rows()), " rows look prohibited");
  switch (report.action()) {
    case v1::ScreeningReport::REPORTED:
      absl::StrAppend(&text, " and are trained on all the same");
      break;
    case v1::ScreeningReport::LEFT_OUT:
      absl::StrAppend(&text, " and are left out");
      break;
    case v1::ScreeningReport::REFUSED:
      absl::StrAppend(&text, ", and the job is refused");
      break;
    default:
      break;
  }
  constexpr int kLines = 10;
  const int shown = std::min(kLines, report.lines_size());
  absl::StrAppend(&text, ": lines ",
                  absl::StrJoin(report.lines().begin(), report.lines().begin() + shown, ", "));
  if (report.flagged_rows() > shown) absl::StrAppend(&text, ", ...");
  return text;
}

}  // namespace

std::string StateName(v1::FineTuningJob::State state) {
  const std::string& name = v1::FineTuningJob::State_Name(state);
  // A newer server may know states that this program does not.
  return name.empty() ? absl::StrCat("STATE_", static_cast<int>(state)) : name;
}

std::string DescribeEstimate(const v1::Estimate& estimate) {
  std::string text;
  AddLine(text, "rows", FormatCount(estimate.rows()));
  AddLine(text, "steps", FormatCount(estimate.steps()));
  AddLine(text, "tokens",
          absl::StrCat(FormatCount(estimate.total_tokens()), " over all passes, ",
                       FormatCount(estimate.supervised_tokens()), " of them trained on"));
  AddLine(text, "running time",
          estimate.has_running_time()
              ? absl::StrCat("about ", FormatClock(ToDuration(estimate.running_time())))
              : "not known before a first job has run on this base");
  if (estimate.has_cost()) AddLine(text, "cost", FormatMoney(estimate.cost()));
  return text;
}

std::string DescribeStart(const v1::Waiting& waiting) {
  if (!waiting.has_earliest_start()) return "";
  const auto rough = [](absl::Duration duration) {
    const bool hours = duration >= absl::Hours(1);
    const int64_t count = hours ? absl::ToInt64Hours(duration) : absl::ToInt64Minutes(duration);
    return absl::StrCat(count, hours ? " hour" : " minute", count == 1 ? "" : "s");
  };
  const absl::Duration earliest = ToDuration(waiting.earliest_start());
  if (!waiting.has_latest_start()) return absl::StrCat("in more than ", rough(earliest));
  const std::string latest = rough(ToDuration(waiting.latest_start()));
  if (earliest == absl::ZeroDuration()) return absl::StrCat("within ", latest);
  return absl::StrCat("in ", rough(earliest), " to ", latest);
}

std::string DescribeJob(const v1::FineTuningJob& job) {
  std::string text;
  AddLine(text, "name", job.name());
  AddLine(text, "called", job.display_name());
  AddLine(text, "state",
          job.state() == v1::FineTuningJob::QUEUED && job.queue_position() > 0
              ? absl::StrCat("QUEUED, ", job.queue_position(), " of yours before it")
              : StateName(job.state()));
  if (job.has_waiting()) {
    AddLine(text, "waits because", job.waiting().message());
    AddLine(text, "starts", DescribeStart(job.waiting()));
  }
  if (job.priority() != 0) AddLine(text, "priority", absl::StrCat(job.priority()));
  if (job.has_error()) {
    AddLine(text, "error", absl::StrCat(job.error().message(), " (", job.error().reason(), ")"));
  }
  if (job.has_gate_verdict()) {
    AddLine(text, "withheld for", DescribeCategories(job.gate_verdict().categories()));
  }
  if (job.has_screening()) AddLine(text, "screening", DescribeScreening(job.screening()));
  AddLine(text, "base model", job.base_model());
  AddLine(text, "training", job.training_dataset());
  AddLine(text, "validation", job.validation_dataset());
  const v1::Hyperparameters& h = job.hyperparameters();
  AddLine(text, "how",
          absl::StrFormat("learning rate %g, %d epochs, %d rows a step, LoRA rank %d, alpha %g, "
                          "warm-up %g, %s, seed %d",
                          h.learning_rate(), h.epochs(), h.batch_rows(), h.lora_rank(),
                          h.lora_alpha(), h.warmup_ratio(),
                          v1::Hyperparameters::Schedule_Name(h.schedule()), h.seed()));
  for (const auto& [key, value] : job.labels()) {
    AddLine(text, "label", absl::StrCat(key, "=", value));
  }
  if (job.attempt() > 0) AddLine(text, "attempt", absl::StrCat(job.attempt()));
  if (job.has_progress()) AddLine(text, "progress", DescribeProgress(job.progress()));
  if (job.has_usage()) {
    AddLine(text, "used",
            absl::StrCat(
                FormatCount(job.usage().trained_tokens()), " trained tokens",
                job.usage().has_cost() ? absl::StrCat(", ", FormatMoney(job.usage().cost())) : ""));
  }
  AddLine(text, "created", FormatTime(job.create_time()));
  if (job.has_start_time()) AddLine(text, "started", FormatTime(job.start_time()));
  if (job.has_end_time()) AddLine(text, "ended", FormatTime(job.end_time()));
  AddLine(text, "delta", job.delta());
  AddLine(text, "manifest", job.manifest_digest());
  if (job.has_estimate() && job.attempt() == 0)
    absl::StrAppend(&text, DescribeEstimate(job.estimate()));
  if (job.progress().evaluations_size() > 0) {
    const bool validation = job.progress().evaluations(0).has_validation_loss();
    Table table(validation ? std::vector<std::string>{"STEP", "LOSS", "VALIDATION"}
                           : std::vector<std::string>{"STEP", "LOSS"});
    for (const v1::Evaluation& evaluation : job.progress().evaluations()) {
      std::vector<std::string> row = {absl::StrCat(evaluation.step()),
                                      absl::StrFormat("%.4f", evaluation.training_loss())};
      if (validation) row.push_back(absl::StrFormat("%.4f", evaluation.validation_loss()));
      table.AddRow(std::move(row));
    }
    absl::StrAppend(&text, "\n", table.Render());
  }
  return text;
}

std::string DescribeProgress(const v1::JobProgress& progress) {
  std::string text = absl::StrCat(FormatCount(progress.step()), "/",
                                  FormatCount(progress.total_steps()), " steps");
  // The time before the losses: what is cut off on a narrow terminal is at the end.
  if (progress.has_time_left()) {
    absl::StrAppend(&text, "  ", FormatClock(ToDuration(progress.time_left())), " left");
  }
  if (progress.evaluations_size() > 0) {
    const auto& last = progress.evaluations(progress.evaluations_size() - 1);
    absl::StrAppend(&text, absl::StrFormat("  loss %.3f", last.training_loss()));
    if (last.has_validation_loss()) {
      absl::StrAppend(&text, absl::StrFormat(" (valid %.3f)", last.validation_loss()));
    }
  }
  return text;
}

std::string DescribeEvent(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kStateChanged: {
      const auto& change = event.state_changed();
      std::string text = StateName(change.state());
      if (change.attempt() > 1) absl::StrAppend(&text, " (attempt ", change.attempt(), ")");
      if (change.has_error()) {
        absl::StrAppend(&text, ": ", change.error().message(), " (", change.error().reason(), ")");
      }
      if (change.has_gate_verdict()) {
        absl::StrAppend(&text, " for ", DescribeCategories(change.gate_verdict().categories()));
      }
      return text;
    }
    case v1::JobEvent::kEvaluation:
      return absl::StrCat("step ", event.evaluation().step(), ": ",
                          DescribeLosses(event.evaluation()));
    case v1::JobEvent::kScreening:
      return absl::StrCat("screening: ", DescribeScreening(event.screening()));
    case v1::JobEvent::kMessage:
      return event.message();
    default:
      return "an event that this version does not know";
  }
}

absl::Status EndOf(const v1::FineTuningJob& job) {
  if (job.state() == v1::FineTuningJob::FAILED) {
    return WithExitCode(
        MakeError(absl::StatusCode::kAborted,
                  job.error().reason().empty() ? "JOB_FAILED" : job.error().reason(),
                  absl::StrCat("job ", ShortName(job.name()), " failed: ", job.error().message())),
        kExitEndedBadly);
  }
  if (job.state() == v1::FineTuningJob::CANCELLED) {
    return WithExitCode(MakeError(absl::StatusCode::kAborted, "JOB_CANCELLED",
                                  absl::StrCat("job ", ShortName(job.name()), " was cancelled")),
                        kExitEndedBadly);
  }
  if (job.state() == v1::FineTuningJob::WITHHELD) {
    return WithExitCode(
        MakeError(
            absl::StatusCode::kAborted, "JOB_WITHHELD",
            absl::StrCat("job ", ShortName(job.name()), " was trained, and its delta withheld for ",
                         DescribeCategories(job.gate_verdict().categories()),
                         ": it went beyond the limit of prohibited behaviour. The operator "
                         "releases or refuses it")),
        kExitEndedBadly);
  }
  if (job.state() == v1::FineTuningJob::PAUSED) {
    return WithExitCode(MakeError(absl::StatusCode::kAborted, "JOB_PAUSED",
                                  absl::StrCat("job ", ShortName(job.name()), " is paused")),
                        kExitEndedBadly);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::FineTuningJob> Follow(const client::Client& client, const std::string& name,
                                         int64_t after_sequence, bool json) {
  client::WatchHandlers handlers;
  if (json) {
    handlers.on_event = [](const v1::JobEvent& event) {
      v1::WatchFineTuningJobResponse line;
      *line.mutable_event() = event;
      Cli::PrintJson(line, /*one_line=*/true);
    };
    handlers.on_progress = [](const v1::JobProgress& progress) {
      v1::WatchFineTuningJobResponse line;
      *line.mutable_progress() = progress;
      Cli::PrintJson(line, /*one_line=*/true);
    };
    BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job,
                             client.WatchJob(name, after_sequence, handlers));
    Cli::PrintJson(job, /*one_line=*/true);
    return job;
  }
  ProgressBar bar("job", BarOutput::StandardError());
  v1::JobProgress last;
  const auto draw = [&](const std::string& detail) {
    bar.Update(last.total_steps() > 0
                   ? static_cast<double>(last.step()) / static_cast<double>(last.total_steps())
                   : 0,
               detail);
  };
  handlers.on_event = [&](const v1::JobEvent& event) {
    bar.Note(DescribeEvent(event));
    if (event.has_evaluation()) {
      // Progress comes once a second; an evaluation may know of more steps.
      *last.add_evaluations() = event.evaluation();
      last.set_step(std::max(last.step(), event.evaluation().step()));
      if (last.total_steps() > 0) draw(DescribeProgress(last));
    }
    if (event.has_state_changed() && event.state_changed().state() == v1::FineTuningJob::QUEUED) {
      last.Clear();
      draw("waiting for a worker");
    }
  };
  handlers.on_progress = [&](const v1::JobProgress& progress) {
    last = progress;
    draw(DescribeProgress(progress));
  };
  handlers.on_reconnect = [&](const absl::Status& status) {
    bar.Note(absl::StrCat("connection lost, trying again: ", status.message()));
  };
  BALLAST_ASSIGN_OR_RETURN(v1::FineTuningJob job, client.WatchJob(name, after_sequence, handlers));
  if (job.state() == v1::FineTuningJob::SUCCEEDED) {
    last = job.progress();
    draw(DescribeProgress(last));
  }
  return job;
}

}  // namespace ballast::cli
