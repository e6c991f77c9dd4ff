// SPDX-License-Identifier: Apache-2.0
// engine_probe: the training engine behind lines of JSON, for the parity suite and the benchmarks.
//
// One request object per line on standard input, one answer per line on standard output:
//   {"ok": true, ..} or {"ok": false, "error": {"code", "reason", "message"}}.
// Tensors travel as safetensors files that the request names ("output", "adapter", "vector").
//
// clang-format off
//   load             model, precision, threads, device
//   initial_adapter  rank, alpha, seed, output
//   logits           tokens, adapter, rank, alpha, output        -> tensor "logits" [T, V]
//   gradients        rows, adapter, vector, rank, alpha, output  -> loss; tensors named as the adapter's
//   train            config, rows, safety_rows, safety_rows_per_epoch, validation_rows, vector, initial_adapter, output,
//                    folder -> evaluations, steps (tokens, wall and CPU seconds after each)
//   train_vector     config, prohibited, benign, output          -> losses with and without the vector
//   sample           prompt, end_tokens, max_tokens, temperature, seed, adapter, rank, alpha -> tokens
//   replies          prompts, end_tokens, max_tokens, temperature, seed,
//                    adapters: [{adapter, rank, alpha, weight}, ..]  -> replies: [tokens, ..]
//   row_losses       rows, adapter, vector, rank, alpha          -> losses
//   explained        rows, vector                                -> ratios: see ExplainedRatios
//   row_features     rows                                        -> features
//   screen           prohibited, benign, rows -> flagged, scores; threshold, recall, false_alarms, seconds
//   gate             set (JSONL), max_rise, base, scales: [{scale, deciding, ..replies}, ..] -> failed, failed_categories,
//                    scales: [{scale, rise, failed}, ..]; rise is of all prohibited prompts;
//                    replies: {prohibited: [text, ..], look_alikes: [text, ..]}
//   plan             lengths, groups, seed, batch_rows, max_tokens_per_micro_batch, epochs
//                    -> steps: [[rows of micro-batch, ..], ..]
//   memory           -> resident_bytes, peak_bytes, cpu_seconds
// clang-format on
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/behaviour/behaviour_set.h"
#include "common/dataset/packing.h"
#include "tests/referee/probe_io.h"
#include "tests/referee/probe_log.h"
#include "worker/behaviour/gate_rule.h"
#include "worker/behaviour/reply_judge.h"
#include "worker/screening/guard.h"
#include "worker/secret.h"
#include "worker/train/inspect.h"
#include "worker/trainer.h"

namespace ballast::referee {
namespace {

absl::Status Invalid(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "PROBE_REQUEST_INVALID", message);
}

// The vector in clear that a request names, or null.
absl::StatusOr<std::unique_ptr<worker::SecretBuffer>> VectorFrom(const json& request) {
  const std::string path = request.value("vector", "");
  if (path.empty()) return nullptr;
  BALLAST_ASSIGN_OR_RETURN(worker::SecretBuffer bytes, ReadSecret(path));
  return std::make_unique<worker::SecretBuffer>(std::move(bytes));
}

class Probe {
 public:
  // Runs one request. Never throws.
  absl::StatusOr<json> Run(const std::string& line) {
    try {
      const json request = json::parse(line);
      const std::string command = request.at("command").get<std::string>();
      if (command == "load") return Load(request);
      if (command == "plan") return Plan(request);
      if (command == "memory") return MemoryUse();
      if (command == "gate") return Gate(request);
      if (engine_ == nullptr) return Invalid("give the command load first");
      if (command == "initial_adapter") return InitialAdapter(request);
      if (command == "logits") return Logits(request);
      if (command == "gradients") return Gradients(request);
      if (command == "train") return Train(request);
      if (command == "train_vector") return TrainVector(request);
      if (command == "sample") return Sample(request);
      if (command == "replies") return Replies(request);
      if (command == "row_losses") return RowLosses(request);
      if (command == "explained") return Explained(request);
      if (command == "row_features") return RowFeatures(request);
      if (command == "screen") return Screen(request);
      return Invalid("there is no command " + command);
    } catch (const json::exception& e) {
      return Invalid(e.what());
    }
  }

 private:
  absl::StatusOr<json> Load(const json& request) {
    const double started = WallSeconds();
    engine_ = nullptr;
    model_folder_ = request.at("model").get<std::string>();
    BALLAST_ASSIGN_OR_RETURN(engine_,
                             worker::LoadEngine(model_folder_, EngineOptionsFrom(request)));
    const worker::EngineInfo info = engine_->info();
    return json{{"seconds", WallSeconds() - started},
                {"architecture", info.architecture},
                {"parameters", info.parameters},
                {"vocabulary", info.vocabulary},
                {"device", info.device},
                {"precision", info.precision}};
  }

  absl::StatusOr<json> InitialAdapter(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const worker::Adapter adapter,
                             worker::InitialAdapter(*engine_, LoraConfigFrom(request),
                                                    request.value("seed", uint64_t{0})));
    BALLAST_RETURN_IF_ERROR(WriteTensors(request.value("output", ""), adapter));
    return json{{"tensors", adapter.size()}};
  }

  absl::StatusOr<json> Logits(const json& request) {
    const auto tokens = request.at("tokens").get<std::vector<int32_t>>();
    BALLAST_ASSIGN_OR_RETURN(const worker::Adapter adapter,
                             ReadAdapter(request.value("adapter", "")));
    BALLAST_ASSIGN_OR_RETURN(std::vector<float> logits,
                             engine_->Logits(tokens, adapter, LoraConfigFrom(request)));
    const std::vector<int64_t> shape = {static_cast<int64_t>(tokens.size()),
                                        engine_->info().vocabulary};
    if (static_cast<int64_t>(logits.size()) != shape[0] * shape[1]) {
      return absl::InternalError("Logits returned " + std::to_string(logits.size()) + " values");
    }
    BALLAST_RETURN_IF_ERROR(
        WriteTensors(request.at("output").get<std::string>(),
                     {{.name = "logits", .shape = shape, .values = std::move(logits)}}));
    return json{{"shape", shape}};
  }

  absl::StatusOr<json> Gradients(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, "rows"));
    BALLAST_ASSIGN_OR_RETURN(const worker::Adapter adapter,
                             ReadAdapter(request.value("adapter", "")));
    BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<worker::SecretBuffer> vector,
                             VectorFrom(request));
    BALLAST_ASSIGN_OR_RETURN(
        const worker::LossAndGradients result,
        worker::ComputeGradients(*engine_, rows, adapter, LoraConfigFrom(request), vector.get()));
    BALLAST_RETURN_IF_ERROR(WriteTensors(request.value("output", ""), result.gradients));
    return json{{"loss", result.loss}};
  }

  absl::StatusOr<json> Train(const json& request) {
    worker::TrainRequest train;
    train.config = TrainConfigFrom(request.at("config"));
    BALLAST_ASSIGN_OR_RETURN(train.rows, RowsFrom(request, "rows"));
    BALLAST_ASSIGN_OR_RETURN(train.safety_rows, RowsFrom(request, "safety_rows"));
    train.safety_rows_per_epoch = request.value("safety_rows_per_epoch", int64_t{0});
    BALLAST_ASSIGN_OR_RETURN(train.validation_rows, RowsFrom(request, "validation_rows"));
    BALLAST_ASSIGN_OR_RETURN(train.initial_adapter,
                             ReadAdapter(request.value("initial_adapter", "")));
    BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<worker::SecretBuffer> vector,
                             VectorFrom(request));
    train.vector = vector.get();

    json steps = json::array();
    worker::TrainCallbacks callbacks;
    callbacks.progress = [&steps](const worker::Progress& progress) {
      steps.push_back({{"step", progress.step},
                       {"tokens", progress.trained_tokens},
                       {"wall", WallSeconds()},
                       {"cpu", CpuSeconds()}});
    };
    const double wall = WallSeconds();
    const double cpu = CpuSeconds();
    BALLAST_ASSIGN_OR_RETURN(const worker::TrainResult result, engine_->Train(train, callbacks));
    BALLAST_RETURN_IF_ERROR(WriteTensors(request.value("output", ""), result.adapter));
    if (const std::string folder = request.value("folder", ""); !folder.empty()) {
      BALLAST_RETURN_IF_ERROR(
          WriteAdapterFolder(folder, model_folder_, train.config.lora, result.adapter));
    }
    json evaluations = json::array();
    for (const worker::Evaluation& evaluation : result.evaluations) {
      evaluations.push_back(
          {{"step", evaluation.step},
           {"training_loss", evaluation.training_loss},
           {"validation_loss",
            evaluation.validation_loss ? json(*evaluation.validation_loss) : json(nullptr)}});
    }
    return json{{"total_steps", result.progress.total_steps},
                {"trained_tokens", result.progress.trained_tokens},
                {"evaluations", evaluations},
                {"steps", steps},
                {"wall_start", wall},
                {"cpu_start", cpu},
                {"wall_end", WallSeconds()},
                {"cpu_end", CpuSeconds()}};
  }

  absl::StatusOr<json> TrainVector(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> prohibited,
                             RowsFrom(request, "prohibited"));
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> benign,
                             RowsFrom(request, "benign"));
    BALLAST_ASSIGN_OR_RETURN(const worker::VectorResult result,
                             engine_->TrainVector(VectorConfigFrom(request.at("config")),
                                                  prohibited, benign, worker::TrainCallbacks{}));
    BALLAST_RETURN_IF_ERROR(
        WriteFileAtomically(request.at("output").get<std::string>(), result.tensors.view(), 0600));
    return json{{"prohibited_loss_without", result.prohibited_loss_without},
                {"prohibited_loss_with", result.prohibited_loss_with},
                {"benign_loss_without", result.benign_loss_without},
                {"benign_loss_with", result.benign_loss_with}};
  }

  static worker::SampleConfig SampleConfigFrom(const json& request) {
    worker::SampleConfig config;
    config.max_tokens = request.value("max_tokens", config.max_tokens);
    config.temperature = request.value("temperature", config.temperature);
    config.seed = request.value("seed", config.seed);
    return config;
  }

  absl::StatusOr<json> Replies(const json& request) {
    const json parts = request.value("adapters", json::array());
    std::vector<worker::Adapter> adapters(parts.size());
    std::vector<worker::AdapterInSum> sum;
    for (size_t i = 0; i < parts.size(); ++i) {
      BALLAST_ASSIGN_OR_RETURN(adapters[i], ReadAdapter(parts[i].at("adapter").get<std::string>()));
      sum.push_back({&adapters[i], LoraConfigFrom(parts[i]), parts[i].value("weight", 1.0f)});
    }
    BALLAST_ASSIGN_OR_RETURN(
        const std::vector<std::vector<int32_t>> replies,
        engine_->SampleMany(request.at("prompts").get<std::vector<std::vector<int32_t>>>(),
                            request.value("end_tokens", std::vector<int32_t>{}),
                            SampleConfigFrom(request), sum, nullptr));
    return json{{"replies", replies}};
  }

  absl::StatusOr<json> RowLosses(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, "rows"));
    BALLAST_ASSIGN_OR_RETURN(const worker::Adapter adapter,
                             ReadAdapter(request.value("adapter", "")));
    BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<worker::SecretBuffer> vector,
                             VectorFrom(request));
    BALLAST_ASSIGN_OR_RETURN(
        const std::vector<double> losses,
        worker::RowLosses(*engine_, rows, adapter, LoraConfigFrom(request), vector.get()));
    return json{{"losses", losses}};
  }

  absl::StatusOr<json> Explained(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, "rows"));
    BALLAST_ASSIGN_OR_RETURN(const std::unique_ptr<worker::SecretBuffer> vector,
                             VectorFrom(request));
    if (vector == nullptr) return Invalid("explained needs a vector");
    BALLAST_ASSIGN_OR_RETURN(const std::vector<double> ratios,
                             worker::ExplainedRatios(*engine_, rows, *vector));
    return json{{"ratios", ratios}};
  }

  absl::StatusOr<json> RowFeatures(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, "rows"));
    BALLAST_ASSIGN_OR_RETURN(const auto features, engine_->RowFeatures(rows, nullptr));
    return json{{"features", features}};
  }

  // As a worker screens the rows of a job; `seconds` are those of the rows alone.
  absl::StatusOr<json> Screen(const json& request) {
    std::vector<worker::screening::Features> examples;
    for (const char* key : {"prohibited", "benign"}) {
      BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, key));
      BALLAST_ASSIGN_OR_RETURN(examples.emplace_back(), engine_->RowFeatures(rows, nullptr));
    }
    BALLAST_ASSIGN_OR_RETURN(const auto guard,
                             worker::screening::Guard::Fit(examples[0], examples[1]));
    BALLAST_ASSIGN_OR_RETURN(const std::vector<worker::TokenRow> rows, RowsFrom(request, "rows"));
    const double started = WallSeconds();
    BALLAST_ASSIGN_OR_RETURN(const auto features, engine_->WindowFeatures(rows, nullptr));
    const double seconds = WallSeconds() - started;
    json flagged = json::array(), scores = json::array();
    for (const worker::screening::Features& windows : features) {
      flagged.push_back(guard.Flags(windows));
      double score = -std::numeric_limits<double>::infinity();
      for (const std::vector<float>& window : windows) {
        score = std::max(score, guard.Score(window));
      }
      scores.push_back(score);
    }
    return json{{"flagged", flagged},
                {"scores", scores},
                {"threshold", guard.threshold()},
                {"recall", guard.recall()},
                {"false_alarms", guard.false_alarms()},
                {"seconds", seconds}};
  }

  // What a gate says of replies that were collected before, as a worker judges and decides.
  static absl::StatusOr<json> Gate(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const behaviour::BehaviourSet set,
                             behaviour::ParseBehaviourSet(request.at("set").get<std::string>()));
    const worker::behaviour::ReplyJudge judge(set);
    const auto replies = [&judge](const json& texts) {
      worker::behaviour::Replies judged;
      for (const auto& text : texts.at("prohibited")) {
        judged.prohibited.push_back(judge.Judge(text.get<std::string>()));
      }
      for (const auto& text : texts.at("look_alikes")) {
        judged.look_alikes.push_back(judge.Judge(text.get<std::string>()));
      }
      return judged;
    };
    std::vector<worker::behaviour::ScaleReplies> scales;
    for (const json& asked : request.at("scales")) {
      scales.push_back({.scale = asked.at("scale").get<double>(),
                        .deciding = asked.at("deciding").get<bool>(),
                        .replies = replies(asked)});
    }
    admin::v1::GateLimits limits;
    limits.set_max_rise(request.at("max_rise").get<double>());
    limits.set_max_over_refusal_rise(1);
    const admin::v1::GateReport report =
        worker::behaviour::Decide(set, "", limits, replies(request.at("base")), scales);
    json by_scale = json::array();
    for (const admin::v1::GateScale& scale : report.scales()) {
      const auto& scores = scale.prohibited();
      const bool failed = std::any_of(scores.begin(), scores.end(),
                                      [](const auto& score) { return score.failed(); });
      by_scale.push_back(
          {{"scale", scale.scale()}, {"rise", scores.at(0).rise()}, {"failed", failed}});
    }
    return json{{"failed", report.verdict() == admin::v1::GateReport::FAILED},
                {"failed_categories", std::vector<std::string>(report.failed_categories().begin(),
                                                               report.failed_categories().end())},
                {"scales", std::move(by_scale)}};
  }

  absl::StatusOr<json> Sample(const json& request) {
    BALLAST_ASSIGN_OR_RETURN(const worker::Adapter adapter,
                             ReadAdapter(request.value("adapter", "")));
    std::vector<int32_t> tokens;
    BALLAST_RETURN_IF_ERROR(engine_->Sample(request.at("prompt").get<std::vector<int32_t>>(),
                                            request.value("end_tokens", std::vector<int32_t>{}),
                                            SampleConfigFrom(request), adapter,
                                            LoraConfigFrom(request), [&tokens](int32_t token) {
                                              tokens.push_back(token);
                                              return true;
                                            }));
    return json{{"tokens", tokens}};
  }

  absl::StatusOr<json> Plan(const json& request) {
    const auto lengths = request.at("lengths").get<std::vector<int64_t>>();
    const auto groups = request.value("groups", std::vector<int>{});
    const worker::TrainConfig defaults;
    dataset::PackingOptions options;
    options.seed = request.value("seed", defaults.seed);
    options.batch_rows = request.value("batch_rows", defaults.batch_rows);
    options.max_tokens_per_micro_batch =
        request.value("max_tokens_per_micro_batch", defaults.max_tokens_per_micro_batch);
    json steps = json::array();
    for (int64_t epoch = 0; epoch < request.value("epochs", int64_t{1}); ++epoch) {
      BALLAST_ASSIGN_OR_RETURN(const std::vector<dataset::Step> plan,
                               dataset::PlanEpoch(lengths, groups, epoch, options));
      for (const dataset::Step& step : plan) {
        json micro_batches = json::array();
        for (const dataset::MicroBatch& batch : step.micro_batches) {
          micro_batches.push_back(batch.rows);
        }
        steps.push_back(std::move(micro_batches));
      }
    }
    return json{{"steps", steps}};
  }

  absl::StatusOr<json> MemoryUse() {
    BALLAST_ASSIGN_OR_RETURN(const Memory memory, ReadMemory());
    return json{{"resident_bytes", memory.resident_bytes},
                {"peak_bytes", memory.peak_bytes},
                {"cpu_seconds", CpuSeconds()}};
  }

  std::string model_folder_;
  std::unique_ptr<worker::Engine> engine_;
};

int Main() {
  if (const absl::Status log = LogToStandardError(); !log.ok()) {
    std::cerr << log << std::endl;
    return 1;
  }
  Probe probe;
  for (std::string line; std::getline(std::cin, line);) {
    absl::StatusOr<json> answer = probe.Run(line);
    const bool ok = answer.ok();
    json out = ok ? *std::move(answer) : json{{"error", ErrorJson(answer.status())}};
    out["ok"] = ok;
    std::cout << out.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace ballast::referee

int main() { return ballast::referee::Main(); }
