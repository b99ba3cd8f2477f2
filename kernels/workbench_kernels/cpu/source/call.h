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
    int32_t is_mixed;     // x, gate_up, down and their gradients are float32: rounded to dtype where they are read
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
    float* sums;  // forward: takes the output before it is rounded, in place of `out`; null where not wanted
};

// Every group of rows times its own matrix: out[n] = weight[e] rows[n], and its gradients.
struct GroupedCall {
    int64_t rows_in_use, inputs, outputs, experts;
    int32_t dtype, threads;
    int32_t is_turned;  // weight and dweight lie as [expert][input][output], else as [expert][output][input]
    int32_t has_wide_rows, has_wide_weight;  // they and their gradients are float32, rounded where they are read
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
    const void* narrow_gain;  // forward, in place of `gain`: of the dtype of x
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

// Causal attention of whole sequences, and its gradients; tensors are [sequence][token][head][channel].
struct CausalCall {
    int64_t batch, length, heads, kv_heads, head_dim;
    int32_t dtype, threads;
    const void *query, *key, *value;
    const float *cosine, *sine;  // [sequence][token][channel], of queries and keys; null for no rotation
    void* out;                   // written forward, read backward
    float *top, *share;  // [sequence][head][token]: highest product, and 1 / sum of weights; null where not wanted
    const void* grad;    // backward
    void *dquery, *dkey, *dvalue;  // each null where not wanted
};

// The K best experts of every row of logits.
struct TopKCall {
    int64_t rows, experts, slots;
    int32_t dtype, threads;  // dtype: of logits and dlogits
    int32_t score;           // 0 softmax, 1 sigmoid
    int32_t normalizes;
    float scale;
    const void* logits;
    const float* bias;  // forward: added to the scores for the choice only; null for none
    float* weight;
    int64_t* expert;    // best first: written forward, read backward
    float* shift;       // of softmax: each row's highest logit and one over its sum; null where nobody learns
    const float* grad;
    void* dlogits;
};

// Attention of the newest token of each of up to 4 sequences, with its norm and its residual. Biases have the dtype of
// the weights, the rotation is float32.
struct AttentionCall {
    int64_t batch, width, heads, kv_heads, head_dim;
    int64_t length, capacity, mask_stride;  // columns in use, the newest included; columns that there is room for
    int32_t dtype, threads;
    int32_t norm;  // of queries and keys: 0 none, 1 each head, 2 the whole width
    int32_t has_wide_gains;  // gains are float32, else of the dtype of the weights
    float epsilon, clip;  // clip: 0 for none
    const void* stream;
    const void* gain;
    const void *query, *key, *value, *output;
    const void *query_bias, *key_bias, *value_bias;  // each null where there is none
    const void *query_gain, *key_gain;
    const float *cosine, *sine;  // [batch][head_dim]
    const uint8_t* mask;         // [batch][mask_stride], columns that may be looked at; null for all
    void *keys, *values;         // [batch][capacity][kv_heads][head_dim]: the newest column is written
    void* out;
    void* turned;  // the queries as they were used
};

// The choice of one token among experts.
struct ChoiceCall {
    int64_t width, experts, slots;
    int32_t dtype;          // of x
    int32_t has_wide_gate;  // the gate is float32, else of the dtype of x
    int32_t score;          // 0 softmax, 1 softmax over the chosen, 2 sigmoid
    int32_t renormalises;
    float scale;
    const void *x, *gate;
    const float *selection_bias, *bias;  // added for the choice only, -inf in `bias` bans; each null for none
    int64_t* expert;                     // of every slot, best first
    float* numbers;  // weight [slots], share [experts], logit [experts], rank [slots]: what each slot was chosen by
};

// SwiGLU experts of one token.
struct ExpertsCall {
    int64_t slots, experts, width, hidden_width;
    int32_t dtype, threads;
    int32_t is_part;  // fills `outputs` and leaves the sum to a later call
    const void* x;
    const float* weight;
    const int64_t* expert;  // of every slot; -1 for nobody, -2 where an earlier call filled the output
    const void *gate_up, *down;
    const void* residual;  // added at the end; null for none
    void* out;
    float* outputs;  // of every slot, unweighted; null where no other call wants them
};

// A matrix times up to 4 tokens.
struct LinearCall {
    int64_t tokens, inputs, outputs;
    int32_t dtype, threads;
    const void *x, *weight;
    void* out;
};

// Calls of those kinds, one after the other, by one team.
struct StepCall {
    int64_t count;
    int32_t threads;
    const int32_t* kinds;  // 0 attention, 1 norm, 2 choice, 3 experts, 4 linear
    void* const* calls;
};
}
