// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_RANDOM_H_
#define BALLAST_WORKER_TRAIN_RANDOM_H_

#include <cstdint>

namespace ballast::worker {

// Random numbers as a function of (seed, stream, counter), SplitMix64's finaliser twice (Steele,
// Lea, Flood 2014): the same on every machine, with no state to save in a checkpoint. Not for
// secrets.
class CounterRandom {
 public:
  CounterRandom(uint64_t seed, uint64_t stream) : key_(Mix(Mix(seed) ^ (stream + kGamma))) {}

  uint64_t Bits(uint64_t counter) const { return Mix(key_ + (counter + 1) * kGamma); }
  // In [0, 1), 53 bits.
  double Uniform(uint64_t counter) const {
    return static_cast<double>(Bits(counter) >> 11) * 0x1p-53;
  }

 private:
  static constexpr uint64_t kGamma = 0x9e3779b97f4a7c15u;
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t key_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_RANDOM_H_
