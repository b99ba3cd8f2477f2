// Attention of the newest token of a few sequences: norm, projections, rotation, the look back, and the way out.
//
// Weights pass through once, at the speed of memory. Keys and values lie in the cache, [sequence][column][head][channel],
// and the newest column is written here.
#pragma once

#include <tuple>

#include "rows.h"
#include "team.h"

namespace TIER {

constexpr int64_t PROJECTED = 32;  // rows of weight of one item

template <class S>
class TokenAttention {
public:
    explicit TokenAttention(const AttentionCall& call)
        : c(call), D(call.width), Q(call.heads * call.head_dim), K(call.kv_heads * call.head_dim) {}

    bool run(workbench::Session& team) {
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            x_ = take(c.batch * D);
            projected_ = take(c.batch * (Q + 2 * K));
            mixed_ = take(c.batch * Q);
            score_ = take(team.workers() * padded(c.length));
        });
        if (!is_ready) return false;
        for (int64_t b = 0; b < c.batch; b++) norm_stream(b);
        const int64_t outputs = Q + 2 * K;
        team.for_items((outputs + PROJECTED - 1) / PROJECTED, [&](int, int64_t item) {
            project(item * PROJECTED, std::min(outputs, (item + 1) * PROJECTED));
        });
        for (int64_t b = 0; b < c.batch; b++) norm_heads(b);
        team.for_items(c.batch * c.kv_heads, [&](int worker, int64_t item) {
            look_back(item / c.kv_heads, item % c.kv_heads, score_ + worker * padded(c.length));
        });
        team.for_items((D + PROJECTED - 1) / PROJECTED, [&](int, int64_t item) {
            leave(item * PROJECTED, std::min(D, (item + 1) * PROJECTED));
        });
        return true;
    }

private:
    static int64_t padded(int64_t n) { return (n + 31) / 32 * 32; }
    const S* row(const void* weight, int64_t r, int64_t inputs) const { return static_cast<const S*>(weight) + r * inputs; }
    float* projected(int64_t b) const { return projected_ + b * (Q + 2 * K); }
    S* column(void* cache, int64_t b, int64_t p, int64_t head) const {
        return static_cast<S*>(cache) + ((b * c.capacity + p) * c.kv_heads + head) * c.head_dim;
    }

    void scale_row(float* x, const void* gain, int64_t n) const {
        V squares{};
        float rest = 0;
        int64_t k = 0;
        for (; k + VL <= n; k += VL) squares += load(x + k) * load(x + k);
        for (; k < n; k++) rest += x[k] * x[k];
        const float scale = 1.0f / std::sqrt((total(squares) + rest) / float(n) + c.epsilon);
        const float* wide = static_cast<const float*>(gain);
        const S* own = static_cast<const S*>(gain);
        for (int64_t i = 0; i < n; i++) x[i] *= scale * (c.has_wide_gains ? wide[i] : widen(own[i]));
    }

    void norm_stream(int64_t b) const {
        float* x = x_ + b * D;
        widen_row(static_cast<const S*>(c.stream) + b * D, x, D);
        scale_row(x, c.gain, D);
    }

    // Rows `first` to `last` of the queries', keys' and values' weights, as if they lay in one matrix.
    void project(int64_t first, int64_t last) const {
        for (int64_t o = first; o < last; o += 8) {
            const int many = int(std::min<int64_t>(8, last - o));
            const S* rows[8];
            float bias[8] = {};
            for (int i = 0; i < many; i++) {
                const int64_t at = o + i;
                const auto [weight, own, r] = at < Q       ? std::tuple{c.query, c.query_bias, at}
                                              : at < Q + K ? std::tuple{c.key, c.key_bias, at - Q}
                                                           : std::tuple{c.value, c.value_bias, at - Q - K};
                rows[i] = row(weight, r, D);
                if (own != nullptr) bias[i] = widen(static_cast<const S*>(own)[r]);
            }
            float value[8][FEW];
            dot_some(many, rows, x_, D, int(c.batch), D, 8 * D, value);
            for (int i = 0; i < many; i++)
                for (int64_t b = 0; b < c.batch; b++) projected(b)[o + i] = value[i][b] + bias[i];
        }
    }

    // Norm over the whole width, clipping, norm over each head: each where the model has it.
    void norm_heads(int64_t b) const {
        float* own = projected(b);
        if (c.norm == WHOLE_WIDTH) {
            scale_row(own, c.query_gain, Q);
            scale_row(own + Q, c.key_gain, K);
        }
        if (c.clip > 0)
            for (int64_t i = 0; i < Q + 2 * K; i++) own[i] = std::clamp(own[i], -c.clip, c.clip);
        if (c.norm == EACH_HEAD)
            for (int64_t i = 0; i < Q + K; i += c.head_dim)
                scale_row(own + i, i < Q ? c.query_gain : c.key_gain, c.head_dim);
        for (int64_t i = 0; i < Q + K; i += c.head_dim) turn(own + i, b);
        narrow_row(own, static_cast<S*>(c.turned) + b * Q, Q);
    }

    void turn(float* x, int64_t b) const {
        const float *cosine = c.cosine + b * c.head_dim, *sine = c.sine + b * c.head_dim;
        const int64_t half = c.head_dim / 2;
        for (int64_t i = 0; i < half; i++) {
            const float low = x[i], high = x[half + i];
            x[i] = low * cosine[i] - high * sine[i];
            x[half + i] = high * cosine[half + i] + low * sine[half + i];
        }
    }

    void look_back(int64_t b, int64_t head, float* score) const {
        const int64_t H = c.head_dim, group = c.heads / c.kv_heads, newest = c.length - 1;
        narrow_row(projected(b) + Q + head * H, column(c.keys, b, newest, head), H);
        narrow_row(projected(b) + Q + K + head * H, column(c.values, b, newest, head), H);
        for (int64_t g = 0; g < group; g++) {
            const int64_t at = (head * group + g) * H;
            weigh(b, head, projected(b) + at, score);
            mix(b, head, score, mixed_ + b * Q + at);
        }
    }

    // Softmax of the products with all keys that may be looked at; 0 for the others and for the padding of `score`.
    void weigh(int64_t b, int64_t head, const float* query, float* score) const {
        const float shrink = 1.0f / std::sqrt(float(c.head_dim)), nothing = -std::numeric_limits<float>::infinity();
        float most = nothing;
        for (int64_t p = 0; p < c.length; p += 8) {
            const int many = int(std::min<int64_t>(8, c.length - p));
            const S* keys[8];
            for (int i = 0; i < many; i++) keys[i] = column(c.keys, b, p + i, head);
            float value[8][FEW];
            dot_some(many, keys, query, c.head_dim, 1, c.head_dim, 0, value);
            for (int i = 0; i < many; i++) {
                const bool is_seen = c.mask == nullptr || c.mask[b * c.mask_stride + p + i];
                score[p + i] = is_seen ? value[i][0] * shrink : nothing;
                most = std::max(most, score[p + i]);
            }
        }
        for (int64_t p = c.length; p < padded(c.length); p++) score[p] = nothing;
        V sum{};
        for (int64_t p = 0; p < padded(c.length); p += VL) {
            const V own = load(score + p), lowest = splat(std::numeric_limits<float>::lowest()), zero{};
            V share = exponential(own - most);
            share = own < lowest ? zero : share;
            sum += share;
            store(score + p, share);
        }
        const float scale = 1.0f / total(sum);
        for (int64_t p = 0; p < padded(c.length); p += VL) store(score + p, load(score + p) * scale);
    }

    void mix(int64_t b, int64_t head, const float* score, float* out) const {
        constexpr int SOME = 4;
        const int64_t H = c.head_dim, step = c.kv_heads * H;
        const S* values = column(c.values, b, 0, head);
        int64_t d = 0;
        for (; d + VL <= H; d += SOME * VL) {
            const int many = int(std::min<int64_t>(SOME, (H - d) / VL));
            V sum[SOME] = {};
            for (int64_t p = 0; p < c.length; p++)
                for (int i = 0; i < many; i++) sum[i] += splat(score[p]) * widen_vector(values + p * step + d + i * VL);
            for (int i = 0; i < many; i++) store(out + d + i * VL, sum[i]);
        }
        for (d = H / VL * VL; d < H; d++) {
            out[d] = 0;
            for (int64_t p = 0; p < c.length; p++) out[d] += score[p] * widen(values[p * step + d]);
        }
    }

    void leave(int64_t first, int64_t last) const {
        few_rows(static_cast<const S*>(c.output), Q, first, last, mixed_, int(c.batch), [&](int b, int64_t o, float value) {
            const int64_t at = b * D + o;
            narrow(widen(static_cast<const S*>(c.stream)[at]) + value, static_cast<S*>(c.out)[at]);
        });
    }

    enum Norm { NONE = 0, EACH_HEAD = 1, WHOLE_WIDTH = 2 };

    const AttentionCall& c;
    const int64_t D, Q, K;  // of the stream, of all queries, of all keys
    float *x_ = nullptr, *projected_ = nullptr, *mixed_ = nullptr, *score_ = nullptr;
};

}  // namespace TIER
