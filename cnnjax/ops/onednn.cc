// Convolutions, pools, batch normalizations and their gradients, as custom calls of XLA for CPUs: by oneDNN, except for
// what batch_norm.h and few_rows.h compute.
//
// Images are NHWC. Arrays are float32, or images and kernels bfloat16.

#include "batch_norm_shards.h"
#include "onednn_batch_norm.h"
#include "onednn_convolution.h"
#include "onednn_pooling.h"

using Input = ffi::AnyBuffer;
using Numbers = ffi::Span<const int64_t>;

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("role")
                                  .Attr<Numbers>("strides")
                                  .Attr<Numbers>("padding")
                                  .Attr<Numbers>("dilation")
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("fast")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_pool, Pool,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("is_max")
                                  .Attr<bool>("backward")
                                  .Attr<int64_t>("window")
                                  .Attr<int64_t>("stride")
                                  .Attr<Numbers>("padding")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_normalize, Normalize,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<float>("epsilon")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_normalize_backward, NormalizeBackward,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<float>("epsilon")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_moments, Moments,
                              ffi::Ffi::Bind().Arg<Input>().Ret<ffi::AnyBuffer>().Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_apply_moments, ApplyMoments,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_gradient_sums, GradientSums,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("devices"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(cnnjax_apply_gradient_sums, ApplyGradientSums,
                              ffi::Ffi::Bind()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Arg<Input>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("devices"));

// Returns oneDNN's version, to be shown.
extern "C" const char* cnnjax_onednn() {
  static const std::string text = [] {
    const dnnl_version_t* v = dnnl::version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  }();
  return text.c_str();
}

// Returns whether this processor computes in bfloat16: 0 no, 1 by conversions to float32, 2 by instructions of its own.
extern "C" int cnnjax_bfloat16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [&](dnnl::cpu_isa wanted) { return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted); };
  if (has(dnnl::cpu_isa::avx512_core_bf16)) return 2;
  return has(dnnl::cpu_isa::avx512_core) ? 1 : 0;
}
