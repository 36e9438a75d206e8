// Convolutions, pools and their gradients by oneDNN, as custom calls of XLA for CPUs.
//
// Images are NHWC and kernels HWIO, float32. A convolution is linear in its images x, its kernel w and, as a scalar,
// in the gradient g of its output, so the three products of two of these are all there is: the output of (x, w), the
// gradient of the images from (g, w), and that of the kernel from (x, g).

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using dnnl::memory;

extern "C" int omp_get_max_threads();  // of libgomp, whose header not every compiler has
extern "C" void omp_set_num_threads(int);

namespace {

enum Role : int64_t { kOutput = 0, kImages = 1, kKernel = 2 };

// One convolution, ready to run: oneDNN's own choice of the kernel's layout, and a conversion to or from it.
struct Compiled {
  dnnl::primitive run, convert;
  bool converts = false;
  memory::desc x, y, plain_w, w, scratch, convert_scratch;
};

using Signature = std::vector<int64_t>;

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Maps [N, H, W, C] as they lie in memory; oneDNN names dimensions N, C, H, W.
memory::desc Maps(const memory::dims& nhwc) {
  return {{nhwc[0], nhwc[3], nhwc[1], nhwc[2]}, memory::data_type::f32, memory::format_tag::nhwc};
}

// What a primitive works in is a thread's own memory: see Buffer.
dnnl::primitive_attr OwnScratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

// A kernel [H, W, inputs / groups, outputs] as it lies in memory, or in a layout that oneDNN is free to choose.
memory::desc Kernel(const memory::dims& hwio, int64_t groups, bool free) {
  const int64_t h = hwio[0], w = hwio[1], in = hwio[2], out = hwio[3], each = out / groups;
  memory::dims shape = {out, in, h, w}, strides = {1, out, w * in * out, in * out};
  if (groups > 1) {
    shape = {groups, each, in, h, w};
    strides = {each, 1, out, w * in * out, in * out};
  }
  if (free) return {shape, memory::data_type::f32, memory::format_tag::any};
  return {shape, memory::data_type::f32, strides};
}

std::shared_ptr<const Compiled> Compile(Role role, const memory::dims& x, const memory::dims& w, const memory::dims& y,
                                        ffi::Span<const int64_t> strides, ffi::Span<const int64_t> padding,
                                        ffi::Span<const int64_t> dilation, int64_t groups) {
  const auto kind = dnnl::algorithm::convolution_direct;
  const memory::dims step(strides.begin(), strides.end());
  const memory::dims gaps = {dilation[0] - 1, dilation[1] - 1};  // oneDNN counts the pixels between
  const memory::dims low = {padding[0], padding[2]}, high = {padding[1], padding[3]};
  const dnnl::primitive_attr attr = OwnScratchpad();

  auto made = std::make_shared<Compiled>();
  made->x = Maps(x);
  made->y = Maps(y);
  made->plain_w = Kernel(w, groups, false);
  const memory::desc any = Kernel(w, groups, true);
  const auto hint = dnnl::convolution_forward::primitive_desc(Engine(), dnnl::prop_kind::forward_training, kind,
                                                              made->x, any, made->y, step, gaps, low, high, attr);
  const auto keep = [&](const auto& desc, const memory::desc& kernel) {
    made->w = kernel;
    made->scratch = desc.scratchpad_desc();
  };
  if (role == kOutput) {
    keep(hint, hint.weights_desc());
    made->run = dnnl::convolution_forward(hint);
  } else if (role == kImages) {
    dnnl::convolution_backward_data::primitive_desc desc(Engine(), kind, made->x, any, made->y, step, gaps, low, high,
                                                         hint, attr);
    keep(desc, desc.weights_desc());
    made->run = dnnl::convolution_backward_data(desc);
  } else {
    dnnl::convolution_backward_weights::primitive_desc desc(Engine(), kind, made->x, any, made->y, step, gaps, low,
                                                            high, hint, attr);
    keep(desc, desc.diff_weights_desc());
    made->run = dnnl::convolution_backward_weights(desc);
  }
  made->converts = made->w != made->plain_w;
  if (made->converts) {
    const memory::desc from = role == kKernel ? made->w : made->plain_w, to = role == kKernel ? made->plain_w : made->w;
    dnnl::reorder::primitive_desc desc(Engine(), from, Engine(), to, attr);
    made->convert_scratch = desc.scratchpad_desc();
    made->convert = dnnl::reorder(desc);
  }
  return made;
}

// The devices of a program each run in a thread of their own: they divide the cores. Set before anything is compiled,
// because oneDNN divides the work for the threads that it then has.
void DivideThreads(int64_t devices) {
  static const int all = omp_get_max_threads();
  omp_set_num_threads(devices < all ? all / static_cast<int>(devices) : 1);
}

memory::dims Shape(const ffi::AnyBuffer& buffer) {
  return memory::dims(buffer.dimensions().begin(), buffer.dimensions().end());
}

// Memory of a thread that grows with what it is asked for: to get pages anew for every call takes longer than many
// convolutions.
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

// What was made for a signature, or is made now: oneDNN takes longer to choose a kernel than many run.
template <typename Made, typename Make>
std::shared_ptr<const Made> Remembered(const Signature& signature, const Make& make) {
  static std::mutex making;
  static auto& known = *new std::map<Signature, std::shared_ptr<const Made>>;  // never destroyed: threads outlive it
  std::lock_guard<std::mutex> lock(making);
  auto& entry = known[signature];
  if (!entry) entry = make();
  return entry;
}

ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out,
                    int64_t role_number, ffi::Span<const int64_t> strides, ffi::Span<const int64_t> padding,
                    ffi::Span<const int64_t> dilation, int64_t groups, int64_t devices) try {
  DivideThreads(devices);
  const Role role = static_cast<Role>(role_number);
  struct Operand {
    memory::dims shape;
    void* data;
  };
  const Operand first = {Shape(a), a.untyped_data()}, second = {Shape(b), b.untyped_data()},
                result = {Shape(*out), out->untyped_data()};
  const Operand x = role == kImages ? result : first;
  const Operand w = role == kKernel ? result : second;
  const Operand y = role == kOutput ? result : role == kImages ? first : second;

  Signature signature = {role, groups, devices};
  for (const auto& part : {x.shape, w.shape, y.shape}) signature.insert(signature.end(), part.begin(), part.end());
  for (const auto& part : {strides, padding, dilation}) signature.insert(signature.end(), part.begin(), part.end());
  const auto made = Remembered<Compiled>(
      signature, [&] { return Compile(role, x.shape, w.shape, y.shape, strides, padding, dilation, groups); });

  dnnl::stream stream(Engine());
  static thread_local Buffer kernels, works, convert_works;
  void* kernel = made->converts ? kernels.AtLeast(made->w.get_size()) : w.data;
  void* work = works.AtLeast(made->scratch.get_size());
  const auto convert = [&](void* from, void* to) {
    void* work = convert_works.AtLeast(made->convert_scratch.get_size());
    made->convert.execute(stream, {{DNNL_ARG_FROM, At(role == kKernel ? made->w : made->plain_w, from)},
                                   {DNNL_ARG_TO, At(role == kKernel ? made->plain_w : made->w, to)},
                                   {DNNL_ARG_SCRATCHPAD, At(made->convert_scratch, work)}});
  };
  if (made->converts && role != kKernel) convert(w.data, kernel);
  const int x_arg = role == kImages ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC;
  const int w_arg = role == kKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS;
  const int y_arg = role == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
  made->run.execute(stream, {{x_arg, At(made->x, x.data)},
                             {w_arg, At(made->w, kernel)},
                             {y_arg, At(made->y, y.data)},
                             {DNNL_ARG_SCRATCHPAD, At(made->scratch, work)}});
  if (made->converts && role == kKernel) convert(kernel, w.data);
  stream.wait();
  return ffi::Error::Success();
} catch (const dnnl::error& error) {
  return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
} catch (const std::exception& error) {
  return ffi::Error::Internal(std::string("convolution: ") + error.what());
}

// A pool over windows, ready to run. The gradient of a largest needs to know which one it was: a run forward says it.
struct Pooling {
  dnnl::primitive forward, backward;
  memory::desc x, y, which, scratch, back_scratch;
};

std::shared_ptr<const Pooling> CompilePooling(bool biggest, bool back, const memory::dims& x, const memory::dims& y,
                                              int64_t window, int64_t stride, ffi::Span<const int64_t> padding) {
  const auto kind = biggest ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_include_padding;
  const memory::dims step = {stride, stride}, size = {window, window}, gaps = {0, 0};
  const memory::dims low = {padding[0], padding[2]}, high = {padding[1], padding[3]};
  const dnnl::primitive_attr attr = OwnScratchpad();

  auto made = std::make_shared<Pooling>();
  made->x = Maps(x);
  made->y = Maps(y);
  const auto prop = back ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
  const dnnl::pooling_forward::primitive_desc forward(Engine(), prop, kind, made->x, made->y, step, size, gaps, low,
                                                      high, attr);
  made->forward = dnnl::pooling_forward(forward);
  made->which = forward.workspace_desc();
  made->scratch = forward.scratchpad_desc();
  if (back) {
    const dnnl::pooling_backward::primitive_desc backward(Engine(), kind, made->x, made->y, step, size, gaps, low, high,
                                                          forward, attr);
    made->backward = dnnl::pooling_backward(backward);
    made->back_scratch = backward.scratchpad_desc();
  }
  return made;
}

// Of maps x the largest or the mean of each window; back, of a gradient of these and of x, that of x.
ffi::Error Pool(ffi::AnyBuffer first, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> out, bool biggest, bool back,
                int64_t window, int64_t stride, ffi::Span<const int64_t> padding, int64_t devices) try {
  DivideThreads(devices);
  const memory::dims of_x = back ? Shape(*out) : Shape(x), of_y = back ? Shape(first) : Shape(*out);
  Signature signature = {biggest, back, window, stride, devices};
  signature.insert(signature.end(), padding.begin(), padding.end());
  signature.insert(signature.end(), of_x.begin(), of_x.end());
  const auto made = Remembered<Pooling>(
      signature, [&] { return CompilePooling(biggest, back, of_x, of_y, window, stride, padding); });

  dnnl::stream stream(Engine());
  static thread_local Buffer works, results, places;
  const memory which = At(made->which, places.AtLeast(made->which.get_size()));
  if (biggest || !back) {
    void* y = back ? results.AtLeast(made->y.get_size()) : out->untyped_data();
    made->forward.execute(stream, {{DNNL_ARG_SRC, At(made->x, x.untyped_data())},
                                   {DNNL_ARG_DST, At(made->y, y)},
                                   {DNNL_ARG_WORKSPACE, which},
                                   {DNNL_ARG_SCRATCHPAD, At(made->scratch, works.AtLeast(made->scratch.get_size()))}});
  }
  if (back) {
    void* work = works.AtLeast(made->back_scratch.get_size());
    made->backward.execute(stream, {{DNNL_ARG_DIFF_DST, At(made->y, first.untyped_data())},
                                    {DNNL_ARG_DIFF_SRC, At(made->x, out->untyped_data())},
                                    {DNNL_ARG_WORKSPACE, which},
                                    {DNNL_ARG_SCRATCHPAD, At(made->back_scratch, work)}});
  }
  stream.wait();
  return ffi::Error::Success();
} catch (const dnnl::error& error) {
  return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
} catch (const std::exception& error) {
  return ffi::Error::Internal(std::string("pool: ") + error.what());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("role")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("padding")
                                  .Attr<ffi::Span<const int64_t>>("dilation")
                                  .Attr<int64_t>("groups")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_pool, Pool,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("biggest")
                                  .Attr<bool>("back")
                                  .Attr<int64_t>("window")
                                  .Attr<int64_t>("stride")
                                  .Attr<ffi::Span<const int64_t>>("padding")
                                  .Attr<int64_t>("devices"));

// oneDNN's version, to be shown.
extern "C" const char* cnnjax_onednn() {
  static const std::string text = [] {
    const dnnl_version_t* v = dnnl::version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }();
  return text.c_str();
}
