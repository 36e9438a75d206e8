// Convolutions and their gradients.
//
// Kernels are HWIO. A convolution is linear in its images x, its kernel w and, as a scalar, in the gradient g of its
// output, so there are three products of two of these: the output of (x, w), the gradient of the images from (g, w),
// and that of the kernel from (x, g).

#pragma once

#include "few_rows.h"
#include "onednn.h"

namespace {

enum Role : int64_t { kOutput = 0, kImages = 1, kKernel = 2 };

// An operand or the result, as XLA has it and as oneDNN takes it: a copy where the layout or the type differs.
struct Argument {
  memory::desc ours, theirs, scratch;
  dnnl::primitive convert;
  bool converts = false;
};

// One convolution, ready to run.
struct Compiled {
  dnnl::primitive run;
  memory::desc scratch;
  Argument x, w, y;
};

// What a convolution is: all that a primitive is compiled for.
struct Convolution {
  Role role;
  memory::data_type type;  // of its arrays
  memory::dims x, w, y, strides, gaps, low, high;
  int64_t groups;
  bool fast;  // float32 products may be computed in bfloat16
};

// A kernel [H, W, inputs / groups, outputs] as it lies in memory, or in a layout that oneDNN is free to choose.
memory::desc Kernel(const memory::dims& hwio, int64_t groups, memory::data_type type, bool free) {
  const int64_t h = hwio[0], w = hwio[1], in = hwio[2], out = hwio[3], each = out / groups;
  memory::dims shape = {out, in, h, w}, strides = {1, out, w * in * out, in * out};
  if (groups > 1) {
    shape = {groups, each, in, h, w};
    strides = {each, 1, out, w * in * out, in * out};
  }
  if (free) return {shape, type, memory::format_tag::any};
  return {shape, type, strides};
}

Argument MakeArgument(const memory::desc& ours, const memory::desc& theirs, bool is_result) {
  Argument made;
  made.ours = ours;
  made.theirs = theirs;
  made.converts = ours != theirs;
  if (made.converts) {
    const memory::desc &from = is_result ? theirs : ours, &to = is_result ? ours : theirs;
    const dnnl::reorder::primitive_desc desc(Engine(), from, Engine(), to, OwnScratchpad());
    made.scratch = desc.scratchpad_desc();
    made.convert = dnnl::reorder(desc);
  }
  return made;
}

// oneDNN's reference code is right, and slow.
bool IsReference(const dnnl::primitive_desc_base& desc) {
  return std::string(desc.impl_info_str()).rfind("ref", 0) == 0;
}

// oneDNN 3.2 lets threads overwrite each other's copies of strided images of few channels: kernel gradients of 1x1
// convolutions are then wrong, now and then.
bool IsRacy(const Convolution& c, const dnnl::primitive_desc_base& desc) {
  const bool strided = c.strides[0] > 1 || c.strides[1] > 1;
  return c.role == kKernel && strided && c.w[2] < 16 && std::string(desc.impl_info_str()).rfind("jit_1x1", 0) == 0;
}

// Returns how the name of faster code begins, or null where oneDNN 3.2 takes the fastest itself. With AVX2 alone, its
// newer code takes up to 1.4 times as long for 1x1 and depthwise convolutions. Its code for strided convolutions takes
// 10 to 100 times as long for the image gradients of depthwise ones in bfloat16.
const char* Faster(const Convolution& c, const std::string& first) {
  const bool is_1x1 = c.w[0] == 1 && c.w[1] == 1 && c.strides[0] == 1 && c.strides[1] == 1;
  if (is_1x1 && (first == "brgconv_1x1:avx2" || first == "brg_fwd:avx2+brgconv_1x1:avx2")) return "jit_1x1:avx2";
  if (first == "brdgmm_dw:avx2") return "jit_dw:avx2";
  const bool is_depthwise = c.w[2] == 1 && c.groups == c.w[3];
  if (is_depthwise && first.rfind("brgconv_strided", 0) == 0) return "jit_dw";
  return nullptr;
}

// Images of one pixel each, as fully connected layers have them, take a third of the time as one image of all pixels.
Convolution JoinPixels(Convolution c) {
  const memory::dims one = {1, 1}, none = {0, 0};
  const auto is_pixel = [&](const memory::dims& shape) { return shape[1] == 1 && shape[2] == 1; };
  const bool is_1x1 = c.w[0] == 1 && c.w[1] == 1 && c.low == none && c.high == none && c.groups == 1;
  if (is_1x1 && is_pixel(c.x) && is_pixel(c.y)) {
    std::swap(c.x[0], c.x[1]), std::swap(c.y[0], c.y[1]);
    c.strides = one;
  }
  return c;
}

// Tells whether a convolution, its pixels joined, is a product that few_rows.h computes.
bool HasFewRows(const Convolution& c) {
  const memory::dims one = {1, 1}, none = {0, 0};
  return kHasWidths && c.type == memory::data_type::bf16 && c.role != kKernel && c.groups == 1 && c.x[0] == 1 &&
         c.x[2] == 1 && c.x[1] == c.y[1] && c.y[2] == 1 && c.x[1] <= kMostRows && c.w[0] == 1 && c.w[1] == 1 &&
         c.w[2] * c.w[3] >= kLeastKernel && c.strides == one && c.low == none && c.high == none;
}

// Describes a convolution with the code that is fastest for it. `make` describes it with what oneDNN takes first.
template <typename Make>
auto Fastest(const Convolution& c, const Make& make) {
  auto desc = make();
  if (const char* faster = Faster(c, desc.impl_info_str())) {
    do {
      if (std::string(desc.impl_info_str()).rfind(faster, 0) == 0) return desc;
    } while (desc.next_impl());
    desc = make();
  }
  return desc;
}

// With AVX2 alone, oneDNN computes the gradient of a kernel up to 1.8 times as fast on images in blocks of 8 channels.
// Copying them pays if each value is used often enough: measured, from about 150 products for a pair of them on.
bool PrefersBlocks(const Convolution& c, const std::string& code) {
  const int64_t in = c.w[2], out = c.w[3];
  return (code == "jit:avx2" || code == "jit_1x1:avx2") && c.groups == 1 && in % 8 == 0 && out % 8 == 0 &&
         c.strides == memory::dims{1, 1} && c.w[0] * c.w[1] * in * out >= 150 * (in + out);
}

// Compiles a convolution that computes on arrays of the given type. The gradient of a kernel is summed in float32, so
// that it is rounded once. Returns null if `only_fast` and oneDNN has nothing but reference code.
std::shared_ptr<const Compiled> CompileFor(const Convolution& c, memory::data_type type, bool only_fast) {
  const auto kind = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attr = OwnScratchpad();
  if (c.fast) attr.set_fpmath_mode(dnnl::fpmath_mode::bf16);
  const memory::desc any = Kernel(c.w, c.groups, type, true);
  memory::desc x = Images(c.x, type), y = Images(c.y, type);
  const memory::desc gradient = Kernel(c.w, c.groups, memory::data_type::f32, true);
  const memory::desc our_x = Images(c.x, c.type), our_y = Images(c.y, c.type);
  const memory::desc our_w = Kernel(c.w, c.groups, c.type, false);

  auto made = std::make_shared<Compiled>();
  const auto forward = [&] {
    return dnnl::convolution_forward::primitive_desc(Engine(), dnnl::prop_kind::forward_training, kind, x, any, y,
                                                     c.strides, c.gaps, c.low, c.high, attr);
  };
  const auto hint = forward();  // has to live as long as the descriptions of gradients, which look for code with it
  const auto keep = [&](const auto& desc, const memory::desc& w) {
    if (only_fast && IsReference(desc)) return false;
    made->x = MakeArgument(our_x, x, c.role == kImages);
    made->w = MakeArgument(our_w, w, c.role == kKernel);
    made->y = MakeArgument(our_y, y, c.role == kOutput);
    made->scratch = desc.scratchpad_desc();
    return true;
  };
  if (c.role == kOutput) {
    const auto desc = Fastest(c, forward);
    if (!keep(desc, desc.weights_desc())) return nullptr;
    made->run = dnnl::convolution_forward(desc);
  } else if (c.role == kImages) {
    const auto desc = Fastest(c, [&] {
      return dnnl::convolution_backward_data::primitive_desc(Engine(), kind, x, any, y, c.strides, c.gaps, c.low,
                                                             c.high, hint, attr);
    });
    if (!keep(desc, desc.weights_desc())) return nullptr;
    made->run = dnnl::convolution_backward_data(desc);
  } else {
    const auto make = [&] {
      return dnnl::convolution_backward_weights::primitive_desc(Engine(), kind, x, gradient, y, c.strides, c.gaps,
                                                                c.low, c.high, hint, attr);
    };
    auto desc = make();
    while (IsRacy(c, desc) && desc.next_impl()) {
    }
    if (PrefersBlocks(c, desc.impl_info_str())) {
      x = Images(c.x, type, memory::format_tag::nChw8c), y = Images(c.y, type, memory::format_tag::nChw8c);
      desc = make();
    }
    if (!keep(desc, desc.diff_weights_desc())) return nullptr;
    made->run = dnnl::convolution_backward_weights(desc);
  }
  return made;
}

// Compiles a convolution. One of bfloat16 for which oneDNN has no fast code computes on copies in float32.
std::shared_ptr<const Compiled> Compile(const Convolution& c) {
  if (c.type != memory::data_type::f32) {
    try {
      if (auto made = CompileFor(c, c.type, true)) return made;
    } catch (const dnnl::error& error) {
      if (error.status != dnnl_unimplemented) throw;
    }
  }
  return CompileFor(c, memory::data_type::f32, false);
}

ffi::Error Convolve(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> out, int64_t role_number,
                    ffi::Span<const int64_t> strides, ffi::Span<const int64_t> padding,
                    ffi::Span<const int64_t> dilation, int64_t groups, bool fast, int64_t devices) {
  return Guarded("convolution", devices, [&] {
    const Role role = static_cast<Role>(role_number);
    const ffi::AnyBuffer result = *out, x = role == kImages ? result : a, w = role == kKernel ? result : b,
                         y = role == kOutput ? result : role == kImages ? a : b;
    const Convolution convolution = JoinPixels({role,
                                                Type(a),
                                                Shape(x),
                                                Shape(w),
                                                Shape(y),
                                                {strides.begin(), strides.end()},
                                                {dilation[0] - 1, dilation[1] - 1},  // oneDNN counts pixels between
                                                {padding[0], padding[2]},
                                                {padding[1], padding[3]},
                                                groups,
                                                fast});
    if (HasFewRows(convolution)) {
      const auto product = role == kOutput ? ProductOfFewRows : TransposedProductOfFewRows;
      return product(Data<BFloat16>(a), Data<BFloat16>(b), Data<BFloat16>(result), convolution.x[1], convolution.w[2],
                     convolution.w[3]);
    }
    Signature signature = {role, static_cast<int64_t>(convolution.type), groups, fast, devices};
    for (const auto& part : {convolution.x, convolution.w, convolution.y, convolution.strides, convolution.gaps,
                             convolution.low, convolution.high}) {
      signature.insert(signature.end(), part.begin(), part.end());
    }
    const auto made = Remembered<Compiled>(signature, [&] { return Compile(convolution); });

    dnnl::stream stream(Engine());
    static thread_local Buffer copies[3], works, convert_works;
    const auto convert = [&](const Argument& argument, void* from, void* to, bool is_result) {
      void* work = convert_works.AtLeast(argument.scratch.get_size());
      argument.convert.execute(stream, {{DNNL_ARG_FROM, At(is_result ? argument.theirs : argument.ours, from)},
                                        {DNNL_ARG_TO, At(is_result ? argument.ours : argument.theirs, to)},
                                        {DNNL_ARG_SCRATCHPAD, At(argument.scratch, work)}});
    };
    struct Use {
      const Argument& argument;
      void* data;
      int id;
      bool is_result;
    };
    const Use uses[3] = {
        {made->x, x.untyped_data(), role == kImages ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, role == kImages},
        {made->w, w.untyped_data(), role == kKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, role == kKernel},
        {made->y, y.untyped_data(), role == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, role == kOutput}};
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SCRATCHPAD, At(made->scratch, works.AtLeast(made->scratch.get_size()))}};
    for (int i = 0; i < 3; ++i) {
      const auto& [argument, data, id, is_result] = uses[i];
      void* theirs = argument.converts ? copies[i].AtLeast(argument.theirs.get_size()) : data;
      if (argument.converts && !is_result) convert(argument, data, theirs, false);
      arguments.insert({id, At(argument.theirs, theirs)});
    }
    made->run.execute(stream, arguments);
    for (int i = 0; i < 3; ++i) {
      const auto& [argument, data, id, is_result] = uses[i];
      if (argument.converts && is_result) convert(argument, copies[i].AtLeast(0), data, true);
    }
    stream.wait();
  });
}

}  // namespace
