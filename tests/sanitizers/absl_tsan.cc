// SPDX-License-Identifier: Apache-2.0
// Tells ThreadSanitizer about the locks of an abseil that was not built for it. Debian's libabsl
// keeps a mutex's synchronization out of the sanitizer's sight, so everything that an absl::Mutex
// guards would be reported as a race. The linker sends our calls of these functions here (--wrap,
// cmake/tsan.cmake): they call the real one and name the order that it makes, by acquire and
// release on the lock's address.
//
// Not covered: a Condition runs inside libabsl before our acquire (tsan.supp suppresses by
// library), and Notification::HasBeenNotified, which is inline.
#include <sanitizer/tsan_interface.h>

#include "absl/base/options.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

// Mangled names: _ZN4absl 7debianN <rest>, where debianN is Debian's inline namespace. A member
// function takes `this` as its first argument in the Itanium C++ ABI, so plain functions stand in
// for members.
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)
static_assert(sizeof(STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME)) == sizeof("debianN"),
              "the mangled names below assume an inline namespace of seven letters");
#define PASTE_OF(a, b, c) a##b##c
#define PASTE(a, b, c) PASTE_OF(a, b, c)
#define WRAPPED(prefix, name) \
  PASTE(__wrap_##prefix##4absl7, ABSL_OPTION_INLINE_NAMESPACE_NAME, name)
#define REAL(prefix, name) PASTE(__real_##prefix##4absl7, ABSL_OPTION_INLINE_NAMESPACE_NAME, name)

// Takes `object` as a lock: acquires it when the call returns.
#define ACQUIRES(name)                    \
  void REAL(_ZN, name)(void* object);     \
  void WRAPPED(_ZN, name)(void* object) { \
    REAL(_ZN, name)(object);              \
    __tsan_acquire(object);               \
  }
#define RELEASES(name)                    \
  void REAL(_ZN, name)(void* object);     \
  void WRAPPED(_ZN, name)(void* object) { \
    __tsan_release(object);               \
    REAL(_ZN, name)(object);              \
  }
#define TRIES(name)                             \
  bool REAL(_ZN, name)(void* object);           \
  bool WRAPPED(_ZN, name)(void* object) {       \
    const bool taken = REAL(_ZN, name)(object); \
    if (taken) __tsan_acquire(object);          \
    return taken;                               \
  }
// Gives `object` up while it waits, and has it again at the end.
#define WAITS(name)                                              \
  void REAL(_ZN, name)(void* object, const void* condition);     \
  void WRAPPED(_ZN, name)(void* object, const void* condition) { \
    __tsan_release(object);                                      \
    REAL(_ZN, name)(object, condition);                          \
    __tsan_acquire(object);                                      \
  }
#define WAITS_UNTIL(name, Limit)                                              \
  bool REAL(_ZN, name)(void* object, const void* condition, Limit limit);     \
  bool WRAPPED(_ZN, name)(void* object, const void* condition, Limit limit) { \
    __tsan_release(object);                                                   \
    const bool held = REAL(_ZN, name)(object, condition, limit);              \
    __tsan_acquire(object);                                                   \
    return held;                                                              \
  }

extern "C" {

ACQUIRES(5Mutex4LockEv)
ACQUIRES(5Mutex10ReaderLockEv)
RELEASES(5Mutex6UnlockEv)
RELEASES(5Mutex12ReaderUnlockEv)
TRIES(5Mutex7TryLockEv)
TRIES(5Mutex13ReaderTryLockEv)
WAITS(5Mutex5AwaitERKNS0_9ConditionE)
WAITS(5Mutex8LockWhenERKNS0_9ConditionE)
WAITS_UNTIL(5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE, absl::Duration)
WAITS_UNTIL(5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, absl::Time)
WAITS_UNTIL(5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE, absl::Duration)
WAITS_UNTIL(5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE, absl::Time)

// CondVar: what is given up and taken again is the mutex, the first argument after `this`.
void REAL(_ZN, 7CondVar4WaitEPNS0_5MutexE)(void* condition, void* mutex);
void WRAPPED(_ZN, 7CondVar4WaitEPNS0_5MutexE)(void* condition, void* mutex) {
  __tsan_release(mutex);
  REAL(_ZN, 7CondVar4WaitEPNS0_5MutexE)(condition, mutex);
  __tsan_acquire(mutex);
}
#define CONDVAR_WAITS_UNTIL(name, Limit)                               \
  bool REAL(_ZN, name)(void* condition, void* mutex, Limit limit);     \
  bool WRAPPED(_ZN, name)(void* condition, void* mutex, Limit limit) { \
    __tsan_release(mutex);                                             \
    const bool expired = REAL(_ZN, name)(condition, mutex, limit);     \
    __tsan_acquire(mutex);                                             \
    return expired;                                                    \
  }
CONDVAR_WAITS_UNTIL(7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE, absl::Duration)
CONDVAR_WAITS_UNTIL(7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, absl::Time)

RELEASES(12Notification6NotifyEv)
void REAL(_ZNK, 12Notification19WaitForNotificationEv)(const void* object);
void WRAPPED(_ZNK, 12Notification19WaitForNotificationEv)(const void* object) {
  REAL(_ZNK, 12Notification19WaitForNotificationEv)(object);
  __tsan_acquire(const_cast<void*>(object));
}
#define NOTIFIED_BEFORE(name, Limit)                          \
  bool REAL(_ZNK, name)(const void* object, Limit limit);     \
  bool WRAPPED(_ZNK, name)(const void* object, Limit limit) { \
    const bool notified = REAL(_ZNK, name)(object, limit);    \
    if (notified) __tsan_acquire(const_cast<void*>(object));  \
    return notified;                                          \
  }
NOTIFIED_BEFORE(12Notification30WaitForNotificationWithTimeoutENS0_8DurationE, absl::Duration)
NOTIFIED_BEFORE(12Notification31WaitForNotificationWithDeadlineENS0_4TimeE, absl::Time)

bool REAL(_ZN, 15BlockingCounter14DecrementCountEv)(void* object);
bool WRAPPED(_ZN, 15BlockingCounter14DecrementCountEv)(void* object) {
  __tsan_release(object);
  return REAL(_ZN, 15BlockingCounter14DecrementCountEv)(object);
}
ACQUIRES(15BlockingCounter4WaitEv)

}  // extern "C"
