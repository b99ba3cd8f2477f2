// Products of whole blocks on the matrix unit.
//
// Sums are [outputs][tokens], two tiles each way. While the unit multiplies one panel, the vector registers work on the
// sums of the panel before: both are busy, and neither waits for the other.
#pragma once

#include "blocks.h"
#include "tiles.h"
#include "words.h"

namespace TIER {

constexpr int DEPTH = 16;                   // steps of weights that are copied at once: 32 KB, in the first-level cache
constexpr int SUMS = 32 * PANEL;            // floats of the sums of one panel
constexpr int UNITS = 8;                    // parts in which the sums of a panel are worked on
constexpr int64_t ROW_BYTES = PANEL * sizeof(float);

// Lines of the weights that come next, brought near while the present ones are multiplied: 32 of every step, shared
// among the panels.
struct Coming {
    const char *first, *second;  // sixteen lines from each
    int64_t line, step;          // bytes from line to line, and from step to step
    int begin = 0, end = 0;

    Coming part(int i, int parts) const { return {first, second, line, step, 32 * i / parts, 32 * (i + 1) / parts}; }
    void fetch(int at) const {
        for (int i = begin; i < end; i++) {
            const char* from = i < 16 ? first + i * line : second + (i - 16) * line;
            __builtin_prefetch(from + at * step, 0, 2);
        }
    }
};

// Two tiles of operand A: rows `stride` bytes apart, the next step `step` numbers on.
struct Operand {
    const BFloat16 *first, *second;
    int64_t stride, step;
    static Operand of_pieces(const BFloat16* pieces) { return {pieces, pieces + TILE, 64, PIECE}; }
};

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

template <int NA, int NB, class Side>
static inline void multiply_tiles(const Operand& a, const BFloat16* b, int steps, float* sums, bool continues,
                                  const Coming& coming, Side& side) {
    const int units = (UNITS + steps - 1) / steps;
    float* const below = sums + 16 * PANEL;
    if (continues) {
        tile_load<0>(sums, ROW_BYTES);
        if constexpr (NB > 1) tile_load<1>(sums + 16, ROW_BYTES);
        if constexpr (NA > 1) tile_load<2>(below, ROW_BYTES);
        if constexpr (NA > 1 && NB > 1) tile_load<3>(below + 16, ROW_BYTES);
    } else {
        tile_zero<0>();
        if constexpr (NB > 1) tile_zero<1>();
        if constexpr (NA > 1) tile_zero<2>();
        if constexpr (NA > 1 && NB > 1) tile_zero<3>();
    }
    for (int s = 0; s < steps; s++, b += PIECE) {
        tile_load<6>(b, 64);
        tile_load<4>(a.first + s * a.step, a.stride);
        tile_multiply<0, 4, 6>();
        if constexpr (NB > 1) tile_load<7>(b + TILE, 64);
        if constexpr (NB > 1) tile_multiply<1, 4, 7>();
        if constexpr (NA > 1) tile_load<5>(a.second + s * a.step, a.stride);
        if constexpr (NA > 1) tile_multiply<2, 5, 6>();
        if constexpr (NA > 1 && NB > 1) tile_multiply<3, 5, 7>();
        coming.fetch(s);
        side.some(units);
    }
    // the sums that it works on may lie where these go.
    side.finish();
    tile_store<0>(sums, ROW_BYTES);
    if constexpr (NB > 1) tile_store<1>(sums + 16, ROW_BYTES);
    if constexpr (NA > 1) tile_store<2>(below, ROW_BYTES);
    if constexpr (NA > 1 && NB > 1) tile_store<3>(below + 16, ROW_BYTES);
}

template <class Side>
static inline void multiply(bool has_two_a, bool has_two_b, const Operand& a, const BFloat16* b, int steps, float* sums,
                            bool continues, const Coming& coming, Side& side) {
    if (has_two_a && has_two_b) return multiply_tiles<2, 2>(a, b, steps, sums, continues, coming, side);
    if (has_two_a) return multiply_tiles<2, 1>(a, b, steps, sums, continues, coming, side);
    if (has_two_b) return multiply_tiles<1, 2>(a, b, steps, sums, continues, coming, side);
    return multiply_tiles<1, 1>(a, b, steps, sums, continues, coming, side);
}

// Weights whose inputs are contiguous: row n at weight + n * inputs. A strip is OUTPUTS rows; `gap` rows lie between
// its first tile and its second: sixteen, or the hidden width, which puts gate rows beside the rows they gate.
template <int OUTPUTS_>
struct RowWeights {
    static constexpr int OUTPUTS = OUTPUTS_;
    const BFloat16* weight;
    int64_t inputs, gap;

    int64_t steps() const { return steps_of(inputs); }
    static int first_rows(int m) { return std::min(m, 16); }
    static int second_rows(int m) { return OUTPUTS == 16 ? m : std::max(m - 16, 0); }
    static bool has_two(int m) { return second_rows(m) > 0; }

    // Rows a power of two apart fall into the same cache sets, which hurts only where they are read again.
    bool lies_well(int m, int panels) const {
        const bool are_whole = inputs % STEP == 0 && first_rows(m) == 16 && second_rows(m) % 16 == 0;
        return are_whole && (panels == 1 || steps() <= DEPTH);
    }
    Operand in_place(int64_t n, int64_t step) const {
        const BFloat16* from = weight + n * inputs + step * STEP;
        return {from, from + gap * inputs, inputs * int64_t(sizeof(BFloat16)), STEP};
    }
    Coming coming(int64_t n, int64_t step) const {
        const Operand at = in_place(n, step);
        return {reinterpret_cast<const char*>(at.first), reinterpret_cast<const char*>(at.second), at.stride, 64};
    }
    void copy(int64_t n, int m, int64_t step, int steps, BFloat16* to) const {
        for (int tile = 0; tile < 2; tile++) {
            const int rows = tile == 0 ? first_rows(m) : second_rows(m);
            for (int i = 0; i < 16; i++) {
                const BFloat16* from = weight + (n + tile * gap + i) * inputs;
                for (int s = 0; s < steps; s++) {
                    const int64_t k = (step + s) * STEP;
                    const __mmask32 mask = i < rows ? first32(int(std::min<int64_t>(STEP, inputs - k))) : 0;
                    const __m512i line = mask == 0 ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi16(mask, from + k);
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
struct ColumnWeights {
    static constexpr int OUTPUTS = 32;
    const BFloat16* weight;
    int64_t outputs, part_inputs, parts;

    int64_t steps() const { return parts * steps_of(part_inputs); }
    static bool has_two(int m) { return m > 16; }
    static bool lies_well(int, int) { return false; }
    static Operand in_place(int64_t, int64_t) { return {}; }
    const BFloat16* input(int64_t step) const {
        const int64_t steps = steps_of(part_inputs);
        return weight + (step / steps * part_inputs + step % steps * STEP) * outputs;
    }
    Coming coming(int64_t n, int64_t step) const {
        const int64_t line = outputs * int64_t(sizeof(BFloat16));
        const char* from = reinterpret_cast<const char*>(input(step) + n);
        return {from, from + 16 * line, line, STEP * line};
    }
    void copy(int64_t n, int m, int64_t step, int steps, BFloat16* to) const {
        alignas(64) BFloat16 pairs[PIECE];
        for (int64_t s = step; s < step + steps; s++, to += PIECE) {
            const BFloat16* from = input(s) + n;
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
