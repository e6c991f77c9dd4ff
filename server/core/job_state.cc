// SPDX-License-Identifier: Apache-2.0
#include "server/core/job_state.h"

#include <algorithm>
#include <iterator>

namespace ballast::server {

using v1::FineTuningJob;

std::string_view Name(WorkEvent event) {
  switch (event) {
    case WorkEvent::kTaken:
      return "taken";
    case WorkEvent::kTakenToScreen:
      return "taken to screen";
    case WorkEvent::kScreened:
      return "screened";
    case WorkEvent::kResult:
      return "result";
    case WorkEvent::kUserError:
      return "user error";
    case WorkEvent::kPlatformError:
      return "platform error";
    case WorkEvent::kPlatformErrorLast:
      return "platform error, last";
    case WorkEvent::kStopped:
      return "stopped";
    case WorkEvent::kHandedBack:
      return "handed back";
    case WorkEvent::kLeaseExpired:
      return "lease expired";
    case WorkEvent::kLeaseExpiredLast:
      return "lease expired, last";
    case WorkEvent::kPaused:
      return "paused";
    case WorkEvent::kCancel:
      return "cancel";
    case WorkEvent::kPause:
      return "pause";
    case WorkEvent::kResume:
      return "resume";
    case WorkEvent::kWithheld:
      return "withheld";
    case WorkEvent::kReleased:
      return "released";
    case WorkEvent::kRefused:
      return "refused";
    case WorkEvent::kExpired:
      return "expired";
  }
  return "";
}

std::optional<FineTuningJob::State> NextState(FineTuningJob::State state, WorkEvent event) {
  switch (state) {
    case FineTuningJob::QUEUED:
      if (event == WorkEvent::kTaken) return FineTuningJob::RUNNING;
      if (event == WorkEvent::kTakenToScreen) return FineTuningJob::SCREENING;
      if (event == WorkEvent::kCancel) return FineTuningJob::CANCELLED;
      if (event == WorkEvent::kPause) return FineTuningJob::PAUSED;
      if (event == WorkEvent::kResume) return FineTuningJob::QUEUED;
      return std::nullopt;
    case FineTuningJob::SCREENING:
      if (event == WorkEvent::kScreened) return FineTuningJob::RUNNING;
      if (event == WorkEvent::kResume) return FineTuningJob::SCREENING;
      return NextState(FineTuningJob::RUNNING, event);
    case FineTuningJob::RUNNING:
      switch (event) {
        case WorkEvent::kResult:
          return FineTuningJob::SUCCEEDED;
        case WorkEvent::kUserError:
        case WorkEvent::kPlatformErrorLast:
        case WorkEvent::kLeaseExpiredLast:
          return FineTuningJob::FAILED;
        case WorkEvent::kPlatformError:
        case WorkEvent::kHandedBack:
        case WorkEvent::kLeaseExpired:
          return FineTuningJob::QUEUED;
        case WorkEvent::kCancel:
          return FineTuningJob::CANCELLING;
        case WorkEvent::kPause:
          return FineTuningJob::PAUSING;
        case WorkEvent::kResume:
          return FineTuningJob::RUNNING;
        case WorkEvent::kWithheld:
          return FineTuningJob::WITHHELD;
        case WorkEvent::kTaken:
        case WorkEvent::kTakenToScreen:
        case WorkEvent::kScreened:
        case WorkEvent::kStopped:
        case WorkEvent::kPaused:
        case WorkEvent::kReleased:
        case WorkEvent::kRefused:
        case WorkEvent::kExpired:
          return std::nullopt;
      }
      return std::nullopt;
    case FineTuningJob::PAUSING:
      switch (event) {
        case WorkEvent::kResult:
          // The pause came too late.
          return FineTuningJob::SUCCEEDED;
        case WorkEvent::kUserError:
        case WorkEvent::kPlatformErrorLast:
        case WorkEvent::kLeaseExpiredLast:
          return FineTuningJob::FAILED;
        case WorkEvent::kPlatformError:
        case WorkEvent::kPaused:
        case WorkEvent::kHandedBack:
        case WorkEvent::kLeaseExpired:
          return FineTuningJob::PAUSED;
        case WorkEvent::kCancel:
          return FineTuningJob::CANCELLING;
        case WorkEvent::kPause:
          return FineTuningJob::PAUSING;
        case WorkEvent::kWithheld:
          return FineTuningJob::WITHHELD;
        case WorkEvent::kTaken:
        case WorkEvent::kTakenToScreen:
        case WorkEvent::kScreened:
        case WorkEvent::kStopped:
        case WorkEvent::kResume:
        case WorkEvent::kReleased:
        case WorkEvent::kRefused:
        case WorkEvent::kExpired:
          return std::nullopt;
      }
      return std::nullopt;
    case FineTuningJob::PAUSED:
      if (event == WorkEvent::kCancel) return FineTuningJob::CANCELLED;
      if (event == WorkEvent::kPause) return FineTuningJob::PAUSED;
      if (event == WorkEvent::kResume) return FineTuningJob::QUEUED;
      return std::nullopt;
    case FineTuningJob::CANCELLING:
      switch (event) {
        case WorkEvent::kResult:
          // The cancel came too late: what was trained is delivered.
          return FineTuningJob::SUCCEEDED;
        case WorkEvent::kUserError:
          return FineTuningJob::FAILED;
        case WorkEvent::kPlatformError:
        case WorkEvent::kPlatformErrorLast:
        case WorkEvent::kStopped:
        case WorkEvent::kPaused:
        case WorkEvent::kHandedBack:
        case WorkEvent::kLeaseExpired:
        case WorkEvent::kLeaseExpiredLast:
          return FineTuningJob::CANCELLED;
        case WorkEvent::kCancel:
          return FineTuningJob::CANCELLING;
        case WorkEvent::kWithheld:
          // Else a cancel in time would hide what the delta is, and spare its tenant's budget.
          return FineTuningJob::WITHHELD;
        case WorkEvent::kTaken:
        case WorkEvent::kTakenToScreen:
        case WorkEvent::kScreened:
        case WorkEvent::kPause:
        case WorkEvent::kResume:
        case WorkEvent::kReleased:
        case WorkEvent::kRefused:
        case WorkEvent::kExpired:
          return std::nullopt;
      }
      return std::nullopt;
    case FineTuningJob::WITHHELD:
      if (event == WorkEvent::kReleased) return FineTuningJob::SUCCEEDED;
      if (event == WorkEvent::kRefused || event == WorkEvent::kExpired) {
        return FineTuningJob::FAILED;
      }
      return std::nullopt;
    case FineTuningJob::CANCELLED:
      if (event == WorkEvent::kCancel) return FineTuningJob::CANCELLED;
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

bool IsFinal(FineTuningJob::State state) {
  return state == FineTuningJob::SUCCEEDED || state == FineTuningJob::FAILED ||
         state == FineTuningJob::CANCELLED;
}

bool IsAtRest(FineTuningJob::State state) {
  return state == FineTuningJob::WITHHELD || state == FineTuningJob::PAUSED;
}

bool IsLeased(FineTuningJob::State state) {
  return std::find(std::begin(kLeasedStates), std::end(kLeasedStates), state) !=
         std::end(kLeasedStates);
}

}  // namespace ballast::server
