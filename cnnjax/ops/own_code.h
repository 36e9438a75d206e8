// What our own code for CPUs shares: functions for each width of vectors, bfloat16, and a loop over all threads.

#pragma once

#include <algorithm>
#include <atomic>

#include "onednn.h"

// Such functions are compiled for each width of vectors, and chosen when the library is loaded. Clang cannot do so with
// templates.
#ifdef __clang__
#define FOR_EACH_WIDTH
constexpr bool kHasWidths = false;
#else
#define FOR_EACH_WIDTH __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
constexpr bool kHasWidths = true;
#endif
#define ALWAYS_INLINE __attribute__((always_inline))

namespace {

constexpr int64_t kVector = 16;  // values in the widest vector

struct BFloat16 {
  uint16_t bits;
};

inline ALWAYS_INLINE float Wide(float value) { return value; }

inline ALWAYS_INLINE float Wide(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof bits);
  return result;
}

inline ALWAYS_INLINE void Store(float value, float& to) { to = value; }

// Rounds ties to even, and keeps NaN.
inline ALWAYS_INLINE void Store(float value, BFloat16& to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

// Calls run(i) for each i below `parts`, divided among the threads. An exception must not leave a thread.
template <typename Run>
void ForEachPart(int64_t parts, const Run& run) {
  struct Work {
    int64_t parts;
    const Run& run;
    std::atomic<bool> failed{false};
  } work{parts, run};
  const auto threads = static_cast<unsigned>(std::min<int64_t>(parts, omp_get_max_threads()));
  GOMP_parallel(
      [](void* data) {
        Work& work = *static_cast<Work*>(data);
        try {
          for (int64_t i = omp_get_thread_num(); i < work.parts; i += omp_get_num_threads()) work.run(i);
        } catch (const std::exception&) {
          work.failed = true;
        }
      },
      &work, std::max(threads, 1u), 0);
  if (work.failed) throw std::bad_alloc();
}

template <typename T>
T* Data(const ffi::AnyBuffer& array) {
  return static_cast<T*>(array.untyped_data());
}

}  // namespace
