// The matrix unit: eight tiles of 16 rows of 64 bytes, here four of sums (0..3), two of A (4, 5) and two of B (6, 7).
//
// Every tile is always whole: what is missing is zero. With WORKBENCH_EMULATES_AMX the same functions run on AVX-512,
// bit for bit as the processor's manual says, so that all but these few instructions is tested anywhere.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "operand.h"

#if defined(WORKBENCH_EMULATES_AMX)
#include <atomic>
#endif

namespace TIER {

struct alignas(64) TileLayout {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileLayout) == 64);

#if !defined(WORKBENCH_EMULATES_AMX)

// Written as assembler: the compilers' intrinsics take the tile's number as text, not as a constant of a template, and
// some of them do not say that memory is read.
struct Unit {
    Unit() {
        const TileLayout layout;
        asm volatile("ldtilecfg %0" ::"m"(layout));
    }
    ~Unit() { asm volatile("tilerelease"); }
    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;
};

template <int TILE>
INLINE void tile_zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}

template <int TILE>
INLINE void tile_load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE), "m"(*(const char(*)[])from));
}

template <int TILE>
INLINE void tile_store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(TILE) : "memory");
}

template <int SUM, int A, int B>
INLINE void tile_multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
}

#else

enum Counted { LOADS, STORES, PRODUCTS, SESSIONS, KINDS };
inline std::atomic<int64_t> counted[KINDS];  // of all threads, since the start or the last reset

struct EmulatedTiles {
    alignas(64) uint32_t word[8][16][16];
    int64_t count[KINDS];
    bool is_configured;
};
inline thread_local EmulatedTiles emulated;

static inline EmulatedTiles& configured() {
    // the processor raises an illegal instruction.
    if (!emulated.is_configured) std::abort();
    return emulated;
}

struct Unit {
    Unit() {
        const TileLayout layout;
        if (emulated.is_configured || layout.palette != 1) std::abort();
        std::memset(&emulated, 0, sizeof emulated);
        emulated.is_configured = true;
        emulated.count[SESSIONS] = 1;
    }
    ~Unit() {
        for (int i = 0; i < KINDS; i++) counted[i] += emulated.count[i];
        emulated.is_configured = false;
    }
    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;
};

template <int TILE>
static void tile_zero() {
    std::memset(configured().word[TILE], 0, sizeof emulated.word[TILE]);
}

template <int TILE>
static void tile_load(const void* from, int64_t stride) {
    EmulatedTiles& tiles = configured();
    for (int m = 0; m < 16; m++) std::memcpy(tiles.word[TILE][m], static_cast<const char*>(from) + m * stride, 64);
    tiles.count[LOADS]++;
}

template <int TILE>
static void tile_store(void* to, int64_t stride) {
    EmulatedTiles& tiles = configured();
    for (int m = 0; m < 16; m++) std::memcpy(static_cast<char*>(to) + m * stride, tiles.word[TILE][m], 64);
    tiles.count[STORES]++;
}

// Even and odd elements are summed apart, by fused steps, and meet at the end.
static __attribute__((noinline)) void emulate_product(uint32_t (*sum)[16], const uint32_t (*a)[16], const uint32_t (*b)[16]) {
    const __m512i high = _mm512_set1_epi32(int32_t(0xffff0000u));
    for (int m = 0; m < 16; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < 16; k++) {
            const __m512i left = _mm512_set1_epi32(int32_t(a[m][k])), right = _mm512_loadu_si512(b[k]);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(left, 16)),
                                   _mm512_castsi512_ps(_mm512_slli_epi32(right, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(left, high)),
                                  _mm512_castsi512_ps(_mm512_and_si512(right, high)), odd);
        }
        _mm512_storeu_ps(sum[m], _mm512_add_ps(_mm512_loadu_ps(sum[m]), _mm512_add_ps(even, odd)));
    }
}

template <int SUM, int A, int B>
static void tile_multiply() {
    EmulatedTiles& tiles = configured();
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x9fc0);  // round to nearest, denormal numbers are zero on the way in and out, no exceptions
    emulate_product(tiles.word[SUM], tiles.word[A], tiles.word[B]);
    _mm_setcsr(before);
    tiles.count[PRODUCTS]++;
}

#endif

constexpr int64_t ROW_BYTES = PANEL * sizeof(float);

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

}  // namespace TIER
