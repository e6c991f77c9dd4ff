// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_THREAD_WAITING_H_
#define BALLAST_WORKER_THREAD_WAITING_H_

namespace ballast::worker {

// Makes the engine's threads sleep soon when they wait for each other. By default OpenMP's spin for
// milliseconds: as soon as anything else wants a core, a thread that is needed stands still while
// another spins, and training falls to a twentieth of its speed (measured: 914 to 43 tokens/s).
//
// OpenMP reads this from the environment before main, so the program is started anew, once, with
// the variable set; an OMP_WAIT_POLICY or GOMP_SPINCOUNT that is already there is left alone. Call
// first in main. When the new start fails, the program goes on as it was.
void ShortenThreadWaits(char** argv);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_THREAD_WAITING_H_
