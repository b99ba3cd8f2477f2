// What the machine can run, and the call that runs it.
#include "call.h"
#include "parallel.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace workbench {

OpenMP openmp = nullptr;

Arena& arena() {
    static thread_local Arena own;
    return own;
}

}  // namespace workbench

extern "C" {

#define TIERS(tier)                                          \
    int workbench_##tier##_moe(const MoECall*, int);         \
    int workbench_##tier##_grouped(const GroupedCall*, int); \
    int workbench_##tier##_causal(const CausalCall*, int);   \
    int workbench_##tier##_norm(const NormCall*, int);       \
    int workbench_##tier##_entropy(const EntropyCall*, int); \
    int workbench_##tier##_topk(const TopKCall*, int);

TIERS(portable)
#if defined(__x86_64__)
TIERS(avx2)
TIERS(avx512)
int workbench_bf16_moe(const MoECall*, int);
int workbench_bf16_grouped(const GroupedCall*, int);
int workbench_bf16_causal(const CausalCall*, int);
int workbench_amx_moe(const MoECall*, int);
int workbench_amx_grouped(const GroupedCall*, int);
int workbench_amx_causal(const CausalCall*, int);
#endif

void workbench_use_openmp(void* function) { workbench::openmp = reinterpret_cast<workbench::OpenMP>(function); }

#if defined(__x86_64__)
static bool has_pairs() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    const unsigned avx512_bf16 = 1u << 5;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & avx512_bf16) != 0;
}

// Whether bfloat16 can go to the matrix unit: the processor has it, and the system lets this process use its registers,
// which it must be asked for once.
static bool has_matrix_unit() {
#if defined(__linux__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    if ((d & amx_bf16) == 0 || (d & amx_tile) == 0 || !has_pairs()) return false;
    const long ask_for_state = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
#else
    return false;
#endif
}
#endif

// 0 portable, 1 AVX2, 2 AVX-512, 3 that with pairs for bfloat16, 4 that with AMX for bfloat16: the best that this
// processor and its operating system run.
int workbench_best_tier() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        static const bool has_amx = has_matrix_unit();
        // on Intel's cores two steps of float32 take no longer than one of pairs.
        return has_amx ? 4 : has_pairs() && __builtin_cpu_is("amd") ? 3 : 2;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return 1;
#endif
    return 0;
}

// Each returns 1 when it ran, 0 when memory ran out or the dtype is unknown.
#if defined(__x86_64__)
#define CHOSEN(what)                                          \
    tier >= 2   ? workbench_avx512_##what(call, is_backward)  \
    : tier == 1 ? workbench_avx2_##what(call, is_backward)    \
                : workbench_portable_##what(call, is_backward)
#define PRODUCT(what)                                                             \
    tier == 4 && call->dtype == 1   ? workbench_amx_##what(call, is_backward)  \
    : tier == 3 && call->dtype == 1 ? workbench_bf16_##what(call, is_backward) \
                                    : CHOSEN(what)
#else
#define CHOSEN(what) tier == 0 ? workbench_portable_##what(call, is_backward) : 0
#define PRODUCT(what) CHOSEN(what)
#endif
int workbench_moe(const MoECall* call, int is_backward, int tier) { return PRODUCT(moe); }
int workbench_grouped(const GroupedCall* call, int is_backward, int tier) { return PRODUCT(grouped); }
int workbench_causal(const CausalCall* call, int is_backward, int tier) { return PRODUCT(causal); }
int workbench_norm(const NormCall* call, int is_backward, int tier) { return CHOSEN(norm); }
int workbench_entropy(const EntropyCall* call, int is_backward, int tier) { return CHOSEN(entropy); }
int workbench_topk(const TopKCall* call, int is_backward, int tier) { return CHOSEN(topk); }

// Gives back the scratch memory that the calling thread holds.
void workbench_release() { workbench::arena().release(); }
}
