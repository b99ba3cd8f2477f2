// Bfloat16 on the vector registers of processors with AVX512-BF16. TIER is bf16.
#define BFLOAT16_ONLY
#include "pairs.h"

#include "matrix.h"
