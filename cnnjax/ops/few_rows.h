// Products of few rows with a large kernel, in bfloat16: fully connected layers of small batches.
//
// They need not take longer than it takes to read the kernel. oneDNN copies it to a layout of its own first, which costs
// little only while the kernel stays in the cache.

#pragma once

#include "own_code.h"

namespace {

constexpr int64_t kMostRows = 32;                   // with more, or with a smaller kernel, oneDNN is faster
constexpr int64_t kLeastKernel = 1 << 21;           // values
constexpr int64_t kDepth = 8, kWidth = 256;         // rows and columns of the kernel in float32 at a time
constexpr int64_t kRowsAtOnce = 4, kLength = 1024;  // the same, for products with its transpose
constexpr int64_t kRowsOfPart = 64;                 // of the kernel, for a thread to take

using Vector = float __attribute__((vector_size(kVector * sizeof(float)), aligned(sizeof(float)), may_alias));

inline ALWAYS_INLINE void Widen(const BFloat16* from, int64_t count, float* __restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = Wide(from[i]);
}

// Computes columns [begin, end) of y [rows, outputs], the product of x [rows, inputs] and w [inputs, outputs].
FOR_EACH_WIDTH void ColumnsOfProduct(const BFloat16* x, const BFloat16* w, BFloat16* y, int64_t rows, int64_t inputs,
                                     int64_t outputs, int64_t begin, int64_t end, float* __restrict sums) {
  const int64_t columns = end - begin;
  std::fill(sums, sums + rows * columns, 0.0f);
  float wide[kDepth][kWidth];
  for (int64_t k = 0; k < inputs; k += kDepth) {
    const int64_t depth = std::min(kDepth, inputs - k);
    for (int64_t start = 0; start < columns; start += kWidth) {
      const int64_t width = std::min(kWidth, columns - start);
      for (int64_t j = 0; j < kDepth; ++j) {
        if (j < depth) {
          Widen(w + (k + j) * outputs + begin + start, width, wide[j]);
        } else {
          std::fill(wide[j], wide[j] + width, 0.0f);
        }
      }
      for (int64_t row = 0; row < rows; ++row) {
        float factors[kDepth] = {};
        for (int64_t j = 0; j < depth; ++j) factors[j] = Wide(x[row * inputs + k + j]);
        float* __restrict sum = sums + row * columns + start;
        for (int64_t i = 0; i < width; ++i) {
          float value = sum[i];
          for (int64_t j = 0; j < kDepth; ++j) value += factors[j] * wide[j][i];
          sum[i] = value;
        }
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) Store(sums[row * columns + i], y[row * outputs + begin + i]);
  }
}

// Computes columns [begin, end) of dx [rows, inputs], the product of g [rows, outputs] and the transpose of w.
FOR_EACH_WIDTH void ColumnsOfTransposed(const float* g, const BFloat16* w, BFloat16* dx, int64_t rows, int64_t inputs,
                                        int64_t outputs, int64_t begin, int64_t end) {
  alignas(64) float wide[kRowsAtOnce][kLength] = {};
  for (int64_t k = begin; k < end; k += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, end - k);
    float sums[kMostRows][kRowsAtOnce] = {};
    for (int64_t start = 0; start < outputs; start += kLength) {
      const int64_t length = std::min(kLength, outputs - start), whole = length / kVector * kVector;
      for (int64_t j = 0; j < count; ++j) Widen(w + (k + j) * outputs + start, length, wide[j]);
      for (int64_t row = 0; row < rows; ++row) {
        const float* factors = g + row * outputs + start;
        Vector totals[kRowsAtOnce] = {};
        for (int64_t i = 0; i < whole; i += kVector) {
          const Vector factor = *reinterpret_cast<const Vector*>(factors + i);
          for (int64_t j = 0; j < kRowsAtOnce; ++j) totals[j] += factor * *reinterpret_cast<const Vector*>(wide[j] + i);
        }
        for (int64_t j = 0; j < kRowsAtOnce; ++j) {
          for (int64_t i = 0; i < kVector; ++i) sums[row][j] += totals[j][i];
          for (int64_t i = whole; i < length; ++i) sums[row][j] += factors[i] * wide[j][i];
        }
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < count; ++j) Store(sums[row][j], dx[row * inputs + k + j]);
    }
  }
}

// Computes y [rows, outputs], the product of x [rows, inputs] and w [inputs, outputs].
void ProductOfFewRows(const BFloat16* x, const BFloat16* w, BFloat16* y, int64_t rows, int64_t inputs,
                      int64_t outputs) {
  const int64_t threads = omp_get_max_threads();
  const int64_t columns = std::max(kVector, (outputs / threads + kVector) / kVector * kVector);
  ForEachPart((outputs + columns - 1) / columns, [&](int64_t part) {
    const int64_t begin = part * columns, end = std::min(outputs, begin + columns);
    static thread_local Buffer sums;
    ColumnsOfProduct(x, w, y, rows, inputs, outputs, begin, end,
                     static_cast<float*>(sums.AtLeast(rows * columns * sizeof(float))));
  });
}

// Computes dx [rows, inputs], the product of g [rows, outputs] and the transpose of w [inputs, outputs].
void TransposedProductOfFewRows(const BFloat16* g, const BFloat16* w, BFloat16* dx, int64_t rows, int64_t inputs,
                                int64_t outputs) {
  static thread_local Buffer buffer;
  float* wide = static_cast<float*>(buffer.AtLeast(rows * outputs * sizeof(float)));
  Widen(g, rows * outputs, wide);
  ForEachPart((inputs + kRowsOfPart - 1) / kRowsOfPart, [&](int64_t part) {
    ColumnsOfTransposed(wide, w, dx, rows, inputs, outputs, part * kRowsOfPart,
                        std::min(inputs, (part + 1) * kRowsOfPart));
  });
}

}  // namespace
