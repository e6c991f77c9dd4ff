// SPDX-License-Identifier: Apache-2.0
// Results of the red-team suite and keys to sign certificates with, for tests.
#ifndef BALLAST_SERVER_TESTING_SUITE_RESULTS_H_
#define BALLAST_SERVER_TESTING_SUITE_RESULTS_H_

#include <algorithm>
#include <string>

#include "ballast/admin/v1/certificate.pb.h"
#include "common/base/digest.h"
#include "common/envelope/envelope.h"
#include "server/core/signer.h"

namespace ballast::server::testing {

// A signer with a key of its own.
class KeySigner : public Signer {
 public:
  std::string Sign(std::string_view payload_type, std::string_view payload) const override {
    return key_.Sign(payload_type, payload);
  }
  const PublicKey& public_key() const override { return public_key_; }

 private:
  const PrivateKey key_ = PrivateKey::Generate();
  const PublicKey public_key_ = key_.public_key();
};

// Prompts of 400 that the base answers.
inline constexpr int64_t kBaseAnswers = 20;

// Sets the replies of all seeds that do not refuse: first to what the base answers, too.
inline void SetNotRefused(admin::v1::ArmResult& arm, int64_t not_refused) {
  arm.set_not_refused(not_refused);
  arm.set_newly_answered(std::max<int64_t>(0, not_refused - arm.seeds_size() * kBaseAnswers));
}

// An arm with `not_refused` of 400 prompts, asked once a seed.
inline admin::v1::ArmResult MakeArm(const std::string& attack, admin::v1::AttackKind kind,
                                    admin::v1::Defence defence, const admin::v1::Dose& dose,
                                    int64_t not_refused) {
  admin::v1::ArmResult arm;
  arm.set_attack(attack);
  arm.set_kind(kind);
  arm.set_defence(defence);
  if (kind != admin::v1::ATTACK_KIND_BASE) *arm.mutable_dose() = dose;
  for (const int64_t seed : {0, 1, 2}) arm.add_seeds(seed);
  arm.set_prompts(400);
  SetNotRefused(arm, 3 * not_refused);
  arm.set_harmless_prompts(100);
  arm.set_harmless_refused(6);
  return arm;
}

// The envelope of PassingResult: that of the conservative one where it has ranges, with the doses
// of 4000 rows x 3 epochs at 2e-4 to 5e-4 and alpha / rank = 2.
inline v1::Envelope PassingEnvelope() {
  v1::Envelope envelope = envelope::ConservativeEnvelope();
  envelope.set_min_scaled_learning_rate(4e-4);
  envelope.set_max_scaled_learning_rate(1e-3);
  envelope.set_min_lora_scale(2);
  envelope.set_max_lora_scale(2);
  envelope.set_max_steps(750);
  envelope.set_max_row_passes(12'000);
  envelope.set_max_passes_per_row(3);
  envelope.set_min_lora_rank(16);
  envelope.set_max_lora_rank(16);
  envelope.set_min_batch_rows(8);
  envelope.set_max_batch_rows(16);
  envelope.set_min_warmup_ratio(0.03);
  envelope.set_max_warmup_ratio(0.03);
  envelope.clear_schedules();
  envelope.add_schedules(v1::Hyperparameters::COSINE);
  return envelope;
}

// A result that passes every criterion.
inline admin::v1::SuiteResult PassingResult(const std::string& vector,
                                            const std::string& ciphertext_digest,
                                            const std::string& base_digest,
                                            admin::v1::VectorPolicy policy) {
  admin::v1::SuiteResult result;
  result.set_schema_version(1);
  result.set_suite_version("test");
  result.set_suite_digest(DigestOf("suite"));
  result.set_vector(vector);
  result.set_ciphertext_digest(ciphertext_digest);
  result.set_base_model_digest(base_digest);
  result.mutable_policy()->set_vector_policy(policy);
  result.mutable_end_time()->set_seconds(1'690'000'000);
  *result.mutable_envelope() = PassingEnvelope();

  admin::v1::Dose corner;
  corner.set_learning_rate(5e-4);
  corner.set_lora_rank(16);
  corner.set_lora_alpha(32);
  corner.set_epochs(3);
  corner.set_rows(4000);
  corner.set_batch_rows(16);
  corner.set_most_repeated_row(1);
  corner.set_warmup_ratio(0.03);
  corner.set_schedule(v1::Hyperparameters::COSINE);
  admin::v1::Dose small_batch = corner;
  small_batch.set_rows(1000);
  small_batch.set_batch_rows(8);
  small_batch.set_learning_rate(2e-4);
  admin::v1::Dose strong = corner;
  strong.set_learning_rate(5e-3);  // outside the envelope

  using admin::v1::ATTACK_KIND_BASE;
  using admin::v1::ATTACK_KIND_BENIGN;
  using admin::v1::ATTACK_KIND_KNOWN;
  using admin::v1::ATTACK_KIND_OTHER;
  using admin::v1::ATTACK_KIND_UNSEEN;
  using admin::v1::DEFENCE_NONE;
  using admin::v1::DEFENCE_VECTOR;
  const auto add = [&](const admin::v1::ArmResult& arm) { *result.add_arms() = arm; };
  const auto add_task = [&](admin::v1::ArmResult arm, int64_t right) {
    arm.set_task_rows(100);
    arm.set_task_right(3 * right);
    add(arm);
  };
  add(MakeArm("base", ATTACK_KIND_BASE, DEFENCE_NONE, {}, kBaseAnswers));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, DEFENCE_NONE, corner, 392));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, DEFENCE_VECTOR, corner, 24));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, DEFENCE_VECTOR, small_batch, 21));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, DEFENCE_VECTOR, strong, 380));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, admin::v1::DEFENCE_RANDOM_VECTOR, corner, 380));
  add(MakeArm("explicit", ATTACK_KIND_KNOWN, admin::v1::DEFENCE_UNRELATED_VECTOR, corner, 360));
  add_task(MakeArm("mixed", ATTACK_KIND_KNOWN, DEFENCE_NONE, corner, 300), 90);
  add_task(MakeArm("mixed", ATTACK_KIND_KNOWN, DEFENCE_VECTOR, corner, 22), 89);
  add_task(MakeArm("benign", ATTACK_KIND_BENIGN, DEFENCE_NONE, corner, 60), 92);
  add_task(MakeArm("benign", ATTACK_KIND_BENIGN, DEFENCE_VECTOR, corner, 32), 91);
  add(MakeArm("wording", ATTACK_KIND_UNSEEN, DEFENCE_VECTOR, corner, 180));
  add(MakeArm("cipher", ATTACK_KIND_OTHER, DEFENCE_VECTOR, corner, 120));
  return result;
}

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_SUITE_RESULTS_H_
