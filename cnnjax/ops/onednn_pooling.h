// Max and average pooling over windows, and their gradients.

#pragma once

#include "onednn.h"

namespace {

// A pool, ready to run. The gradient of max pooling needs to know where each maximum was: a run forward tells.
struct Pooling {
  dnnl::primitive forward, backward;
  memory::desc x, y, which, scratch, back_scratch;
};

std::shared_ptr<const Pooling> CompilePooling(bool is_max, bool backward, const memory::dims& x, const memory::dims& y,
                                              memory::data_type type, int64_t window, int64_t stride,
                                              ffi::Span<const int64_t> padding) {
  const auto kind = is_max ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_include_padding;
  const memory::dims step = {stride, stride}, size = {window, window}, gaps = {0, 0};
  const memory::dims low = {padding[0], padding[2]}, high = {padding[1], padding[3]};
  const dnnl::primitive_attr attr = OwnScratchpad();

  auto made = std::make_shared<Pooling>();
  made->x = Images(x, type);
  made->y = Images(y, type);
  const auto prop = backward ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
  const dnnl::pooling_forward::primitive_desc forward(Engine(), prop, kind, made->x, made->y, step, size, gaps, low,
                                                      high, attr);
  made->forward = dnnl::pooling_forward(forward);
  made->which = forward.workspace_desc();
  made->scratch = forward.scratchpad_desc();
  if (backward) {
    const dnnl::pooling_backward::primitive_desc back(Engine(), kind, made->x, made->y, step, size, gaps, low, high,
                                                          forward, attr);
    made->backward = dnnl::pooling_backward(back);
    made->back_scratch = back.scratchpad_desc();
  }
  return made;
}

// Pools images x; backward, computes the gradient of x from that of the output, `first`, and x.
ffi::Error Pool(ffi::AnyBuffer first, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> out, bool is_max, bool backward,
                int64_t window, int64_t stride, ffi::Span<const int64_t> padding, int64_t devices) {
  return Guarded("pool", devices, [&] {
    const memory::dims of_x = backward ? Shape(*out) : Shape(x), of_y = backward ? Shape(first) : Shape(*out);
    Signature signature = {is_max, backward, static_cast<int64_t>(Type(x)), window, stride, devices};
    signature.insert(signature.end(), padding.begin(), padding.end());
    signature.insert(signature.end(), of_x.begin(), of_x.end());
    const auto made = Remembered<Pooling>(
        signature, [&] { return CompilePooling(is_max, backward, of_x, of_y, Type(x), window, stride, padding); });

    dnnl::stream stream(Engine());
    static thread_local Buffer works, results, places;
    const memory which = At(made->which, places.AtLeast(made->which.get_size()));
    if (is_max || !backward) {
      void* y = backward ? results.AtLeast(made->y.get_size()) : out->untyped_data();
      made->forward.execute(stream, {{DNNL_ARG_SRC, At(made->x, x.untyped_data())},
                                     {DNNL_ARG_DST, At(made->y, y)},
                                     {DNNL_ARG_WORKSPACE, which},
                                     {DNNL_ARG_SCRATCHPAD, At(made->scratch, works.AtLeast(made->scratch.get_size()))}});
    }
    if (backward) {
      void* work = works.AtLeast(made->back_scratch.get_size());
      made->backward.execute(stream, {{DNNL_ARG_DIFF_DST, At(made->y, first.untyped_data())},
                                      {DNNL_ARG_DIFF_SRC, At(made->x, out->untyped_data())},
                                      {DNNL_ARG_WORKSPACE, which},
                                      {DNNL_ARG_SCRATCHPAD, At(made->back_scratch, work)}});
    }
    stream.wait();
  });
}

}  // namespace
