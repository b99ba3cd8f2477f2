// What one step of a product in bfloat16 reads, and what is fetched meanwhile.
#pragma once

#include "words.h"

namespace TIER {

constexpr int DEPTH = 16;         // steps of weights that are copied at once: 32 KB, in the first-level cache
constexpr int SUMS = 32 * PANEL;  // floats of the sums of one panel
constexpr int UNITS = 8;          // parts in which the sums of a panel are worked on

// Lines of the weights that come next, brought near while the present ones are multiplied: 32 of every step, shared
// among the panels.
struct Coming {
    const char *first, *second;  // sixteen lines from each
    int64_t line, step;          // bytes from line to line, and from step to step
    bool is_double;              // the numbers of a line are float32: two lines of the cache
    int begin = 0, end = 0;

    Coming part(int i, int parts) const {
        return {first, second, line, step, is_double, 32 * i / parts, 32 * (i + 1) / parts};
    }
    // A part of a part.
    Coming shared(int i, int parts) const {
        const int lines = end - begin;
        return {first, second, line, step, is_double, begin + lines * i / parts, begin + lines * (i + 1) / parts};
    }
    // inlined by all means: a call of what only fetches has no effect that the compiler knows of, and is left out.
    __attribute__((always_inline)) void fetch(int at) const {
        for (int i = begin; i < end; i++) {
            const char* from = i < 16 ? first + i * line : second + (i - 16) * line;
            __builtin_prefetch(from + at * step, 0, 2);
            if (is_double) __builtin_prefetch(from + at * step + 64, 0, 2);
        }
    }
};

// Two tiles of operand A: rows `stride` bytes apart, the next step `step` numbers on.
struct Operand {
    const BFloat16 *first, *second;
    int64_t stride, step;
    static Operand of_pieces(const BFloat16* pieces) { return {pieces, pieces + TILE, 64, PIECE}; }
};

}  // namespace TIER
