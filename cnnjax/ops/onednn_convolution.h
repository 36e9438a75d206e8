// Convolutions and their gradients.
//
// Kernels are HWIO. A convolution is linear in its images x, its kernel w and, as a scalar, in the gradient g of its
// output, so there are three products of two of these: the output of (x, w), the gradient of the images from (g, w),
// and that of the kernel from (x, g).

#pragma once

#include "onednn.h"

namespace {

enum Role : int64_t { kOutput = 0, kImages = 1, kKernel = 2 };

// One convolution, ready to run: oneDNN's own choice of the kernel's layout, and a conversion to or from it.
struct Compiled {
  dnnl::primitive run, convert;
  bool converts = false;
  memory::desc x, y, plain_w, w, scratch, convert_scratch;
};

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
  made->x = Images(x);
  made->y = Images(y);
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

ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out,
                    int64_t role_number, ffi::Span<const int64_t> strides, ffi::Span<const int64_t> padding,
                    ffi::Span<const int64_t> dilation, int64_t groups, int64_t devices) {
  return Guarded("convolution", devices, [&] {
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
  });
}

}  // namespace
