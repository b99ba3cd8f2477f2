// The tier of the matrix unit: bfloat16 only, for processors with AMX; other dtypes go to AVX-512. TIER is amx.
#define BFLOAT16_ONLY
#include "amx_grouped.h"
#include "amx_moe.h"
#include "token_experts.h"

extern "C" {

int workbench_amx_moe(const MoECall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    TIER::MatrixLayer layer(*call);
    return int(is_backward ? layer.backward() : layer.forward());
}

int workbench_amx_grouped(const GroupedCall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    TIER::MatrixGrouped work(*call);
    return int(is_backward ? work.backward() : work.forward());
}

// A single row never meets a tile, but its activation must be that of the layer.
int workbench_amx_experts(const ExpertsCall* call, workbench::Session& team) {
    return call->dtype == 1 && TIER::TokenExperts<TIER::BFloat16>(*call).run(team);
}

#if defined(WORKBENCH_EMULATES_AMX)
int workbench_emulates_amx() { return 1; }

// Tile loads, tile stores, products and configurations since the last call.
void workbench_amx_counts(int64_t* counts) {
    for (int i = 0; i < TIER::KINDS; i++) counts[i] = TIER::counted[i].exchange(0);
}
#else
int workbench_emulates_amx() { return 0; }
#endif
}
