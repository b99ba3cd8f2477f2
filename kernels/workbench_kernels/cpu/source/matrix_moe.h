// A layer of gated experts in bfloat16; X, the type of tokens and weights, may be wider than its products.
//
// The same blocks, panels and order of work as in float32. What one product leaves is what the next one reads:
// two neighbouring features become the pairs of operand B, 32 tokens of a feature a row of operand A.
#pragma once

#include "matrix_gradient.h"
#include "layer.h"

namespace TIER {

template <class X>
class MatrixLayer final : public CommonLayer<BFloat16, X, MatrixLayer<X>> {
public:
    explicit MatrixLayer(const MoECall& call)
        : Common(call, (std::max(call.width, call.hidden_width) + 1) / 2),
          width_steps_(steps_of(D)), hidden_steps_(steps_of(F)),
          streams_(c.experts * D * F * int64_t(sizeof(X)) > PAST_CACHE_BYTES) {}

private:
    using Common = CommonLayer<BFloat16, X, MatrixLayer<X>>;
    friend Common;
    using Common::blocks_, Common::c, Common::D, Common::F, Common::down_few, Common::down_row, Common::dshare_,
        Common::dtoken_, Common::grad_row, Common::place, Common::place_panels_, Common::share_, Common::up_few,
        Common::up_row, Common::x_row;
    static constexpr int64_t GRADIENT_COLUMNS = TIER::GRADIENT_COLUMNS;

    struct Scratch {
        BFloat16 *weights, *x, *dhidden;
        float *sums, *few, *a, *wide;
    };

    int64_t activated_floats() const { return std::max<int64_t>(hidden_steps_ * PIECE / 2, FEW * F); }
    int64_t placed_floats() const { return (width_steps_ + 3 * hidden_steps_) * PIECE / 2; }

    template <class Take>
    Scratch take_scratch(Take take) const {
        const int64_t p = blocks_.most_panels, strips = std::max(width_steps_, 2 * hidden_steps_);
        const auto numbers = [&take](int64_t count) { return reinterpret_cast<BFloat16*>(take(count / 2)); };
        Scratch s;
        s.weights = numbers(DEPTH * PIECE);
        s.x = numbers(p * width_steps_ * PIECE);
        s.dhidden = numbers(place_panels_ > 0 ? p * 2 * hidden_steps_ * PIECE : 0);
        s.sums = take(p * SUMS);
        s.few = take(FEW * D);
        s.a = take(p * activated_floats());
        s.wide = take(std::max(D, gradient_floats(strips, place_panels_)));
        return s;
    }

    template <class Take>
    void take_placed(Take take, int64_t panels) {
        const auto pieces = [&](int64_t steps) { return reinterpret_cast<BFloat16*>(take(panels * steps * PIECE / 2)); };
        dout_ = pieces(width_steps_);
        dhidden_ = pieces(2 * hidden_steps_);
        activated_ = pieces(hidden_steps_);
    }

    template <class Row>
    void pack(const Block& b, BFloat16* to, Row row) const {
        for (int p = 0; p < b.panels(); p++) {
            decltype(row(0)) from[PANEL];
            for (int i = 0; i < b.lanes(p); i++) from[i] = row(b.row + p * PANEL + i);
            rows_to_pieces(from, b.lanes(p), D, to + p * width_steps_ * PIECE);
        }
    }

    // Of operand A of an expert's weight gradients: the piece of a strip of features and a panel.
    BFloat16* piece(BFloat16* of, int64_t steps, int e, int64_t strip, int64_t panel) const {
        return of + (place(e) * steps + strip * blocks_.panels(e) + panel) * PIECE;
    }
    // Of operand B: where the pair of features f, f + 1 of 16 tokens lies.
    static BFloat16* pairs(BFloat16* panel, int64_t f, int half) {
        return panel + f / STEP * PIECE + half * TILE + f % STEP / 2 * STEP;
    }

    struct InnerState;
    template <int HALVES>
    void up_pair(const Block& b, int64_t f, int m, int p, const float* gate, int i, BFloat16* activated,
                 BFloat16* hidden) const;
    void up(const Block& b, int64_t f0, int64_t f1, const Scratch& s, float* a, BFloat16* hidden) const;
    void down(const Block& b, int64_t d0, int64_t d1, const Scratch& s, const float* a, float* y) const;
    void inner_gradient(const Block& b, const Scratch& s, const BFloat16* hidden);
    void inner_pair(const Block& b, InnerState& state, int64_t f, int m, int p, const float* sums) const;
    void row_gradient(const Block& b, const Scratch& s);
    void gradient_of(int e, bool is_up, int64_t n0, const Scratch& s);

    const int64_t width_steps_, hidden_steps_;
    const bool streams_;
    // of a backward pass, as operand A: gradients of the outputs, of the pre-activations, weighted activations.
    BFloat16 *dout_ = nullptr, *dhidden_ = nullptr, *activated_ = nullptr;
};

// Two neighbouring hidden features of up to 16 * HALVES tokens: activations as operand B, and what is kept of them.
template <class X>
template <int HALVES>
void MatrixLayer<X>::up_pair(const Block& b, int64_t f, int m, int p, const float* gate, int i, BFloat16* activated,
                          BFloat16* hidden) const {
    const float* gated = gate + 16 * PANEL;
    __m512 value[2];
#pragma GCC unroll 2
    for (int half = 0; half < HALVES; half++) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            const int at = r * PANEL + 16 * half;
            value[r] = reinterpret_cast<__m512>(gate_of(load(gate + at), c.activation).value * load(gated + at));
        }
        _mm512_storeu_si512(pairs(activated, f + i, half), pairs_of(value[0], value[1]));
    }
    if (hidden == nullptr) return;
    const int lanes = b.lanes(p);
    BFloat16* kept = hidden + (b.row + p * PANEL) * 2 * F;
    for (int r = 0; r < std::min(2, m - i); r++) {
        const auto keep = [&](const float* from, int64_t row) {
            const __m512i both = narrow_both(_mm512_loadu_ps(from + r * PANEL), _mm512_loadu_ps(from + r * PANEL + 16));
            BFloat16* to = kept + row * lanes;
            // what is kept for backward is read much later: whole lines go past the cache.
            if (hidden == c.hidden && lanes == PANEL && reinterpret_cast<uintptr_t>(to) % 64 == 0)
                _mm512_stream_si512(reinterpret_cast<__m512i*>(to), both);
            else
                _mm512_mask_storeu_epi16(to, first32(lanes), both);
        };
        keep(gate, f + i + r);
        keep(gated, F + f + i + r);
    }
}

template <class X>
void MatrixLayer<X>::up(const Block& b, int64_t f0, int64_t f1, const Scratch& s, float* a, BFloat16* hidden) const {
    if (b.count <= FEW) return up_few(b, f0, f1, s.few, a, hidden);
    if (f0 >= f1) return;
    const Unit unit;
    pack(b, s.x, [this](int64_t row) { return x_row(row); });
    BFloat16* const activated = reinterpret_cast<BFloat16*>(a);
    const int64_t panel = hidden_steps_ * PIECE;
    for (int p = 0; p < b.panels() && f1 == F && (F + 15) / 16 % 2 == 1; p++)
        for (int half = 0; half < 2; half++)
            std::memset(pairs(activated + p * panel, (F + 15) / 16 * 16, half), 0, TILE / 2 * sizeof(BFloat16));
    multiply_block(b, RowWeights<16, X>{up_row(b.expert, 0), D, F}, f0, f1, s.x, s.weights, s.sums,
                   [&](int64_t f, int m, int p, const float* sums, int unit) {
        const auto pair = [&](auto halves) {
            this->template up_pair<halves>(b, f, m, p, sums + 2 * unit * PANEL, 2 * unit, activated + p * panel, hidden);
        };
        if (b.lanes(p) > 16)
            pair(std::integral_constant<int, 2>());
        else
            pair(std::integral_constant<int, 1>());
    });
}

template <class X>
void MatrixLayer<X>::down(const Block& b, int64_t d0, int64_t d1, const Scratch& s, const float* a, float* y) const {
    if (b.count <= FEW) return down_few(b, d0, d1, a, y);
    const Unit unit;
    const BFloat16* activated = reinterpret_cast<const BFloat16*>(a);
    multiply_block(b, RowWeights<32, X>{down_row(b.expert, 0), F, 16}, d0, d1, activated, s.weights, s.sums,
                   [&](int64_t d, int m, int p, const float* sums, int unit) {
        store_rows(sums, unit, b.lanes(p), m, [&](int lane) { return y + (b.row + p * PANEL + lane) * D + d; });
    });
}

// ----------------------------------------------------------------------------------------------- backward

template <class X>
struct MatrixLayer<X>::InnerState {
    const BFloat16* hidden;
    BFloat16* tokens;  // gradients of the pre-activations as operand B, for the gradient of the tokens
    // as operand A, of the first strip of the block's first panel; and numbers from strip to strip.
    BFloat16 *gate, *gated, *activated;
    int64_t strip;
    float share[MOST_PANELS * PANEL], dshare[MOST_PANELS * PANEL];
};

// Two neighbouring hidden features of one panel: gradients of their pre-activations, weighted activations, and what
// they add to the gradients of the weights.
template <class X>
void MatrixLayer<X>::inner_pair(const Block& b, InnerState& state, int64_t f, int m, int p, const float* sums) const {
    const int lanes = b.lanes(p);
    const BFloat16* kept = state.hidden + (b.row + p * PANEL) * 2 * F;
    __m512 activated[2][2], dgate[2][2], dgated[2][2];
    for (int r = 0; r < 2; r++) {
        const __mmask32 used = r < m ? first32(lanes) : 0;
        const __m512i gates = _mm512_maskz_loadu_epi16(used, kept + (f + r) * lanes);
        const __m512i gateds = _mm512_maskz_loadu_epi16(used, kept + (F + f + r) * lanes);
        // the next panel's pre-activations come from memory.
        __builtin_prefetch(kept + (PANEL * 2 * F + (f + r) * lanes));
        __builtin_prefetch(kept + (PANEL * 2 * F + (F + f + r) * lanes));
        for (int half = 0; half < 2; half++) {
            const Gate g = gate_of(reinterpret_cast<V>(half == 0 ? widen_low(gates) : widen_high(gates)), c.activation);
            const V u = reinterpret_cast<V>(half == 0 ? widen_low(gateds) : widen_high(gateds));
            const __mmask16 used_half = __mmask16(used >> 16 * half);
            const V d = reinterpret_cast<V>(_mm512_maskz_loadu_ps(used_half, sums + r * PANEL + 16 * half));
            const V w = load(state.share + p * PANEL + 16 * half);
            const V value = g.value * u, weighted = d * w;
            float* total = state.dshare + p * PANEL + 16 * half;
            store(total, load(total) + d * value);
            activated[half][r] = reinterpret_cast<__m512>(value * w);
            dgate[half][r] = reinterpret_cast<__m512>(weighted * u * g.slope);
            dgated[half][r] = reinterpret_cast<__m512>(weighted * g.value);
        }
    }
    const int64_t wide = hidden_steps_ * STEP, at = f / PANEL * state.strip + p * PIECE + f % PANEL * PANEL;
    BFloat16* tokens = state.tokens + p * 2 * hidden_steps_ * PIECE;
    for (int half = 0; half < 2; half++) {
        _mm512_storeu_si512(pairs(tokens, f, half), pairs_of(dgate[half][0], dgate[half][1]));
        _mm512_storeu_si512(pairs(tokens, wide + f, half), pairs_of(dgated[half][0], dgated[half][1]));
    }
    for (int r = 0; r < 2; r++) {
        _mm512_storeu_si512(state.gate + at + r * PANEL, narrow_both(dgate[0][r], dgate[1][r]));
        _mm512_storeu_si512(state.gated + at + r * PANEL, narrow_both(dgated[0][r], dgated[1][r]));
        _mm512_storeu_si512(state.activated + at + r * PANEL, narrow_both(activated[0][r], activated[1][r]));
    }
}

template <class X>
void MatrixLayer<X>::inner_gradient(const Block& b, const Scratch& s, const BFloat16* hidden) {
    const Unit unit;
    const int64_t panel = b.panel - blocks_.first_panel[b.expert];
    const auto first_piece = [&](BFloat16* of, int64_t steps, int64_t strip) {
        return piece(of, steps, b.expert, strip, panel);
    };
    InnerState state{hidden, s.dhidden, first_piece(dhidden_, 2 * hidden_steps_, 0),
                     first_piece(dhidden_, 2 * hidden_steps_, hidden_steps_), first_piece(activated_, hidden_steps_, 0),
                     blocks_.panels(b.expert) * PIECE, {}, {}};
    for (int i = 0; i < b.count; i++) state.share[i] = share_[b.row + i];
    pack(b, s.x, [this](int64_t row) { return grad_row(row); });
    for (int p = 0; p < b.panels(); p++)
        for (int64_t step = 0; step < width_steps_; step++)
            piece_to_features(s.x + (p * width_steps_ + step) * PIECE,
                              piece(dout_, width_steps_, b.expert, step, panel + p));
    multiply_block(b, ColumnWeights<X>{down_row(b.expert, 0), F, D, 1}, 0, F, s.x, s.weights, s.sums,
                   [&](int64_t f, int m, int p, const float* sums, int unit) {
        for (int i = 4 * unit; i < 4 * unit + 4; i += 2) inner_pair(b, state, f + i, m - i, p, sums + i * PANEL);
    });
    std::memcpy(dshare_ + b.row, state.dshare, b.count * sizeof(float));
}

template <class X>
void MatrixLayer<X>::row_gradient(const Block& b, const Scratch& s) {
    const Unit unit;
    multiply_block(b, ColumnWeights<X>{up_row(b.expert, 0), D, F, 2}, 0, D, s.dhidden, s.weights, s.sums,
                   [&](int64_t d, int m, int p, const float* sums, int unit) {
        store_rows(sums, unit, b.lanes(p), m, [&](int lane) { return dtoken_ + (b.row + p * PANEL + lane) * D + d; });
    });
}

// Some columns of one expert's weight gradient: of gate_up from the tokens, of down from the activations.
template <class X>
void MatrixLayer<X>::gradient_of(int e, bool is_up, int64_t n0, const Scratch& s) {
    const Unit unit;
    const int64_t panels = blocks_.panels(e), width = is_up ? D : F, strips = is_up ? 2 * hidden_steps_ : width_steps_;
    const int columns = int(std::min<int64_t>(GRADIENT_COLUMNS, width - n0));
    const auto row_of = [&](int64_t feature) -> X* {
        if (!is_up) return feature < D ? static_cast<X*>(c.ddown) + (e * D + feature) * F + n0 : nullptr;
        const int64_t half = feature / (hidden_steps_ * STEP), f = feature % (hidden_steps_ * STEP);
        return f < F ? static_cast<X*>(c.dgate_up) + ((2 * e + half) * F + f) * D + n0 : nullptr;
    };
    const auto right = [&](int group, int64_t p, BFloat16* to) {
        const int64_t n = n0 + group * PANEL;
        if (!is_up) return turn_piece(piece(activated_, hidden_steps_, e, n / PANEL, p), to);
        const int64_t row = c.offsets[e] + p * PANEL;
        const int lanes = int(std::min<int64_t>(PANEL, c.offsets[e + 1] - row));
        rows_to_pairs([&](int t) { return x_row(row + t) + n; }, lanes, int(std::min<int64_t>(PANEL, D - n)), to);
    };
    if (panels == 0) return clear_columns(strips, columns, c.accumulates, row_of);
    const BFloat16* left = is_up ? piece(dhidden_, 2 * hidden_steps_, e, 0, 0) : piece(dout_, width_steps_, e, 0, 0);
    gradient_columns(left, strips, panels, right, columns, s.wide, {c.accumulates != 0, streams_}, row_of);
}

}  // namespace TIER
