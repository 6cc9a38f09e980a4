/* The functions clients look up by name: kernels, and what the server itself offers. */
#ifndef MLLM_FUNCTIONS_H
#define MLLM_FUNCTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct server;

/* The handle of the function called `name`; 0 when there is none. */
uint64_t function_find(const char* name);

/* Calls a function with the server's arguments and replies with its result; false with the server's
 * failure set when it was refused or failed. */
bool function_call(struct server* server, uint64_t function);

#endif
