// Batch normalization on several devices: each computes the passes over its own images, and all of them combine the
// numbers by channel in between.
//
// Numbers by channel are float32 arrays [rows, C]: mean, factor and bias; behind them, for a gradient, slope and shift.

#pragma once

#include "batch_norm.h"

namespace {

const float* RowOf(const ffi::AnyBuffer& by_channel, int64_t row) {
  return Data<float>(by_channel) + row * by_channel.dimensions().back();
}

Coefficients FromRows(const Layout& layout, const ffi::AnyBuffer& by_channel, bool relu) {
  return {layout, RowOf(by_channel, 0), RowOf(by_channel, 1), RowOf(by_channel, 2), relu};
}

// Computes the mean and the biased variance of each channel of x [..., C]: [2, C].
ffi::Error Moments(ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> moments, int64_t devices) {
  return Guarded("moments of a batch normalization", devices, [&] {
    WithType(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const Layout layout(x);
      float* mean = Data<float>(*moments);
      Statistics(Data<T>(x), layout, mean, mean + layout.channels);
    });
  });
}

// Normalizes x [..., C] by the numbers by channel.
ffi::Error ApplyMoments(ffi::AnyBuffer x, ffi::AnyBuffer by_channel, ffi::Result<ffi::AnyBuffer> y, bool relu,
                        int64_t devices) {
  return Guarded("batch normalization", devices, [&] {
    WithType(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const Layout layout(x);
      ApplyByChunks(Data<T>(x), layout, FromRows(layout, by_channel, relu), Data<T>(*y));
    });
  });
}

// Sums the gradients g before the ReLU, and their products with the deviations of x, over the pixels: [2, C].
ffi::Error GradientSums(ffi::AnyBuffer g, ffi::AnyBuffer x, ffi::AnyBuffer by_channel,
                        ffi::Result<ffi::AnyBuffer> sums, bool relu, int64_t devices) {
  return Guarded("gradient of a batch normalization", devices, [&] {
    WithType(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const Layout layout(x);
      const auto total = SumGradients(Data<T>(g), Data<T>(x), layout, FromRows(layout, by_channel, relu));
      std::copy(total.begin(), total.end(), Data<float>(*sums));
    });
  });
}

// Computes the gradient of x from that of the normalized x, g, by the numbers by channel.
ffi::Error ApplyGradientSums(ffi::AnyBuffer g, ffi::AnyBuffer x, ffi::AnyBuffer by_channel,
                             ffi::Result<ffi::AnyBuffer> dx, bool relu, int64_t devices) {
  return Guarded("gradient of a batch normalization", devices, [&] {
    WithType(x, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const Layout layout(x);
      ApplyGradientByChunks(Data<T>(g), Data<T>(x), layout, FromRows(layout, by_channel, relu), RowOf(by_channel, 3),
                            RowOf(by_channel, 4), Data<T>(*dx));
    });
  });
}

}  // namespace
