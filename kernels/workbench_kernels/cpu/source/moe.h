// A layer of gated experts on vector registers: tokens in, weighted sums out, and the gradients.
//
// Work is cut into blocks of rows of one expert. A block gathers its tokens into panels, and the epilogue of the
// up-projection leaves the panels that the down-projection reads. Every sum has one fixed order, whatever the threads.
#pragma once

#include "layer.h"
#include "product.h"

namespace TIER {

template <class S>
class Layer final : public CommonLayer<S, S, Layer<S>> {
public:
    explicit Layer(const MoECall& call) : Common(call, DEPTH) {}

private:
    using Common = CommonLayer<S, S, Layer<S>>;
    friend Common;
    using Common::blocks_, Common::c, Common::D, Common::F, Common::down_few, Common::down_row, Common::dshare_,
        Common::dtoken_, Common::grad_row, Common::place, Common::share_, Common::up_few, Common::up_row, Common::x_row;
    using Scratch = TIER::Scratch;
    static constexpr int64_t GRADIENT_COLUMNS = PANEL;

    int64_t activated_floats() const { return F * PANEL; }
    int64_t placed_floats() const { return PANEL * (D + 3 * F); }
    int64_t placed(const Block& b) const { return place(b.expert) + b.panel - blocks_.first_panel[b.expert]; }

    template <class Take>
    Scratch take_scratch(Take take) const {
        const int p = blocks_.most_panels;
        Scratch s;
        s.weights = take(WEIGHT_FLOATS);
        s.tile = take(tile_floats(p));
        s.x = take(p * D * PANEL);
        s.a = take(p * F * PANEL);
        s.wide = take(gradient_floats(std::max(D, 2 * F)));
        return s;
    }

    template <class Take>
    void take_placed(Take take, int64_t panels) {
        dout_ = take(panels * PANEL * D + PANEL);  // an odd tile reads one row past its own
        dhidden_ = take(panels * PANEL * 2 * F + PANEL);
        activated_ = take(panels * PANEL * F);
    }

    template <class Row>
    void pack(const Block& b, float* to, Row row) const {
        for (int p = 0; p < b.panels(); p++) {
            const S* from[PANEL];
            for (int i = 0; i < b.lanes(p); i++) from[i] = row(b.row + p * PANEL + i);
            rows_to_panel(from, b.lanes(p), D, to + p * D * PANEL);
        }
    }

    void up(const Block& b, int64_t f0, int64_t f1, const Scratch& s, float* a, S* hidden) const;
    void down(const Block& b, int64_t d0, int64_t d1, const Scratch& s, const float* a, float* y) const;
    void inner_gradient(const Block& b, const Scratch& s, const S* hidden);
    void row_gradient(const Block& b, const Scratch& s);
    void gradient_of(int e, bool is_up, int64_t n0, const Scratch& s);

    // of a backward pass, by panel: gradients of the outputs, of the pre-activations, weighted activations.
    float *dout_ = nullptr, *dhidden_ = nullptr, *activated_ = nullptr;
};

template <class S>
void Layer<S>::up(const Block& b, int64_t f0, int64_t f1, const Scratch& s, float* a, S* hidden) const {
    if (b.count <= FEW) return up_few(b, f0, f1, s.x, a, hidden);
    pack(b, s.x, [this](int64_t row) { return x_row(row); });
    const PairedTiles<S> tiles{up_row(b.expert, 0), up_row(b.expert, F), D, f0, f1};
    multiply_block(b, tiles, D, s.x, false, s, [&](int64_t t, int p, const float* tile) {
        const int lanes = b.lanes(p), half = tiles.half(t);
        const int64_t f = tiles.first(t);
        for (int i = 0; i < half; i++) {
            const float *g = tile + i * PANEL, *u = tile + (half + i) * PANEL;
            if (hidden != nullptr) {
                S* kept = hidden + (b.row + p * PANEL) * 2 * F;
                store_lanes(g, kept + (f + i) * lanes, lanes);
                store_lanes(u, kept + (F + f + i) * lanes, lanes);
            }
            float* to = a + (p * F + f + i) * PANEL;
            for (int v = 0; v < lanes; v += VL) store(to + v, gate_of(load(g + v), c.activation).value * load(u + v));
        }
    });
}

template <class S>
void Layer<S>::down(const Block& b, int64_t d0, int64_t d1, const Scratch& s, const float* a, float* y) const {
    if (b.count <= FEW) return down_few(b, d0, d1, a, y);
    const Tiles<Order::rows, S> tiles{down_row(b.expert, 0), F, d0, d1};
    multiply_block(b, tiles, F, a, false, s, [&](int64_t t, int p, const float* tile) {
        float* to[PANEL];
        for (int i = 0; i < b.lanes(p); i++) to[i] = y + (b.row + p * PANEL + i) * D + tiles.first(t);
        panel_to_rows(tile, b.lanes(p), tiles.rows(t), to);
    });
}

// Gradients of the pre-activations and of the weights, and the weighted activations, of one block.
template <class S>
void Layer<S>::inner_gradient(const Block& b, const Scratch& s, const S* hidden) {
    const int64_t at = placed(b);
    float* dout = dout_ + at * D * PANEL;
    pack(b, dout, [this](int64_t row) { return grad_row(row); });
    float share[MOST_PANELS * PANEL], dshare[MOST_PANELS * PANEL] = {};
    for (int i = 0; i < b.panels() * PANEL; i++) share[i] = i < b.count ? share_[b.row + i] : 0.0f;
    const Tiles<Order::columns, S> tiles{down_row(b.expert, 0), F, 0, F};
    const auto through = [&](int64_t t, int p, const float* tile) {
        const int64_t f = tiles.first(t);
        const int lanes = b.lanes(p), m = tiles.rows(t);
        const S* kept = hidden + (b.row + p * PANEL) * 2 * F;
        for (int i = 0; i < m; i++) {
            float gate[PANEL], up[PANEL];
            load_lanes(kept + (f + i) * lanes, gate, lanes);
            load_lanes(kept + (F + f + i) * lanes, up, lanes);
            float* activated = activated_ + ((at + p) * F + f + i) * PANEL;
            float* dgate = dhidden_ + ((at + p) * 2 * F + f + i) * PANEL;
            for (int v = 0; v < PANEL; v += VL) {
                const Gate g = gate_of(load(gate + v), c.activation);
                const V u = load(up + v), d = load(tile + i * PANEL + v), w = load(share + p * PANEL + v);
                const V value = g.value * u, weighted = d * w;
                float* total = dshare + p * PANEL + v;
                store(total, load(total) + d * value);
                store(activated + v, value * w);
                store(dgate + v, weighted * u * g.slope);
                store(dgate + F * PANEL + v, weighted * g.value);
            }
        }
    };
    multiply_block(b, tiles, D, dout, true, s, through);
    std::memcpy(dshare_ + b.row, dshare, b.count * sizeof(float));
}

template <class S>
void Layer<S>::row_gradient(const Block& b, const Scratch& s) {
    const Tiles<Order::columns, S> tiles{up_row(b.expert, 0), D, 0, D};
    const float* dhidden = dhidden_ + placed(b) * 2 * F * PANEL;
    multiply_block(b, tiles, 2 * F, dhidden, false, s, [&](int64_t t, int p, const float* tile) {
        float* to[PANEL];
        for (int i = 0; i < b.lanes(p); i++) to[i] = dtoken_ + (b.row + p * PANEL + i) * D + tiles.first(t);
        panel_to_rows(tile, b.lanes(p), tiles.rows(t), to);
    });
}

// Thirty-two columns of one expert's weight gradient: of gate_up from the tokens, of down from the activations.
template <class S>
void Layer<S>::gradient_of(int e, bool is_up, int64_t n0, const Scratch& s) {
    const int64_t features = is_up ? 2 * F : D, width = is_up ? D : F, at = place(e);
    const int columns = int(std::min<int64_t>(PANEL, width - n0));
    const auto right = [&](int64_t p, float* to) {
        if (is_up) {
            const int64_t row = c.offsets[e] + p * PANEL;
            const int lanes = int(std::min<int64_t>(PANEL, c.offsets[e + 1] - row));
            const S* rows[PANEL];
            for (int t = 0; t < lanes; t++) rows[t] = x_row(row + t);
            rows_to_columns(rows, lanes, n0, columns, to);
        } else {
            if (columns < PANEL) std::memset(to, 0, PANEL * PANEL * sizeof(float));
            float* rows[PANEL];
            for (int t = 0; t < PANEL; t++) rows[t] = to + t * PANEL;
            panel_to_rows(activated_ + ((at + p) * F + n0) * PANEL, PANEL, columns, rows);
        }
    };
    S* gradient = static_cast<S*>(is_up ? c.dgate_up : c.ddown) + e * features * width + n0;
    const float* left = (is_up ? dhidden_ : dout_) + at * features * PANEL;
    gradient_columns(left, features, blocks_.panels(e), right, gradient, width, columns, c.accumulates, s.wide);
}

}  // namespace TIER
