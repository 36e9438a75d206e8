// What the custom calls share: the engine, descriptions of arrays, memory of threads, and compiled primitives.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using dnnl::memory;

// Of libgomp, whose header not every compiler has.
extern "C" int omp_get_max_threads();
extern "C" int omp_get_num_threads();
extern "C" int omp_get_thread_num();
extern "C" void omp_set_num_threads(int);
extern "C" void GOMP_parallel(void (*run)(void*), void* data, unsigned threads, unsigned flags);

namespace {

using Signature = std::vector<int64_t>;

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// The type of an array, float32 or bfloat16.
memory::data_type Type(const ffi::AnyBuffer& buffer) {
  switch (buffer.element_type()) {
    case ffi::DataType::F32:
      return memory::data_type::f32;
    case ffi::DataType::BF16:
      return memory::data_type::bf16;
    default:
      throw std::invalid_argument("an array that is neither float32 nor bfloat16");
  }
}

// Images [N, H, W, C], as they lie in memory or in another layout; oneDNN names dimensions N, C, H, W.
memory::desc Images(const memory::dims& nhwc, memory::data_type type,
                    memory::format_tag layout = memory::format_tag::nhwc) {
  return {{nhwc[0], nhwc[3], nhwc[1], nhwc[2]}, type, layout};
}

// The scratchpad of a primitive is memory of the thread that runs it: see Buffer.
dnnl::primitive_attr OwnScratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

// The devices of a program each run in a thread of their own: they divide the cores. Set before anything is compiled,
// because oneDNN divides the work among the threads that it then has.
void DivideThreads(int64_t devices) {
  static const int all = omp_get_max_threads();
  omp_set_num_threads(devices < all ? all / static_cast<int>(devices) : 1);
}

memory::dims Shape(const ffi::AnyBuffer& buffer) {
  return memory::dims(buffer.dimensions().begin(), buffer.dimensions().end());
}

// Memory of a thread that grows to the largest request: new pages for every call take longer than many convolutions.
class Buffer {
 public:
  void* AtLeast(size_t bytes) {
    if (bytes > size_) {
      size_ = 0;
      data_.reset(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
      if (!data_) throw std::bad_alloc();
      size_ = bytes;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };
  std::unique_ptr<char, Free> data_;
  size_t size_ = 0;
};

memory At(const memory::desc& desc, void* data) { return memory(desc, Engine(), data); }

// Returns the primitive of a signature, compiled once: oneDNN takes longer to choose a kernel than many run.
template <typename Made, typename Make>
std::shared_ptr<const Made> Remembered(const Signature& signature, const Make& make) {
  static std::mutex making;
  static auto& compiled = *new std::map<Signature, std::shared_ptr<const Made>>;  // never destroyed: threads outlive it
  std::lock_guard<std::mutex> lock(making);
  auto& entry = compiled[signature];
  if (!entry) entry = make();
  return entry;
}

// The custom calls that run now, and the numbers of the last that came and of the next to begin.
struct Running {
  std::mutex mutex;
  std::condition_variable changed;
  int64_t count = 0, last = 0, next = 1;
};

Running& RunningNow() {
  static auto& running = *new Running;  // never destroyed: threads outlive it
  return running;
}

// A turn to use the cores: a custom call waits while as many others run as its program has devices. XLA may start
// several of one device at once, and two teams of as many threads as there are cores then wait for each other at every
// barrier. Calls begin in the order in which they come. A team of one thread has no barriers, and takes no turn.
class Turn {
 public:
  explicit Turn(int64_t devices) : taken_(omp_get_max_threads() > 1) {
    if (!taken_) return;
    Running& running = RunningNow();
    std::unique_lock<std::mutex> lock(running.mutex);
    const int64_t number = ++running.last;
    running.changed.wait(lock, [&] { return running.next == number && running.count < devices; });
    ++running.next;
    ++running.count;
    running.changed.notify_all();
  }
  ~Turn() {
    if (!taken_) return;
    std::lock_guard<std::mutex> lock(RunningNow().mutex);
    --RunningNow().count;
    RunningNow().changed.notify_all();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  const bool taken_;
};

// Runs a custom call; an exception becomes an error of XLA that begins with `what`.
template <typename Run>
ffi::Error Guarded(const char* what, int64_t devices, const Run& run) {
  try {
    DivideThreads(devices);
    const Turn turn(devices);
    run();
    return ffi::Error::Success();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN, ") + what + ": " + error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string(what) + ": " + error.what());
  }
}

}  // namespace
