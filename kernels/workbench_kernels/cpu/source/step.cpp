// What a single token needs, call by call or a whole step of calls by one team of threads.
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "call.h"
#include "team.h"

namespace workbench {

static Team* standing = nullptr;

// Never taken down: its threads sleep until the process ends.
Team& team() {
    static const bool is_made = [] {
        standing = new Team;
#if defined(__unix__) || defined(__APPLE__)
        // the threads stay behind in the parent.
        pthread_atfork(nullptr, nullptr, [] { standing = new Team; });
#endif
        return true;
    }();
    (void)is_made;
    return *standing;
}

}  // namespace workbench

using workbench::Session;

extern "C" {

#define TIERS(tier)                                                 \
    int workbench_##tier##_norm(const NormCall*, int);              \
    int workbench_##tier##_attention(const AttentionCall*, Session&); \
    int workbench_##tier##_choice(const ChoiceCall*, Session&);     \
    int workbench_##tier##_experts(const ExpertsCall*, Session&);   \
    int workbench_##tier##_linear(const LinearCall*, Session&);

TIERS(portable)
#if defined(__x86_64__)
TIERS(avx2)
TIERS(avx512)
int workbench_amx_experts(const ExpertsCall*, Session&);
int workbench_bf16_experts(const ExpertsCall*, Session&);
#define CHOSEN(what, second)                              \
    (tier >= 2   ? workbench_avx512_##what(call, second)  \
     : tier == 1 ? workbench_avx2_##what(call, second)    \
                 : workbench_portable_##what(call, second))
#else
#define CHOSEN(what, second) (tier == 0 ? workbench_portable_##what(call, second) : 0)
#endif

static int attend(const AttentionCall* call, Session& team, int tier) { return CHOSEN(attention, team); }
static int norm(const NormCall* call, Session&, int tier) { return CHOSEN(norm, 0); }
static int choose(const ChoiceCall* call, Session& team, int tier) { return CHOSEN(choice, team); }
static int multiply(const LinearCall* call, Session& team, int tier) { return CHOSEN(linear, team); }
static int pass(const ExpertsCall* call, Session& team, int tier) {
#if defined(__x86_64__)
    if (tier == 4 && call->dtype == 1) return workbench_amx_experts(call, team);
    if (tier == 3 && call->dtype == 1) return workbench_bf16_experts(call, team);
#endif
    return CHOSEN(experts, team);
}

// Each returns 1 when it ran, 0 when memory ran out or the dtype is unknown.
int workbench_attention(const AttentionCall* call, int, int tier) {
    // of so few weights a second core is not worth waking.
    const int64_t rows = 2 * (call->heads + call->kv_heads) * call->head_dim, few = 24 * 1024;
    Session team(rows * call->width < few ? 1 : call->threads);
    return attend(call, team, tier);
}
int workbench_choice(const ChoiceCall* call, int, int tier) {
    Session team(1);
    return choose(call, team, tier);
}
int workbench_experts(const ExpertsCall* call, int, int tier) {
    Session team(call->threads);
    return pass(call, team, tier);
}
int workbench_linear(const LinearCall* call, int, int tier) {
    Session team(call->threads);
    return multiply(call, team, tier);
}
int workbench_step(const StepCall* step, int, int tier) {
    Session team(step->threads);
    for (int64_t i = 0; i < step->count; i++) {
        const void* own = step->calls[i];
        int has_run = 0;
        switch (step->kinds[i]) {
            case 0: has_run = attend(static_cast<const AttentionCall*>(own), team, tier); break;
            case 1: has_run = norm(static_cast<const NormCall*>(own), team, tier); break;
            case 2: has_run = choose(static_cast<const ChoiceCall*>(own), team, tier); break;
            case 3: has_run = pass(static_cast<const ExpertsCall*>(own), team, tier); break;
            case 4: has_run = multiply(static_cast<const LinearCall*>(own), team, tier); break;
        }
        if (has_run != 1) return 0;
    }
    return 1;
}
}
