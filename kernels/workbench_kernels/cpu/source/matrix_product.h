// Products of whole blocks in bfloat16, on the unit that was included before: tiles.h or pairs.h.
//
// Sums are [outputs][tokens], 32 by 32. Where the unit is a matrix unit, the vector registers work on the sums of one
// panel while it multiplies the next: both are busy, and neither waits for the other.
#pragma once

#include "blocks.h"
#include "operand.h"

namespace TIER {

// Works on finished sums a part at a time: then(n, m, p, sums, unit).
template <class Then>
class Behind {
public:
    explicit Behind(Then& then) : then_(then) {}
    void begin(int64_t n, int m, int p, const float* sums) { n_ = n, m_ = m, p_ = p, sums_ = sums, next_ = 0; }
    void some(int units) {
        for (; units > 0 && next_ < UNITS; units--, next_++) then_(n_, m_, p_, sums_, next_);
    }
    void finish() { some(UNITS); }

private:
    Then& then_;
    int64_t n_ = 0;
    int m_ = 0, p_ = 0, next_ = UNITS;
    const float* sums_ = nullptr;
};

// Weights whose inputs are contiguous: row n at weight + n * inputs. A strip is OUTPUTS rows; `gap` rows lie between
// its first tile and its second: sixteen, or the hidden width, which puts gate rows beside the rows they gate. Weights
// in float32 are rounded while they are copied.
template <int OUTPUTS_, class W>
struct RowWeights {
    static constexpr int OUTPUTS = OUTPUTS_;
    static constexpr bool is_wide = sizeof(W) > sizeof(BFloat16);
    const W* weight;
    int64_t inputs, gap;

    int64_t steps() const { return steps_of(inputs); }
    static int first_rows(int m) { return std::min(m, 16); }
    static int second_rows(int m) { return OUTPUTS == 16 ? m : std::max(m - 16, 0); }
    static bool has_two(int m) { return second_rows(m) > 0; }

    // Rows a power of two apart fall into the same cache sets, which hurts only where they are read again.
    bool lies_well(int m, int panels) const {
        const bool are_whole = inputs % STEP == 0 && first_rows(m) == 16 && second_rows(m) % 16 == 0;
        return !is_wide && are_whole && (panels == 1 || steps() <= DEPTH);
    }
    const W* at(int64_t n, int64_t step) const { return weight + n * inputs + step * STEP; }
    Operand in_place(int64_t n, int64_t step) const {
        const auto* from = reinterpret_cast<const BFloat16*>(at(n, step));
        return {from, from + gap * inputs, inputs * int64_t(sizeof(BFloat16)), STEP};
    }
    Coming coming(int64_t n, int64_t step) const {
        const char* from = reinterpret_cast<const char*>(at(n, step));
        const int64_t line = inputs * int64_t(sizeof(W));
        return {from, from + gap * line, line, STEP * int64_t(sizeof(W)), is_wide};
    }
    void copy(int64_t n, int m, int64_t step, int steps, BFloat16* to) const {
        for (int tile = 0; tile < 2; tile++) {
            const int rows = tile == 0 ? first_rows(m) : second_rows(m);
            for (int i = 0; i < 16; i++) {
                const W* from = weight + (n + tile * gap + i) * inputs;
                for (int s = 0; s < steps; s++) {
                    const int64_t k = (step + s) * STEP;
                    const __mmask32 mask = i < rows ? first32(int(std::min<int64_t>(STEP, inputs - k))) : 0;
                    const __m512i line = mask == 0 ? _mm512_setzero_si512() : line_of(from + k, mask);
                    _mm512_storeu_si512(to + s * PIECE + tile * TILE + i * STEP, line);
                }
            }
        }
    }
};

// Weights whose outputs are contiguous: input k at weight + k * outputs. They are turned over while they are copied,
// for about a fifth of the arithmetic of eight panels. Interleaving rows instead would cost a third of that, but leave
// sums as [tokens][outputs], whose turning for the next products costs as much again. Inputs come in `parts` of equal
// length that are each filled up to whole steps.
template <class W>
struct ColumnWeights {
    static constexpr int OUTPUTS = 32;
    const W* weight;
    int64_t outputs, part_inputs, parts;

    int64_t steps() const { return parts * steps_of(part_inputs); }
    static bool has_two(int m) { return m > 16; }
    static bool lies_well(int, int) { return false; }
    static Operand in_place(int64_t, int64_t) { return {}; }
    const W* input(int64_t step) const {
        const int64_t steps = steps_of(part_inputs);
        return weight + (step / steps * part_inputs + step % steps * STEP) * outputs;
    }
    Coming coming(int64_t n, int64_t step) const {
        const int64_t line = outputs * int64_t(sizeof(W));
        const char* from = reinterpret_cast<const char*>(input(step) + n);
        return {from, from + 16 * line, line, STEP * line, sizeof(W) > sizeof(BFloat16)};
    }
    void copy(int64_t n, int m, int64_t step, int steps, BFloat16* to) const {
        alignas(64) BFloat16 pairs[PIECE];
        for (int64_t s = step; s < step + steps; s++, to += PIECE) {
            const W* from = input(s) + n;
            const int64_t left = part_inputs - s % steps_of(part_inputs) * STEP;
            rows_to_pairs([&](int i) { return from + i * outputs; }, int(std::min<int64_t>(STEP, left)), m, pairs);
            turn_piece(pairs, to);
        }
    }
};

// Outputs n0..n1 of every token of a block. `panels` hold the inputs, steps() pieces each.
template <class Weights, class Then>
void multiply_block(const Block& b, const Weights& w, int64_t n0, int64_t n1, const BFloat16* panels, BFloat16* copied,
                    float* sums, Then then) {
    Behind<Then> behind(then);
    const int64_t steps = w.steps();
    for (int64_t n = n0; n < n1; n += Weights::OUTPUTS) {
        const int m = int(std::min<int64_t>(Weights::OUTPUTS, n1 - n));
        for (int64_t first = 0; first < steps; first += DEPTH) {
            const int some = int(std::min<int64_t>(DEPTH, steps - first));
            const bool is_last = first + some == steps, is_whole = some == steps, lies_well = w.lies_well(m, b.panels());
            if (!lies_well) w.copy(n, m, first, some, copied);
            const Operand a = lies_well ? w.in_place(n, first) : Operand::of_pieces(copied);
            const Coming next = is_last ? w.coming(n + m, 0) : w.coming(n, first + some);
            for (int p = 0; p < b.panels(); p++) {
                float* own = sums + (is_whole ? 0 : p * SUMS);
                multiply(Weights::has_two(m), b.lanes(p) > 16, a, panels + (p * steps + first) * PIECE, some, own, first > 0,
                         next.part(p, b.panels()), behind);
                if (is_last) behind.begin(n, m, p, own);
            }
        }
    }
    behind.finish();
}

// Four tokens of finished sums, as rows: to(lane) is where feature n of that token lies.
template <class To>
INLINE void store_rows(const float* sums, int unit, int lanes, int m, To to) {
    const int first_lane = 4 * unit;
    if (first_lane >= lanes) return;
    __m512i low[4], high[4];
    const auto part = [&](int i) { return sums + i * PANEL + first_lane; };
    turn_four(part, low);
    if (m > 16) turn_four([&](int i) { return part(16 + i); }, high);
    for (int i = 0; i < std::min(4, lanes - first_lane); i++) {
        auto* row = to(first_lane + i);
        narrow16(_mm512_castsi512_ps(low[i]), row, first(m));
        if (m > 16) narrow16(_mm512_castsi512_ps(high[i]), row + 16, first(m - 16));
    }
}

}  // namespace TIER
