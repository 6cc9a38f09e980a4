/* Work done by this hardware thread, as counted by the emulator; a host build counts nothing. */
#ifndef MLLM_COUNTERS_H
#define MLLM_COUNTERS_H

#include <stdint.h>

struct counters {
  uint32_t packets;
  uint32_t instructions;
  uint32_t hvx_instructions;
};

#if defined(__hexagon__)
/* QEMU keeps its counters in control registers c20 to c22, whose names assemblers do not know:
 * each word is the instruction `r0 = c<number>`. */
#define COUNTER_READ(word, out)                                      \
  do {                                                               \
    register uint32_t transferred __asm__("r0");                     \
    __asm__ volatile(".word " word : "=r"(transferred) : : "memory"); \
    (out) = transferred;                                             \
  } while (0)

static inline struct counters counters_read(void) {
  struct counters now;
  COUNTER_READ("0x6a14c000", now.packets);
  COUNTER_READ("0x6a15c000", now.instructions);
  COUNTER_READ("0x6a16c000", now.hvx_instructions);
  return now;
}
#else
static inline struct counters counters_read(void) { return (struct counters){0, 0, 0}; }
#endif

/* Counts between two readings; right as long as fewer than 2^32 packets lie between them. */
static inline struct counters counters_since(struct counters before) {
  const struct counters now = counters_read();
  return (struct counters){now.packets - before.packets, now.instructions - before.instructions,
                           now.hvx_instructions - before.hvx_instructions};
}

#endif
