/* What the processor can do; see cpu.c. */
#ifndef TRIOREG_CPU_H
#define TRIOREG_CPU_H

#include "sha.h"

#include <stdbool.h>

bool cpu_has_sha_ni(void);
bool cpu_has_avx2(void);
bool cpu_has_avx512(void); /* F, BW and VL */

#endif
