// Batch normalization with an optional ReLU, and its gradient, by oneDNN or by our own code.

#pragma once

#include "batch_norm.h"
#include "onednn.h"

namespace {

// A batch normalization, or its gradient, ready to run. The workspace tells where the ReLU is active.
struct Normalization {
  dnnl::primitive run;
  memory::desc x, stats, workspace, scratch;
};

std::shared_ptr<const Normalization> CompileNormalization(bool backward, bool relu, float epsilon,
                                                          const memory::dims& nhwc, memory::data_type type) {
  auto flags = dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift;
  if (relu) flags |= dnnl::normalization_flags::fuse_norm_relu;
  const dnnl::primitive_attr attr = OwnScratchpad();

  auto made = std::make_shared<Normalization>();
  made->x = Images(nhwc, type);
  made->stats = {{nhwc[3]}, memory::data_type::f32, memory::format_tag::x};
  const dnnl::batch_normalization_forward::primitive_desc forward(Engine(), dnnl::prop_kind::forward_training, made->x,
                                                                  made->x, epsilon, flags, attr);
  made->workspace = forward.workspace_desc();
  made->scratch = forward.scratchpad_desc();
  made->run = dnnl::batch_normalization_forward(forward);
  if (backward) {
    const dnnl::batch_normalization_backward::primitive_desc back(Engine(), dnnl::prop_kind::backward, made->x, made->x,
                                                                  made->x, epsilon, flags, forward, attr);
    made->scratch = back.scratchpad_desc();
    made->run = dnnl::batch_normalization_backward(back);
  }
  return made;
}

std::shared_ptr<const Normalization> NormalizationFor(bool backward, bool relu, float epsilon, const ffi::AnyBuffer& x,
                                                      int64_t devices) {
  const memory::dims nhwc = Shape(x);
  const memory::data_type type = Type(x);
  int32_t bits;  // of epsilon, as signatures are integers
  std::memcpy(&bits, &epsilon, sizeof bits);
  Signature signature = {backward, relu, bits, static_cast<int64_t>(type), devices};
  signature.insert(signature.end(), nhwc.begin(), nhwc.end());
  return Remembered<Normalization>(signature, [&] { return CompileNormalization(backward, relu, epsilon, nhwc, type); });
}

// Normalizes images x [N, H, W, C] by channel; all but images is float32. The buffer of the workspace has a byte for
// each value, which is at least what oneDNN needs, or none: then our own code computes.
ffi::Error Normalize(ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer shift, ffi::Result<ffi::AnyBuffer> y,
                     ffi::Result<ffi::AnyBuffer> mean, ffi::Result<ffi::AnyBuffer> variance,
                     ffi::Result<ffi::AnyBuffer> workspace, bool relu, float epsilon, int64_t devices) {
  return Guarded("batch normalization", devices, [&] {
    if (workspace->element_count() == 0) return NormalizeByChunks(x, scale, shift, *y, *mean, *variance, relu, epsilon);
    const auto made = NormalizationFor(false, relu, epsilon, x, devices);
    if (made->workspace.get_size() > workspace->size_bytes()) throw std::length_error("the workspace is too small");
    dnnl::stream stream(Engine());
    static thread_local Buffer works;
    made->run.execute(stream, {{DNNL_ARG_SRC, At(made->x, x.untyped_data())},
                               {DNNL_ARG_SCALE, At(made->stats, scale.untyped_data())},
                               {DNNL_ARG_SHIFT, At(made->stats, shift.untyped_data())},
                               {DNNL_ARG_DST, At(made->x, y->untyped_data())},
                               {DNNL_ARG_MEAN, At(made->stats, mean->untyped_data())},
                               {DNNL_ARG_VARIANCE, At(made->stats, variance->untyped_data())},
                               {DNNL_ARG_WORKSPACE, At(made->workspace, workspace->untyped_data())},
                               {DNNL_ARG_SCRATCHPAD, At(made->scratch, works.AtLeast(made->scratch.get_size()))}});
    stream.wait();
  });
}

// Computes the gradients of images x, scale and shift from the gradient g of the normalized images.
ffi::Error NormalizeBackward(ffi::AnyBuffer g, ffi::AnyBuffer x, ffi::AnyBuffer scale, ffi::AnyBuffer shift,
                             ffi::AnyBuffer mean, ffi::AnyBuffer variance, ffi::AnyBuffer workspace,
                             ffi::Result<ffi::AnyBuffer> dx, ffi::Result<ffi::AnyBuffer> dscale,
                             ffi::Result<ffi::AnyBuffer> dshift, bool relu, float epsilon, int64_t devices) {
  return Guarded("gradient of a batch normalization", devices, [&] {
    if (workspace.element_count() == 0) {
      return GradientByChunks(g, x, scale, shift, mean, variance, *dx, *dscale, *dshift, relu, epsilon);
    }
    const auto made = NormalizationFor(true, relu, epsilon, x, devices);
    dnnl::stream stream(Engine());
    static thread_local Buffer works;
    made->run.execute(stream, {{DNNL_ARG_DIFF_DST, At(made->x, g.untyped_data())},
                               {DNNL_ARG_SRC, At(made->x, x.untyped_data())},
                               {DNNL_ARG_SCALE, At(made->stats, scale.untyped_data())},
                               {DNNL_ARG_MEAN, At(made->stats, mean.untyped_data())},
                               {DNNL_ARG_VARIANCE, At(made->stats, variance.untyped_data())},
                               {DNNL_ARG_WORKSPACE, At(made->workspace, workspace.untyped_data())},
                               {DNNL_ARG_DIFF_SRC, At(made->x, dx->untyped_data())},
                               {DNNL_ARG_DIFF_SCALE, At(made->stats, dscale->untyped_data())},
                               {DNNL_ARG_DIFF_SHIFT, At(made->stats, dshift->untyped_data())},
                               {DNNL_ARG_SCRATCHPAD, At(made->scratch, works.AtLeast(made->scratch.get_size()))}});
    stream.wait();
  });
}

}  // namespace
