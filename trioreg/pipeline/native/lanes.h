/* Many streams at once. Each function takes the words and the data of as many streams as its name
 * says and advances all of them by the same number of blocks. */
#ifndef TRIOREG_LANES_H
#define TRIOREG_LANES_H

#include "sha.h"

typedef void lanes_function(uint32_t *const words[], const uint8_t *const data[], size_t blocks);

#if TRIOREG_X86
lanes_function lanes_sha_ni_2, lanes_sha_ni_4; /* sha_ni.c: interleaved, not vectors */
lanes_function lanes_avx2;                     /* avx2.c: 8 */
lanes_function lanes_avx512;                   /* avx512.c: 16 */
#endif

#endif
