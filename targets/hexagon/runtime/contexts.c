#define _XOPEN_SOURCE 700 /* pthread */
#include "contexts.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "counters.h"

enum { STACK_BYTES = 1 << 20 };

/* Generated code launches loops without a handle of anything, so there is one pool. Context 0 is the thread
 * that serves requests. What it does outside of tasks while others run, waiting, is not counted. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t started;
  pthread_cond_t finished;
  uint32_t count;   /* contexts to use */
  uint32_t threads; /* that exist, with context 0 */
  uint64_t launch;  /* number of the current parallel loop */
  uint32_t running;
  bool busy;
  FTVMParallelLambda task;
  void* closure;
  TVMParallelGroupEnv environment;
  struct counters spent[CONTEXTS_MAX];
  int status[CONTEXTS_MAX];
  struct work work;
  struct counters serial; /* where the current serial part began */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .started = PTHREAD_COND_INITIALIZER,
          .finished = PTHREAD_COND_INITIALIZER,
          .count = CONTEXTS_MAX,
          .threads = 1};

static void run_tasks(uint32_t context) {
  const struct counters before = counters_read();
  int status = 0;
  for (int64_t i = context; i < pool.environment.num_task && status == 0; i += pool.count) {
    status = pool.task((int)i, &pool.environment, pool.closure);
  }
  pool.status[context] = status;
  pool.spent[context] = counters_since(before);
}

static void* serve_context(void* argument) {
  const uint32_t context = (uint32_t)(uintptr_t)argument;
  uint64_t seen = 0;
  pthread_mutex_lock(&pool.lock);
  for (;;) {
    while (pool.launch == seen) pthread_cond_wait(&pool.started, &pool.lock);
    seen = pool.launch;
    if (context >= pool.count) continue;
    pthread_mutex_unlock(&pool.lock);
    run_tasks(context);
    pthread_mutex_lock(&pool.lock);
    if (--pool.running == 0) pthread_cond_signal(&pool.finished);
  }
  return NULL;
}

/* With the lock held: new threads then wait for it, and see the coming launch as their first. */
static bool start_threads(void) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  bool started = pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
                 pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0;
  while (started && pool.threads < pool.count) {
    pthread_t thread;
    started = pthread_create(&thread, &attributes, serve_context, (void*)(uintptr_t)pool.threads) == 0;
    pool.threads += started;
  }
  pthread_attr_destroy(&attributes);
  return started;
}

static void add(struct counters spent) {
  pool.work.total_packets += spent.packets;
  pool.work.instructions += spent.instructions;
  pool.work.hvx_instructions += spent.hvx_instructions;
}

static void end_serial_part(void) {
  const struct counters spent = counters_since(pool.serial);
  pool.work.packets += spent.packets;
  add(spent);
}

static int end_parallel_part(void) {
  uint32_t most = 0;
  int status = 0;
  for (uint32_t i = 0; i < pool.count; ++i) {
    if (pool.spent[i].packets > most) most = pool.spent[i].packets;
    if (status == 0) status = pool.status[i];
    add(pool.spent[i]);
  }
  pool.work.packets += most;
  if (pool.work.contexts < pool.count) pool.work.contexts = pool.count;
  return status;
}

static int run_parallel(void) {
  pthread_mutex_lock(&pool.lock);
  const bool started = start_threads();
  if (started) {
    pool.running = pool.count - 1;
    ++pool.launch;
    pthread_cond_broadcast(&pool.started);
  }
  pthread_mutex_unlock(&pool.lock);
  if (!started) return -1;
  run_tasks(0);
  pthread_mutex_lock(&pool.lock);
  while (pool.running != 0) pthread_cond_wait(&pool.finished, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
  return end_parallel_part();
}

/* A loop inside a loop, or one without company. */
static int run_here(FTVMParallelLambda task, void* closure, int32_t tasks) {
  TVMParallelGroupEnv environment = {.sync_handle = NULL, .num_task = tasks};
  int status = 0;
  for (int32_t i = 0; i < tasks && status == 0; ++i) status = task(i, &environment, closure);
  return status;
}

void contexts_use(uint32_t count) { pool.count = count; }

int contexts_launch(FTVMParallelLambda task, void* closure, int32_t tasks) {
  const int32_t count = tasks > 0 ? tasks : (int32_t)pool.count;
  if (pool.busy || pool.count == 1 || count == 1) return run_here(task, closure, pool.busy ? 1 : count);
  end_serial_part();
  pool.busy = true;
  pool.task = task;
  pool.closure = closure;
  pool.environment = (TVMParallelGroupEnv){.sync_handle = NULL, .num_task = count};
  const int status = run_parallel();
  pool.busy = false;
  pool.serial = counters_read();
  return status;
}

void work_begin(void) {
  pool.work = (struct work){.contexts = 1};
  pool.serial = counters_read();
}

struct work work_end(void) {
  end_serial_part();
  return pool.work;
}
