// Bfloat16 on the matrix unit of processors with AMX. TIER is amx.
#define BFLOAT16_ONLY
#include "tiles.h"

#include "matrix.h"

#if defined(WORKBENCH_EMULATES_AMX)
// Tile loads, tile stores, products and configurations since the last call.
extern "C" void workbench_amx_counts(int64_t* counts) {
    for (int i = 0; i < TIER::KINDS; i++) counts[i] = TIER::counted[i].exchange(0);
}
#endif
