// The plain C interface: one record describes a call, one function runs it.
#pragma once

#include <cstdint>

extern "C" {

// Tensors are contiguous but for the row strides of x, grad and out, which count elements.
struct MoECall {
    int64_t tokens, slots, experts, width, hidden_width;
    int64_t x_stride, grad_stride, out_stride;
    int32_t dtype;       // 0 float32, 1 bfloat16, 2 float16: of all tensors but weight, dweight and the plan
    int32_t activation;  // 0 silu, 1 gelu_tanh, 2 gelu, 3 relu
    int32_t threads;
    int32_t accumulates;  // weight gradients are added to what is there
    const void* x;
    const float* weight;
    const void* gate_up;
    const void* down;
    const int32_t* rows;
    const int32_t* row_of;
    const int32_t* offsets;
    void* out;          // forward; null in backward
    void* hidden;       // forward: written unless null. backward: read unless null, else made again
    const void* grad;   // backward
    void* dx;           // each null where not wanted
    float* dweight;
    void* dgate_up;
    void* ddown;
};

// Every group of rows times its own matrix: out[n] = weight[e] rows[n], and its gradients.
struct GroupedCall {
    int64_t rows_in_use, inputs, outputs, experts;
    int32_t dtype, threads;
    const void* rows;
    const void* weight;
    const int32_t* offsets;
    void* out;
    const void* grad;
    void* drows;
    void* dweight;
};

// Rows divided by their root mean square, times a gain.
struct NormCall {
    int64_t rows, width;
    int32_t dtype, threads;
    float epsilon;
    const void* x;
    const float* gain;
    void* out;
    float* scale;  // of each row: written forward, read backward
    const void* grad;
    void* dx;
    float* dgain;
};

// Cross-entropy of every row.
struct EntropyCall {
    int64_t rows, classes;
    int32_t dtype, threads;
    const void* logits;
    const int64_t* target;  // outside of 0..classes-1: not scored
    float* loss;            // NaN where not scored
    float* log_sum;         // of the exponentials of each row: written forward, read backward
    const float* grad;
    void* dlogits;
};
}
