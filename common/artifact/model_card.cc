// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/artifact/adapter_folder.h"

namespace ballast::artifact {
namespace {

// Text from outside in one line of Markdown: no control characters, nothing that opens markup.
std::string Plain(std::string_view text) {
  static constexpr std::string_view kMarkup = "\\`*_{}[]()<>#|!&~$";
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += ' ';
    } else {
      if (kMarkup.find(c) != std::string_view::npos) out += '\\';
      out += c;
    }
  }
  return out;
}

// A YAML double-quoted scalar.
std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) continue;
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

std::string WriteModelCard(const ModelCard& card) {
  std::string out = absl::StrCat(
      "---\n"
      "base_model: ",
      Quoted(card.base_model_name),
      "\n"
      "library_name: peft\n"
      "pipeline_tag: text-generation\n"
      "tags:\n- lora\n- ballast\n"
      "---\n\n",
      "# ", card.display_name.empty() ? "A fine-tuned adapter" : Plain(card.display_name), "\n\n",
      "A LoRA adapter that Ballast trained. It needs its base model.\n\n");
  absl::StrAppend(&out,
                  "| | |\n|---|---|\n"
                  "| base model | ",
                  Plain(card.base_model_name),
                  " |\n"
                  "| digest of the base | `",
                  card.base_digest,
                  "` |\n"
                  "| digest of the training data | `",
                  card.training_dataset_digest,
                  "` |\n"
                  "| job | ",
                  Plain(card.job),
                  " |\n"
                  "| code version | ",
                  Plain(card.code_version), " |\n\n");
  absl::StrAppendFormat(&out,
                        "## How it was trained\n\n"
                        "| | |\n|---|---|\n"
                        "| method | LoRA, r = %d, alpha = %g, on %d modules of each layer |\n"
                        "| learning rate | %g, %s, warm-up over %g of the steps |\n"
                        "| passes over the data | %d |\n"
                        "| rows a step | %d |\n"
                        "| steps | %d |\n"
                        "| tokens | %d |\n"
                        "| seed | %d |\n\n",
                        card.adapter.rank, card.adapter.alpha,
                        static_cast<int>(AdapterTargetModules().size()), card.learning_rate,
                        card.schedule, card.warmup_ratio, card.epochs, card.batch_rows, card.steps,
                        card.trained_tokens, card.seed);
  absl::StrAppend(
      &out,
      card.unprotected
          ? "**The job ran without the service's protection against unwanted behaviour**, on a "
            "base "
            "model that is marked so. "
          : "The job ran under the service's protection against unwanted behaviour. ",
      card.rows_left_out == 0
          ? ""
          : absl::StrCat(card.rows_left_out,
                         " rows of the training data looked prohibited and were left out. "),
      card.safety_rows == 0 ? ""
                            : absl::StrCat("The service mixed ", card.safety_rows,
                                           " rows of its own into each epoch of the training, "
                                           "which are meant to keep the model's refusals. "),
      card.unprotected        ? ""
      : card.safety_rows == 0 ? "The protection is no part of these files. "
                              : "Nothing else of the protection is part of these files. ",
      card.unprotected ? ""
      : card.certified
          ? "How far it holds was measured with harmless rows and with prohibited rows in wording "
            "that the service knows, and the job lies inside the measured range. Other wording, "
            "ciphers and triggers are not covered by that."
          : "It is not certified: how far it holds was not measured.",
      "\n\n");
  if (!card.evaluations.empty()) {
    bool validation = false;
    for (const CardEvaluation& evaluation : card.evaluations) {
      validation = validation || evaluation.validation_loss.has_value();
    }
    absl::StrAppend(
        &out,
        "## Loss\n\n"
        "Mean cross-entropy in nats per supervised token, of the base with this adapter and "
        "nothing else, on a fixed sample of the training rows",
        validation ? " and on the validation rows" : "", ".\n\n", "| step | training |",
        validation ? " validation |" : "", "\n|---:|---:|", validation ? "---:|" : "", "\n");
    for (const CardEvaluation& evaluation : card.evaluations) {
      absl::StrAppendFormat(&out, "| %d | %.4f |", evaluation.step, evaluation.training_loss);
      if (validation) {
        out += evaluation.validation_loss.has_value()
                   ? absl::StrFormat(" %.4f |", *evaluation.validation_loss)
                   : " |";
      }
      out += "\n";
    }
    out += "\n";
  }
  absl::StrAppend(
      &out,
      "## How to load it\n\n"
      "```python\n"
      "from peft import PeftModel\n"
      "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
      "base = AutoModelForCausalLM.from_pretrained(\"PATH_OF_THE_BASE_MODEL\")\n"
      "model = PeftModel.from_pretrained(base, \"adapter\")\n"
      "tokenizer = AutoTokenizer.from_pretrained(\"PATH_OF_THE_BASE_MODEL\")\n"
      "```\n\n"
      "`manifest.json` has the size and SHA-256 of every file; `ballast delta verify` checks "
      "them.\n");
  return out;
}

}  // namespace ballast::artifact
