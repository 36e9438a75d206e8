// Batch normalization with an optional ReLU, and its gradient, for any number of channels.
//
// oneDNN computes channels that do not fill its vectors one by one. Here an array is read as rows of several pixels,
// whole vectors long, with the coefficients of the channels repeated along a row; and in chunks that stay in a core's
// cache. The chunks are the same for any number of threads, and so are the sums.

#pragma once

#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "own_code.h"

namespace {

constexpr int64_t kShortestRow = 256, kChunk = 32768;  // values

using Row = std::vector<float>;

// Pointers to the coefficients of each column. Results below `least`, 0 or minus infinity, are replaced by it.
struct ColumnCoefficients {
  const float *mean, *factor, *bias;
  float least;
};

// Adds the values of each column to `sums`.
template <typename T>
FOR_EACH_WIDTH void AddColumns(const T* x, int64_t count, int64_t row, float* __restrict sums) {
  for (int64_t start = 0; start < count; start += row) {
    const int64_t end = std::min(row, count - start);
    for (int64_t i = 0; i < end; ++i) sums[i] += Wide(x[start + i]);
  }
}

// Adds the squared deviations of each column to `sums`.
template <typename T>
FOR_EACH_WIDTH void AddSquares(const T* x, int64_t count, int64_t row, const float* mean, float* __restrict sums) {
  for (int64_t start = 0; start < count; start += row) {
    const int64_t end = std::min(row, count - start);
    for (int64_t i = 0; i < end; ++i) {
      const float deviation = Wide(x[start + i]) - mean[i];
      sums[i] += deviation * deviation;
    }
  }
}

template <typename T>
FOR_EACH_WIDTH void Apply(const T* x, int64_t count, int64_t row, ColumnCoefficients c, T* __restrict y) {
  for (int64_t start = 0; start < count; start += row) {
    const int64_t end = std::min(row, count - start);
    for (int64_t i = 0; i < end; ++i) {
      const float value = (Wide(x[start + i]) - c.mean[i]) * c.factor[i] + c.bias[i];
      Store(value < c.least ? c.least : value, y[start + i]);
    }
  }
}

// Returns the gradient of a value before the ReLU, in column i, from that behind it.
inline ALWAYS_INLINE float Passed(float gradient, float deviation, const ColumnCoefficients& c, int64_t i) {
  return deviation * c.factor[i] + c.bias[i] <= c.least ? 0 : gradient;
}

// Adds the gradients of each column to `sums`, and their products with the deviations of x to `products`.
template <typename T>
FOR_EACH_WIDTH void AddGradients(const T* g, const T* x, int64_t count, int64_t row, ColumnCoefficients c,
                                 float* __restrict sums, float* __restrict products) {
  for (int64_t start = 0; start < count; start += row) {
    const int64_t end = std::min(row, count - start);
    for (int64_t i = 0; i < end; ++i) {
      const float deviation = Wide(x[start + i]) - c.mean[i], passed = Passed(Wide(g[start + i]), deviation, c, i);
      sums[i] += passed;
      products[i] += passed * deviation;
    }
  }
}

template <typename T>
FOR_EACH_WIDTH void ApplyGradient(const T* g, const T* x, int64_t count, int64_t row, ColumnCoefficients c,
                                  const float* slope, const float* shift, T* __restrict dx) {
  for (int64_t start = 0; start < count; start += row) {
    const int64_t end = std::min(row, count - start);
    for (int64_t i = 0; i < end; ++i) {
      const float deviation = Wide(x[start + i]) - c.mean[i], passed = Passed(Wide(g[start + i]), deviation, c, i);
      Store(passed * c.factor[i] + deviation * slope[i] + shift[i], dx[start + i]);
    }
  }
}

// How images [..., C] are divided.
struct Layout {
  int64_t count, channels, row, chunk, chunks;

  explicit Layout(const ffi::AnyBuffer& x) : count(x.element_count()), channels(x.dimensions().back()) {
    const int64_t whole = channels < kShortestRow ? std::lcm(channels, kVector) : channels;
    row = whole * ((kShortestRow + whole - 1) / whole);
    chunk = row * std::max<int64_t>(1, kChunk / row);
    chunks = (count + chunk - 1) / chunk;
  }
  int64_t Size(int64_t i) const { return std::min(chunk, count - i * chunk); }
  double Pixels(int64_t i) const { return static_cast<double>(Size(i) / channels); }

  // Calls run(i, c) for each chunk i and channel c, in the order of arrays [chunks, channels].
  template <typename Run>
  void ForEach(const Run& run) const {
    for (int64_t i = 0; i < chunks; ++i) {
      for (int64_t c = 0; c < channels; ++c) run(i, c);
    }
  }

  // Returns memory for a value of each chunk and channel.
  float* ForChunks(Buffer& buffer) const {
    return static_cast<float*>(buffer.AtLeast(chunks * channels * sizeof(float)));
  }

  // Repeats the values of the channels along a row.
  Row Repeat(const float* by_channel) const {
    Row repeated(row);
    for (int64_t start = 0; start < row; start += channels) {
      std::copy(by_channel, by_channel + channels, repeated.begin() + start);
    }
    return repeated;
  }
  // Sums a row over the columns of each channel.
  void Fold(const Row& sums, float* by_channel) const {
    std::copy(sums.begin(), sums.begin() + channels, by_channel);
    for (int64_t start = channels; start < row; start += channels) {
      for (int64_t c = 0; c < channels; ++c) by_channel[c] += sums[start + c];
    }
  }
};

// Computes the mean and the biased variance of each channel, chunk by chunk: Chan, Golub, LeVeque 1979, eq. 2.1.
template <typename T>
void Statistics(const T* x, const Layout& layout, float* mean, float* variance) {
  const int64_t channels = layout.channels;
  static thread_local Buffer buffers[2];
  float *means = layout.ForChunks(buffers[0]), *squares = layout.ForChunks(buffers[1]);
  ForEachPart(layout.chunks, [&](int64_t i) {
    const T* values = x + i * layout.chunk;
    float* of_chunk = means + i * channels;
    Row sums(layout.row);
    AddColumns(values, layout.Size(i), layout.row, sums.data());
    layout.Fold(sums, of_chunk);
    for (int64_t c = 0; c < channels; ++c) of_chunk[c] /= static_cast<float>(layout.Pixels(i));
    const Row center = layout.Repeat(of_chunk);
    std::fill(sums.begin(), sums.end(), 0);
    AddSquares(values, layout.Size(i), layout.row, center.data(), sums.data());
    layout.Fold(sums, squares + i * channels);
  });
  const double pixels = layout.count / channels;
  std::vector<double> center(channels), square(channels);
  layout.ForEach([&](int64_t i, int64_t c) { center[c] += means[i * channels + c] * layout.Pixels(i) / pixels; });
  layout.ForEach([&](int64_t i, int64_t c) {
    const double distance = means[i * channels + c] - center[c];
    square[c] += squares[i * channels + c] + distance * distance * layout.Pixels(i);
  });
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = static_cast<float>(center[c]), variance[c] = static_cast<float>(square[c] / pixels);
  }
}

// The coefficients of a normalization, along a row, from those of the channels.
struct Coefficients {
  Row mean, factor, bias;
  float least;

  Coefficients(const Layout& layout, const float* means, const float* factors, const float* biases, bool relu)
      : mean(layout.Repeat(means)),
        factor(layout.Repeat(factors)),
        bias(layout.Repeat(biases)),
        least(relu ? 0 : -std::numeric_limits<float>::infinity()) {}

  ColumnCoefficients Pointers() const { return {mean.data(), factor.data(), bias.data(), least}; }
};

// Returns the factor of each channel: its scale, divided by the standard deviation.
Row Factors(const Layout& layout, const float* variance, const float* scale, float epsilon) {
  Row factors(layout.channels);
  for (int64_t c = 0; c < layout.channels; ++c) factors[c] = scale[c] / std::sqrt(variance[c] + epsilon);
  return factors;
}

template <typename T>
void ApplyByChunks(const T* x, const Layout& layout, const Coefficients& coefficients, T* y) {
  ForEachPart(layout.chunks, [&](int64_t i) {
    const int64_t start = i * layout.chunk;
    Apply(x + start, layout.Size(i), layout.row, coefficients.Pointers(), y + start);
  });
}

// Returns the sums over the pixels, by channel, of the gradients before the ReLU and, behind these, of their products
// with the deviations of x.
template <typename T>
std::vector<double> SumGradients(const T* g, const T* x, const Layout& layout, const Coefficients& coefficients) {
  const int64_t channels = layout.channels;
  static thread_local Buffer buffers[2];
  float *sums = layout.ForChunks(buffers[0]), *products = layout.ForChunks(buffers[1]);
  ForEachPart(layout.chunks, [&](int64_t i) {
    const int64_t start = i * layout.chunk;
    Row sum(layout.row), product(layout.row);
    AddGradients(g + start, x + start, layout.Size(i), layout.row, coefficients.Pointers(), sum.data(), product.data());
    layout.Fold(sum, sums + i * channels), layout.Fold(product, products + i * channels);
  });
  std::vector<double> total(2 * channels);
  layout.ForEach([&](int64_t i, int64_t c) {
    total[c] += sums[i * channels + c], total[channels + c] += products[i * channels + c];
  });
  return total;
}

template <typename T>
void ApplyGradientByChunks(const T* g, const T* x, const Layout& layout, const Coefficients& coefficients,
                           const float* slopes, const float* shifts, T* dx) {
  const Row slope = layout.Repeat(slopes), shift = layout.Repeat(shifts);
  ForEachPart(layout.chunks, [&](int64_t i) {
    const int64_t start = i * layout.chunk;
    ApplyGradient(g + start, x + start, layout.Size(i), layout.row, coefficients.Pointers(), slope.data(), shift.data(),
                  dx + start);
  });
}

// Calls run with a null pointer to the type of the values in an array.
template <typename Run>
void WithType(const ffi::AnyBuffer& array, const Run& run) {
  if (Type(array) == memory::data_type::f32) {
    run(static_cast<float*>(nullptr));
  } else {
    run(static_cast<BFloat16*>(nullptr));
  }
}

// Normalizes images x [..., C] by channel; all but images is float32.
void NormalizeByChunks(const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale, const ffi::AnyBuffer& bias,
                       const ffi::AnyBuffer& y, const ffi::AnyBuffer& mean, const ffi::AnyBuffer& variance, bool relu,
                       float epsilon) {
  WithType(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Layout layout(x);
    Statistics(Data<T>(x), layout, Data<float>(mean), Data<float>(variance));
    const Row factors = Factors(layout, Data<float>(variance), Data<float>(scale), epsilon);
    const Coefficients coefficients(layout, Data<float>(mean), factors.data(), Data<float>(bias), relu);
    ApplyByChunks(Data<T>(x), layout, coefficients, Data<T>(y));
  });
}

// Computes the gradients of images x, scale and bias from the gradient g of the normalized images.
void GradientByChunks(const ffi::AnyBuffer& g, const ffi::AnyBuffer& x, const ffi::AnyBuffer& scale,
                      const ffi::AnyBuffer& bias, const ffi::AnyBuffer& mean, const ffi::AnyBuffer& variance,
                      const ffi::AnyBuffer& dx, const ffi::AnyBuffer& dscale, const ffi::AnyBuffer& dbias, bool relu,
                      float epsilon) {
  WithType(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Layout layout(x);
    const int64_t channels = layout.channels;
    const Row factors = Factors(layout, Data<float>(variance), Data<float>(scale), epsilon);
    const Coefficients coefficients(layout, Data<float>(mean), factors.data(), Data<float>(bias), relu);
    const std::vector<double> sums = SumGradients(Data<T>(g), Data<T>(x), layout, coefficients);
    const double *sum = sums.data(), *product = sum + channels;
    Row slopes(channels), shifts(channels);
    const double pixels = layout.count / channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = 1 / std::sqrt(static_cast<double>(Data<float>(variance)[c]) + epsilon);
      const double factor = Data<float>(scale)[c] * inverse;
      Data<float>(dbias)[c] = static_cast<float>(sum[c]);
      Data<float>(dscale)[c] = static_cast<float>(product[c] * inverse);
      slopes[c] = static_cast<float>(-factor * inverse * inverse * product[c] / pixels);
      shifts[c] = static_cast<float>(-factor * sum[c] / pixels);
    }
    ApplyGradientByChunks(Data<T>(g), Data<T>(x), layout, coefficients, slopes.data(), shifts.data(), Data<T>(dx));
  });
}

}  // namespace
