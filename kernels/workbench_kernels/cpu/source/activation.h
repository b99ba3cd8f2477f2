// Gated activations: value and derivative with respect to the gate.
#pragma once

#include "vector.h"

namespace TIER {

enum Activation { SILU = 0, GELU_TANH = 1, GELU = 2, RELU = 3 };

struct Gate { V value, slope; };

INLINE Gate gate_of(V g, int activation) {
    if (activation == SILU) {
        const V s = sigmoid(g);
        return {g * s, s + g * s * (1.0f - s)};
    }
    if (activation == GELU_TANH) {
        const float scale = 0.7978845608028654f, cubic = 0.044715f;
        const V inner = scale * (g + cubic * g * g * g);
        // tanh(y) = 2 sigmoid(2 y) - 1
        const V s = sigmoid(2.0f * inner);
        return {g * s, s + 2.0f * g * s * (1.0f - s) * scale * (1.0f + 3.0f * cubic * g * g)};
    }
    if (activation == GELU) {
        const V normal = 0.5f + 0.5f * error_function(g * 0.7071067811865476f);
        return {g * normal, normal + g * 0.3989422804014327f * exponential(-0.5f * g * g)};
    }
    const V zero{}, one = splat(1.0f);
    // written so that a NaN passes through.
    return {g <= zero ? zero : g, g > zero ? one : zero};
}

}  // namespace TIER
